package config

import (
	"net/url"
	"strings"
)

// Backends say who may call besides those with a key, and how many.
type Backends struct {
	GRPCConnections int      `name:"grpc-connections" default:"1000" help:"Connections of backends at once; further ones are closed."`
	GRPCTLSCA       string   `name:"grpc-tls-ca" placeholder:"FILE" help:"Certificates, PEM, of who vouches for backends: each connection needs a certificate from there with a name of --grpc-tls-san. Read again when it changes."`
	GRPCTLSSAN      []string `name:"grpc-tls-san" sep:"," placeholder:"NAME[=SCOPE+SCOPE]" help:"DNS name or URI in the certificate of a backend that may call, with all scopes unless some are named: publish, publish:as-user, subscribe, presence, control. Repeatable."`
	GRPCJWTKey      []string `name:"grpc-jwt-key" sep:"," placeholder:"FILE|env:NAME" help:"Key that verifies services' tokens, as --jwt-key does sessions'. Repeatable."`
	GRPCJWKSURL     []string `name:"grpc-jwks-url" sep:"," placeholder:"URL" help:"Key set (JWKS) that verifies services' tokens, fetched again and again. Repeatable."`
	GRPCJWTAlg      []string `name:"grpc-jwt-alg" sep:"," placeholder:"ALG" help:"Algorithms of services' tokens that count; by default what fits each key. Repeatable."`
	GRPCJWTIssuer   string   `name:"grpc-jwt-issuer" placeholder:"ISS" help:"Services' tokens must be issued by it."`
	GRPCJWTAudience string   `name:"grpc-jwt-audience" placeholder:"AUD" help:"Services' tokens must be for it, and no session's token may be."`
}

// SAN is a name in backends' certificates.
type SAN struct {
	Name   string
	Scopes []string // none: all
}

// SANs are those of --grpc-tls-san.
func (b *Backends) SANs() (all []SAN) {
	for _, option := range b.GRPCTLSSAN {
		name, scopes, some := strings.Cut(option, "=")
		one := SAN{Name: name}
		if some {
			one.Scopes = strings.Split(scopes, "+")
		}
		all = append(all, one)
	}
	return all
}

// JWT tells whether services' tokens count.
func (b *Backends) JWT() bool { return len(b.GRPCJWTKey) > 0 || len(b.GRPCJWKSURL) > 0 }

func (c *Serve) checkServices(p *problems) {
	if c.GRPCConnections < 1 || c.GRPCConnections > maxRate {
		p.add("--grpc-connections must be between 1 and %d", maxRate)
	}
	if c.GRPCTLSCA != "" && c.GRPCTLSCert == "" {
		p.add("--grpc-tls-ca needs --grpc-tls-cert and --grpc-tls-key")
	}
	if (c.GRPCTLSCA == "") != (len(c.GRPCTLSSAN) == 0) {
		p.add("--grpc-tls-ca and --grpc-tls-san need each other: which of those that it vouches for may call")
	}
	for _, s := range c.SANs() {
		if s.Name == "" || strings.Contains(s.Name, "*") {
			p.add("--grpc-tls-san: %q is not NAME or NAME=SCOPE+SCOPE; a name stands for itself alone", s.Name)
		}
	}
	if !c.JWT() {
		if len(c.GRPCJWTAlg) > 0 || c.GRPCJWTIssuer != "" || c.GRPCJWTAudience != "" {
			p.add("--grpc-jwt-alg, --grpc-jwt-issuer and --grpc-jwt-audience say nothing without --grpc-jwt-key or --grpc-jwks-url")
		}
		return
	}
	if c.GRPCJWTAudience == "" {
		p.add("--grpc-jwt-audience is missing: it tells services' tokens from users'")
	}
	for _, i := range c.Issuers() {
		if i.Audience != "" && i.Audience == c.GRPCJWTAudience {
			p.add("--grpc-jwt-audience: it is that of --jwt-audience too: sessions' tokens and services' must be for something else each")
		}
	}
	for _, from := range c.GRPCJWKSURL {
		c.checkKeySet(p, "--grpc-jwks-url", from)
	}
}

// checkKeySet refuses what keys should not be fetched from.
func (c *Serve) checkKeySet(p *problems, option, from string) {
	u, err := url.Parse(from)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		p.add("%s must be https://…", option)
	case u.Scheme == "http" && !c.JWKSInsecure && !loopback(u.Hostname()):
		p.add("%s: over http:// whoever is between this node and %s could sign tokens; say --jwks-insecure if that is wanted", option, u.Host)
	}
}
