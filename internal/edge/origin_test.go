package edge

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestOnlyPagesOfTheListOrTheOwnAddressMayConnect(t *testing.T) {
	list := []string{"https://app.example.com", "http://dev.example.com:3000", "https://[2001:db8::1]:8443", "capacitor://localhost", "https://*.wild.example", "http://*.Port.example:81"}
	for _, c := range []struct {
		name, host, origin string
		tls, dev, ok       bool
	}{
		{"no origin", "h", "", false, false, true},
		{"listed", "h", "https://app.example.com", false, false, true},
		{"listed, default port written", "h", "https://app.example.com:443", false, false, true},
		{"listed, capitals", "h", "HTTPS://App.Example.com", false, false, true},
		{"listed with its port", "h", "http://dev.example.com:3000", false, false, true},
		{"listed IPv6", "h", "https://[2001:db8::1]:8443", false, false, true},
		{"listed, of an app", "h", "capacitor://localhost", false, false, true},
		{"below a pattern", "h", "https://a.wild.example", false, false, true},
		{"far below a pattern", "h", "https://b.a.wild.example", false, false, true},
		{"below a pattern, its port written", "h", "https://a.wild.example:443", false, false, true},
		{"a pattern's own name", "h", "https://wild.example", false, false, false},
		{"a pattern's own name with a dot", "h", "https://.wild.example", false, false, false},
		{"an empty label below a pattern", "h", "https://a..wild.example", false, false, false},
		{"look-alike of a pattern", "h", "https://evilwild.example", false, false, false},
		{"pattern as a prefix", "h", "https://a.wild.example.evil.example", false, false, false},
		{"pattern, other scheme", "h", "http://a.wild.example", false, false, false},
		{"pattern, other port", "h", "https://a.wild.example:8443", false, false, false},
		{"pattern with a port", "h", "http://a.port.example:81", false, false, true},
		{"pattern with a port, without", "h", "http://a.port.example", false, false, false},
		{"pattern with a port, another", "h", "http://a.port.example:811", false, false, false},
		{"other scheme", "h", "http://app.example.com", false, false, false},
		{"other port", "h", "https://app.example.com:8443", false, false, false},
		{"prefix look-alike", "h", "https://app.example.com.evil.example", false, false, false},
		{"suffix look-alike", "h", "https://evilapp.example.com", false, false, false},
		{"userinfo", "h", "https://app.example.com@evil.example", false, false, false},
		{"userinfo the other way", "h", "https://evil.example@app.example.com", false, false, false},
		{"with a path", "h", "https://app.example.com/", false, false, false},
		{"null", "h", "null", false, false, false},
		{"null in development", "h", "null", false, true, false},
		{"empty", "h", "-", false, false, false},
		{"own address", "127.0.0.1:8080", "http://127.0.0.1:8080", false, false, true},
		{"own address over TLS", "10.0.0.1", "https://10.0.0.1", true, false, true},
		{"own address, wrong scheme", "10.0.0.1", "http://10.0.0.1", true, false, false},
		{"own address, other port", "127.0.0.1:8080", "http://127.0.0.1:9090", false, false, false},
		{"own address by localhost", "localhost:8080", "http://localhost:8080", false, false, true},
		{"own IPv6 address", "[::1]:8080", "http://[::1]:8080", false, false, true},
		{"rebound name", "evil.example:8080", "http://evil.example:8080", false, false, false},
		{"rebound name in development", "evil.example:8080", "http://evil.example:8080", false, true, false},
		{"loopback page", "127.0.0.1:8080", "http://localhost:5173", false, false, false},
		{"loopback page in development", "127.0.0.1:8080", "http://localhost:5173", false, true, true},
		{"loopback IPv6 page in development", "127.0.0.1:8080", "http://[::1]:5173", false, true, true},
		{"look-alike of loopback in development", "127.0.0.1:8080", "http://localhost.evil.example", false, true, false},
		{"look-alike address in development", "127.0.0.1:8080", "http://127.0.0.1.evil.example", false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := newOrigins(&Config{Origins: list, LoopbackOrigins: c.dev}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/ws", nil)
			r.Host = c.host
			if c.origin != "" {
				r.Header.Set("Origin", strings.TrimPrefix(c.origin, "-"))
			}
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			if got := o.allow(r); got != c.ok {
				t.Errorf("Origin %q to %q: %v, want %v", c.origin, c.host, got, c.ok)
			}
		})
	}
}

func TestHostsOfTheListAndAddressesAreServedAndTheirPagesMayConnect(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Hosts: []string{"rt.example.com", "*.wild.example"}}})
	for _, c := range []struct {
		host, origin string
		code         int
	}{
		{"rt.example.com", "", 101},
		{"RT.example.com:8080", "", 101},
		{"a.wild.example", "", 101},
		{"wild.example", "", 403},
		{"evilwild.example", "", 403},
		{"127.0.0.1", "", 101},
		{"127.0.0.1:8080", "", 101},
		{"[::1]:8080", "", 101},
		{"localhost:8080", "", 101},
		{"evil.example", "", 403},
		{"evil.example", "http://evil.example", 403},
		{"rt.example.com.evil.example", "", 403},
		{"rt.example.com@evil.example", "", 400},
		{"", "", 403},
		{"rt.example.com", "http://rt.example.com", 101},
		{"rt.example.com:8080", "http://rt.example.com:8080", 101},
		{"rt.example.com", "http://rt.example.com:8080", 403},
		{"rt.example.com", "https://rt.example.com", 403},
		{"rt.example.com", "http://a.wild.example", 403},
		{"a.wild.example", "http://a.wild.example", 101},
	} {
		headers := upgrade()[1:]
		headers = append(headers, "Host: "+c.host)
		if c.origin != "" {
			headers = append(headers, "Origin: "+c.origin)
		}
		if res := s.get("GET", "/ws/general", headers...); res.StatusCode != c.code {
			t.Errorf("Host %q, Origin %q: %s, want %d", c.host, c.origin, res.Status, c.code)
		}
	}
	for _, bad := range []string{"", "*", "*.", "*.com", "*.10.0.0.1", ".example.com", "a/b", "rt.example.com:80", "https://rt.example.com"} {
		if _, err := newOrigins(&Config{Hosts: []string{bad}}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("host %q accepted", bad)
		}
	}
}

func TestTwoOriginsAreNone(t *testing.T) {
	o, _ := newOrigins(&Config{Origins: []string{"https://a.example"}}, slog.New(slog.DiscardHandler))
	r := httptest.NewRequest("GET", "/ws", nil)
	r.Header = http.Header{"Origin": {"https://a.example", "https://evil.example"}}
	if o.allow(r) {
		t.Error("allowed")
	}
}

func TestOriginsThatCannotMatchAreConfigurationErrors(t *testing.T) {
	for _, s := range []string{"*", "https://*", "https://*.com", "https://*.*.example.com", "https://a.*.example.com", "https://*example.com", "https://*.10.0.0.1", "*.example.com", "example.com", "https://example.com/x", "null", "", "https://a:0", "https://a:x", "https://[::1"} {
		if _, err := newOrigins(&Config{Origins: []string{s}}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func TestARefusedOriginIsLoggedOnceWithAHint(t *testing.T) {
	var logs strings.Builder
	o, _ := newOrigins(&Config{}, slog.New(slog.NewTextHandler(&logs, nil)))
	for _, origin := range []string{"https://x.example", "https://x.example", "null\x1b[31m\nlevel=ERROR", "https://x.example"} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Header["Origin"] = []string{origin}
		o.allow(r)
	}
	if n := strings.Count(logs.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, logs.String())
	}
	if !strings.Contains(logs.String(), `origin=https://x.example hint="--origin https://x.example"`) || strings.Contains(logs.String(), "\x1b") {
		t.Errorf("logged:\n%s", logs.String())
	}
}

func TestALongOriginIsToldShortened(t *testing.T) {
	var log bytes.Buffer
	o, err := newOrigins(&Config{}, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	r.Header.Set("Origin", "https://"+strings.Repeat("a", 10_000))
	if o.allow(r) || log.Len() == 0 || log.Len() > 600 {
		t.Errorf("logged %d bytes", log.Len())
	}
}

func FuzzAPatternAdmitsOnlyWhatLiesBelowIt(f *testing.F) {
	for _, s := range []string{"https://a.wild.example", "https://a.wild.example:443", "https://.wild.example", "https://wild.example", "https://x@a.wild.example", "https://a.wild.example.", "https://[a.wild.example", "https://[a.wild.example]:443"} {
		f.Add(s)
	}
	o, err := newOrigins(&Config{Origins: []string{"https://*.wild.example"}, Hosts: []string{"*.wild.example"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		o.serves(origin)
		if !o.allow(&http.Request{Host: "h", Header: http.Header{"Origin": {origin}}}) {
			return
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" || !strings.HasSuffix(strings.ToLower(u.Hostname()), ".wild.example") || u.Port() != "" && u.Port() != "443" || u.User != nil || u.Path != "" {
			t.Errorf("%q admitted", origin)
		}
	})
}
