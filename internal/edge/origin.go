package edge

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// origins decides which pages may connect. A browser says in Origin which page it is; other programs say nothing and are
// let through, so a cookie must never be a credential here.
//
// A page of the edge's own address may connect only if that address is an IP, localhost or a name of the list of hosts: any
// other name could be an attacker's who has pointed it here (DNS rebinding: then Host and Origin agree).
type origins struct {
	listed   map[string]bool
	below    []string // of patterns: the origin of what all names lie below
	hosts    []string // names, and .name for all below it
	loopback bool
	log      *slog.Logger
	told     once
}

func newOrigins(c *Config, log *slog.Logger) (*origins, error) {
	o := &origins{listed: make(map[string]bool), loopback: c.LoopbackOrigins, log: log}
	for _, s := range c.Origins {
		at, pattern := s, false
		if scheme, rest, found := strings.Cut(s, "://*."); found {
			at, pattern = scheme+"://"+rest, true
		}
		origin, host, ok := canonical(at)
		switch {
		case !ok || pattern && !severalLabels(host):
			return nil, fmt.Errorf("origin %q: it is scheme://host or scheme://host:port without a path, or scheme://*.host.domain for all names below one", s)
		case pattern:
			o.below = append(o.below, origin)
		default:
			o.listed[origin] = true
		}
	}
	for _, s := range c.Hosts {
		name, pattern := strings.CutPrefix(strings.ToLower(s), "*.")
		if !plain(name, ".-") || strings.HasPrefix(name, ".") || pattern && !severalLabels(name) {
			return nil, fmt.Errorf("host %q: it is a name without a port, or *.host.domain for all names below one", s)
		}
		if pattern {
			name = "." + name
		}
		o.hosts = append(o.hosts, name)
	}
	return o, nil
}

// severalLabels tells names that are somebody's from top-level ones, which are everybody's, and from addresses.
func severalLabels(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && strings.Contains(strings.Trim(host, "."), ".")
}

// under tells whether name is at least one whole label below the name that suffix is, with a dot before it.
func under(name, suffix string) bool {
	rest, ok := strings.CutSuffix(name, suffix)
	return ok && rest != "" && !strings.HasPrefix(rest, ".") && !strings.HasSuffix(rest, ".") && !strings.Contains(rest, "..")
}

// allow judges a request and logs what it refuses, once for each origin.
func (o *origins) allow(r *http.Request) bool {
	given := r.Header["Origin"]
	if len(given) == 0 {
		return true
	}
	c, host, ok := canonical(given[0])
	if ok && len(given) == 1 && (o.listed[c] || o.patterned(c) || o.loopback && isLoopback(host) || o.sameAddress(r, c, host)) {
		return true
	}
	switch {
	case !o.told.first(given[0]):
	case ok && len(given[0]) <= maxSubject:
		o.log.Warn("origin refused", "origin", c, "hint", "--origin "+c)
	default:
		o.log.Warn("origin refused", "origin", given[0][:min(len(given[0]), maxSubject)])
	}
	return false
}

func (o *origins) patterned(origin string) bool {
	scheme, name, _ := strings.Cut(origin, "://")
	for _, b := range o.below {
		if s, suffix, _ := strings.Cut(b, "://"); s == scheme && under(name, "."+suffix) {
			return true
		}
	}
	return false
}

// serves tells whether a request may be addressed so: by an address, localhost, or a name of the list if there is one.
func (o *origins) serves(hostport string) bool {
	if len(o.hosts) == 0 {
		return true
	}
	_, host, ok := canonical("http://" + hostport)
	if ok && (unnamed(host) || o.named(host)) {
		return true
	}
	switch {
	case !o.told.first("host " + hostport):
	case ok && len(hostport) <= maxSubject:
		o.log.Warn("host refused", "host", host, "hint", "--host "+host)
	default:
		o.log.Warn("host refused", "host", hostport[:min(len(hostport), maxSubject)])
	}
	return false
}

func (o *origins) named(host string) bool {
	for _, h := range o.hosts {
		if host == h || strings.HasPrefix(h, ".") && under(host, h) {
			return true
		}
	}
	return false
}

// unnamed tells addresses and localhost from names, which anybody may point anywhere.
func unnamed(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

func (o *origins) sameAddress(r *http.Request, origin, host string) bool {
	if !unnamed(host) && !o.named(host) {
		return false
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	own, _, ok := canonical(scheme + r.Host)
	return ok && own == origin
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// canonical brings an origin into the one form in which origins are compared: lower case, a default port left out. host
// comes without brackets. Whatever has more than scheme, host and port (null, userinfo, a path) is none.
func canonical(s string) (origin, host string, ok bool) {
	scheme, rest, found := strings.Cut(strings.ToLower(s), "://")
	if !found || !plain(scheme, "+-.") || !plain(rest, ".-_:[]") {
		return "", "", false
	}
	host, port := rest, ""
	if found := strings.Contains(rest, ":"); found && !strings.HasSuffix(rest, "]") {
		var err error
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return "", "", false
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return "", "", false
		}
	} else if strings.HasPrefix(rest, "[") {
		host = strings.Trim(rest, "[]")
	}
	if a, err := netip.ParseAddr(host); (rest[0] == '[' || strings.ContainsAny(host, ":[]")) && (err != nil || !a.Is6() || a.Zone() != "") {
		return "", "", false
	}
	if host == "" {
		return "", "", false
	}
	origin = scheme + "://" + host
	if strings.Contains(host, ":") {
		origin = scheme + "://[" + host + "]"
	}
	if port != "" && !(scheme == "http" && port == "80" || scheme == "https" && port == "443") {
		origin += ":" + port
	}
	return origin, host, true
}

// plain: letters and digits of ASCII, and those of more.
func plain(s, more string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return s != ""
}
