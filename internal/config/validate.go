package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// problems gathers what is wrong with the options.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// Validate returns all that is wrong with the options, joined.
func (c *Serve) Validate() error {
	var p problems
	for _, a := range []struct{ name, addr string }{{"--edge-addr", c.EdgeAddr}, {"--grpc-addr", c.GRPCAddr}, {"--ops-addr", c.OpsAddr}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			p.add("%s: %q is not HOST:PORT", a.name, a.addr)
		}
	}
	for _, f := range []struct{ cert, key, name string }{{c.EdgeTLSCert, c.EdgeTLSKey, "edge"}, {c.GRPCTLSCert, c.GRPCTLSKey, "grpc"}} {
		if (f.cert == "") != (f.key == "") {
			p.add("--%s-tls-cert and --%[1]s-tls-key need each other", f.name)
		}
	}
	c.checkTokens(&p)
	c.checkSessions(&p)
	c.checkBackends(&p)
	c.checkHooks(&p)
	c.checkServices(&p)
	c.checkSizes(&p)
	c.Limits.check(&p)
	c.checkRedis(&p)
	return errors.Join(p...)
}

func (c *Serve) checkSessions(p *problems) {
	for _, s := range c.TrustedProxy {
		if _, err := netip.ParsePrefix(s); err != nil {
			if _, err := netip.ParseAddr(s); err != nil {
				p.add("--trusted-proxy: %q is no address or network such as 10.0.0.0/8", s)
			}
		}
	}
	if c.ProxyProtocol && len(c.TrustedProxy) == 0 {
		p.add("--proxy-protocol needs --trusted-proxy: the addresses of the proxies, or everybody could say where he comes from")
	}
	for t, kind := range c.Type {
		if kind != "stored" && kind != "ephemeral" {
			p.add("--type: %s=%s: the kind is stored or ephemeral", t, kind)
		}
	}
	if c.PresenceAway < 0 {
		p.add("--presence-away must not be below 0")
	}
}

func (c *Serve) checkBackends(p *problems) {
	if missing := c.missingForOthers(); missing != "" && !c.GRPCInsecure {
		p.add("--grpc-addr: %s is not loopback, and without %s whoever reaches it may publish; say --grpc-insecure if that is wanted", c.GRPCAddr, missing)
	}
	for _, k := range c.GRPCKey {
		if _, err := k.Read(MinGRPCKey); err != nil {
			p.add("--grpc-key: %w", err)
		}
	}
	if c.GRPCRate != nil && *c.GRPCRate < 0 {
		p.add("--grpc-rate must be 0 or above")
	}
}

func (c *Serve) checkSizes(p *problems) {
	for _, o := range []struct {
		name string
		ok   bool
	}{
		{"--max-sessions", c.MaxSessions > 0},
		{"--history-size", c.HistorySize > 0},
		{"--history-ttl", c.HistoryTTL > 0},
		{"--idempotency-ttl", c.IdempotencyTTL > 0},
		{"--memory-bytes", c.MemoryBytes > 0},
		{"--drain-timeout", c.DrainTimeout > 0},
		{"--jwt-max-lifetime", c.JWTMaxLifetime > 0},
		{"--presence-grace", c.PresenceGrace > 0},
		{"--presence-counts-above", c.PresenceCountsAbove > 0},
	} {
		if !o.ok {
			p.add("%s must be above 0", o.name)
		}
	}
	if c.MaxData < minMaxData || c.MaxData > maxMaxData {
		p.add("--max-data must be between %v and %v", Bytes(minMaxData), Bytes(maxMaxData))
	}
	if c.TimerSlack < 0 || c.TimerSlack > maxTimerSlack {
		p.add("--timer-slack must be between 0 and %v: all that is timed would be later", maxTimerSlack)
	}
	if c.LogBytes < minLogBytes {
		p.add("--log-bytes must be at least %v", Bytes(minLogBytes))
	}
	if c.SndbufBytes < minSndbuf || c.SndbufBytes > maxSndbuf {
		p.add("--sndbuf-bytes must be between %v and %v", Bytes(minSndbuf), Bytes(maxSndbuf))
	}
	if c.DrainDelay < 0 || c.DrainWindow < 0 || c.DrainDelay > c.DrainTimeout-c.DrainWindow {
		p.add("--drain-delay and --drain-window must fit into --drain-timeout (%v)", c.DrainTimeout)
	}
}

const (
	minLogBytes   = 4 << 20 // a quarter of it is the most that one room's history may take while members resume
	minSndbuf     = 4 << 10 // about what the kernel itself takes for a minimum
	minMaxData    = 1 << 10
	maxMaxData    = 1 << 20 // two of them fit into what a page or a request may have
	maxTimerSlack = 10 * time.Millisecond
	maxSndbuf     = 1 << 30 // the kernel doubles it and counts in 32 bits
)

// missingForOthers names what the gRPC listener lacks where others than this host can reach it; empty: nothing.
func (c *Serve) missingForOthers() string {
	if host, _, err := net.SplitHostPort(c.GRPCAddr); err != nil || loopback(host) {
		return ""
	}
	var missing []string
	if c.GRPCTLSCert == "" {
		missing = append(missing, "TLS")
	}
	if len(c.GRPCKey) == 0 && !c.JWT() && c.GRPCTLSCA == "" {
		missing = append(missing, "--grpc-key (or --grpc-jwt-key, --grpc-jwks-url, --grpc-tls-ca)")
	}
	return strings.Join(missing, " and ")
}

// MinGRPCKey is how many bytes a key for backends has at least.
const MinGRPCKey = 16

// defaultGRPCRate is what a backend may publish in a second where others than this host call.
const defaultGRPCRate = 5000

// GRPCRateLimit is the rate that holds; 0: any.
func (c *Serve) GRPCRateLimit() int {
	if c.GRPCRate != nil {
		return *c.GRPCRate
	}
	if host, _, err := net.SplitHostPort(c.GRPCAddr); err == nil && loopback(host) {
		return 0
	}
	return defaultGRPCRate
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
