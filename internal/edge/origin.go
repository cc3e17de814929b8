package edge

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// origins decides which pages may connect. A browser says in Origin which page it is; other programs say nothing and are
// let through, so a cookie must never be a credential here.
//
// A page of the edge's own address may connect only if that address is an IP or localhost: a name could be an
// attacker's who has pointed it here (DNS rebinding: then Host and Origin agree). Names are let in by the list.
type origins struct {
	listed   map[string]bool
	loopback bool
	log      *slog.Logger

	mu   sync.Mutex
	told map[string]bool // refused and logged
}

// maxTold bounds told: an attacker chooses the origins.
const maxTold = 1000

func newOrigins(list []string, loopback bool, log *slog.Logger) (*origins, error) {
	o := &origins{listed: make(map[string]bool), loopback: loopback, log: log, told: make(map[string]bool)}
	for _, s := range list {
		c, _, ok := canonical(s)
		if !ok {
			return nil, fmt.Errorf("origin %q: it is scheme://host or scheme://host:port, without path or *", s)
		}
		o.listed[c] = true
	}
	return o, nil
}

// allow judges a request and logs what it refuses, once for each origin.
func (o *origins) allow(r *http.Request) bool {
	given := r.Header["Origin"]
	if len(given) == 0 {
		return true
	}
	c, host, ok := canonical(given[0])
	if ok && len(given) == 1 && (o.listed[c] || o.loopback && isLoopback(host) || sameAddress(r, c, host)) {
		return true
	}
	o.tell(given[0], c, ok)
	return false
}

func sameAddress(r *http.Request, origin, host string) bool {
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
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

func (o *origins) tell(given, c string, ok bool) {
	const most = 256 // more than any host has
	if len(given) > most {
		given, ok = given[:most], false
	}
	o.mu.Lock()
	known := o.told[given] || len(o.told) >= maxTold
	if !known {
		o.told[given] = true
	}
	o.mu.Unlock()
	switch {
	case known:
	case ok:
		o.log.Warn("origin refused", "origin", c, "hint", "--origin "+c)
	default:
		o.log.Warn("origin refused", "origin", given)
	}
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
	if a, err := netip.ParseAddr(host); strings.ContainsAny(host, ":[]") && (err != nil || a.Zone() != "") {
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
