package config

import (
	"slices"
	"strings"
)

// Issuer is one whose tokens count, as the options name it.
type Issuer struct {
	Name     string   // "": any that no other is
	Audience string   // "": not looked at
	KeySets  []string // URLs and files
}

// Issuers are those of --jwt-issuer, --jwks-url, --jwks-file and --jwt-audience. The first, that of --jwt-key, is always there.
func (c *Serve) Issuers() []Issuer {
	all := []Issuer{{Name: c.JWTIssuer}}
	add := func(name, from string) {
		i := slices.IndexFunc(all, func(i Issuer) bool { return i.Name == name })
		if name == "" {
			i = 0
		}
		if i < 0 {
			i, all = len(all), append(all, Issuer{Name: name})
		}
		all[i].KeySets = append(all[i].KeySets, from)
	}
	for _, option := range c.JWKSURL {
		add(splitURL(option))
	}
	for _, option := range c.JWKSFile {
		add(splitFile(option))
	}
	of, _ := c.audiences(all)
	for i := range all {
		audience, own := of[all[i].Name]
		if !own {
			audience = of[""]
		}
		all[i].Audience = audience
	}
	return all
}

// audiences are by issuer; that of "" is for all who have none of their own. twice: there are two for one.
func (c *Serve) audiences(issuers []Issuer) (of map[string]string, twice bool) {
	of = make(map[string]string)
	for _, option := range c.JWTAudience {
		name, audience := "", option
		for _, i := range issuers {
			if own, ok := strings.CutPrefix(option, i.Name+"="); ok && i.Name != "" {
				name, audience = i.Name, own
			}
		}
		if _, again := of[name]; again {
			twice = true
		}
		of[name] = audience
	}
	return of, twice
}

// splitURL takes [ISS=]URL apart: the issuer may be a URL itself, but has no query.
func splitURL(option string) (name, from string) {
	for _, scheme := range []string{"=https://", "=http://"} {
		if name, rest, ok := strings.Cut(option, scheme); ok && !strings.Contains(name, "?") {
			return name, scheme[1:] + rest
		}
	}
	return "", option
}

// splitFile takes [ISS=]FILE apart.
func splitFile(option string) (name, from string) {
	i := strings.LastIndexByte(option, '=')
	return option[:max(i, 0)], option[i+1:]
}

func (c *Serve) checkTokens(p *problems) {
	all := c.Issuers()
	own := len(c.JWTKey) > 0 || len(all[0].KeySets) > 0
	if !c.Dev && !c.Anonymous && !own && len(all) == 1 && !c.HooksDecide() {
		p.add("--jwt-key is missing, or --jwks-url: without one no token can be verified; say --anonymous to let everybody in, or --dev to try things out, or have a hook decide, connect, that fails closed")
	}
	if !own && len(all) == 1 && (len(c.JWTAlg) > 0 || c.JWTIssuer != "" || len(c.JWTAudience) > 0) {
		p.add("--jwt-alg, --jwt-issuer and --jwt-audience say nothing without --jwt-key or --jwks-url")
	}
	if !own && len(all) > 1 && c.JWTIssuer != "" {
		p.add("--jwt-issuer: %s has no key: say --jwks-url %[1]s=URL, or leave it out", c.JWTIssuer)
	}
	if _, twice := c.audiences(all); twice {
		p.add("--jwt-audience: there may be one for all issuers, and one for each that --jwt-issuer, --jwks-url and --jwks-file name, as ISS=AUD")
	}
	for _, option := range c.JWKSURL {
		_, from := splitURL(option)
		c.checkKeySet(p, "--jwks-url", from)
	}
}
