package edge

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func TestARequestIsItsPeersOrWhomTheTrustedProxyNames(t *testing.T) {
	p, err := newProxies([]string{"10.0.0.0/8", "192.0.2.1", "2001:db8:1::/48"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string // "": no address that limits know
	}{
		{"a peer", "203.0.113.9:5", nil, "203.0.113.9"},
		{"a peer that pretends", "203.0.113.9:5", []string{"198.51.100.7"}, "203.0.113.9"},
		{"a proxy that says nothing", "10.1.2.3:5", nil, "10.1.2.3"},
		{"a proxy", "10.1.2.3:5", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a proxy by its address", "192.0.2.1:5", []string{"198.51.100.7"}, "198.51.100.7"},
		{"its neighbour", "192.0.2.2:5", []string{"198.51.100.7"}, "192.0.2.2"},
		{"proxies behind proxies", "10.1.2.3:5", []string{"6.6.6.6, 198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		{"what the sender put before", "10.1.2.3:5", []string{"6.6.6.6", "198.51.100.7"}, "198.51.100.7"},
		{"an address with a port", "10.1.2.3:5", []string{"198.51.100.7:4711"}, "198.51.100.7"},
		{"IPv6", "10.1.2.3:5", []string{"2001:db8:2:3:4::5"}, "2001:db8:2:3::1"},
		{"IPv6 in brackets", "[2001:db8:1::1]:5", []string{"[2001:db8:2:3:4::5]:99"}, "2001:db8:2:3::1"},
		{"IPv4 in IPv6", "[::ffff:10.1.2.3]:5", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"rubbish", "10.1.2.3:5", []string{"nobody"}, "10.1.2.3"},
		{"rubbish behind an address", "10.1.2.3:5", []string{"198.51.100.7, nobody"}, "10.1.2.3"},
		{"empty", "10.1.2.3:5", []string{""}, "10.1.2.3"},
		{"only proxies", "10.1.2.3:5", []string{"10.9.9.9"}, "10.1.2.3"},
		{"this host", "127.0.0.1:5", nil, ""},
		{"this host by IPv6", "[::1]:5", []string{"198.51.100.7"}, ""},
		{"this host behind a proxy", "10.1.2.3:5", []string{"127.0.0.1"}, ""},
		{"a Unix socket", "@", nil, ""},
		{"no peer", "", []string{"198.51.100.7"}, ""},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != nil {
			r.Header["X-Forwarded-For"] = c.forwarded
		}
		var want address
		if c.want != "" {
			want = addressOf(netip.MustParseAddr(c.want))
		}
		if got := addressOf(p.sender(r)); got != want {
			t.Errorf("%s: %s with %q is %#x, want %s, %#x", c.name, c.peer, c.forwarded, got, c.want, want)
		}
	}
}

func TestAPeerThatIsNotTrustedIsToldOnceWithTheOption(t *testing.T) {
	var logs strings.Builder
	p, _ := newProxies(nil, slog.New(slog.NewTextHandler(&logs, nil)))
	for _, forwarded := range []string{"198.51.100.7", "a\nlevel=ERROR", "198.51.100.8"} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.RemoteAddr = "203.0.113.9:5"
		r.Header.Set("X-Forwarded-For", forwarded)
		p.sender(r)
	}
	if n := strings.Count(logs.String(), "\n"); n != 1 || !strings.Contains(logs.String(), `hint="--trusted-proxy 203.0.113.9"`) || strings.Contains(logs.String(), "198.51") {
		t.Errorf("logged:\n%s", logs.String())
	}
}

func TestProxiesThatCannotBeAreConfigurationErrors(t *testing.T) {
	for _, s := range []string{"", "*", "proxy.example", "10.0.0.0/33", "10.0.0.0/8,", "fe80::1%eth0", "::ffff:10.0.0.0/104"} {
		if _, err := newProxies([]string{s}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

func FuzzWhoIsBehindAProxy(f *testing.F) {
	f.Add("10.1.2.3:5", "6.6.6.6, 198.51.100.7")
	f.Add("203.0.113.9:5", "[::1%lo]:80,\"x\", ,")
	p, _ := newProxies([]string{"10.0.0.0/8"}, slog.New(slog.DiscardHandler))
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		r := &http.Request{RemoteAddr: peer, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		got := addressOf(p.sender(r))
		if a := parseHost(peer); !p.trusts(a) && got != addressOf(a) {
			t.Errorf("%q with %q is %#x", peer, forwarded, got)
		}
	})
}

// introduced is a server behind proxies on this host that introduce their connections.
func introduced(t *testing.T, trusted ...string) *server {
	s := serve(t, fast, setup{cfg: Config{Limits: Limits{AddressSessions: 1}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		l, err = ProxyListener(l, trusted)
	}
	if err != nil {
		t.Fatal(err)
	}
	front := &http.Server{Handler: s.Edge, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	done := make(chan struct{})
	go func() { defer close(done); _ = front.Serve(l) }()
	t.Cleanup(func() { _ = front.Shutdown(context.Background()); <-done }) //nolint:usetesting // the test's context has ended
	s.addr = l.Addr().String()
	return s
}

func TestProxiesMayIntroduceTheirConnections(t *testing.T) {
	s := introduced(t, "127.0.0.1")
	header := func(version byte, from string) string {
		h := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.ParseIP(from), Port: 99}, &net.TCPAddr{IP: net.ParseIP("203.0.113.1"), Port: 80})
		b, err := h.Format()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	ask := func(before, after string) (*conn, int) {
		c := s.raw()
		c.send(before)
		return c, c.ask("/ws/general", []byte(after)).StatusCode
	}
	// What follows in one packet may lie behind the header, or behind the request: nothing is lost.
	one, code := ask(header(2, "198.51.100.7"), string(text(`{"type":"chat","ref":"1"}`))+string(text(`{"type":"chat","ref":"2"}`)))
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("answered %d", code)
	}
	one.want("ack")
	one.want("ack")
	if _, code := ask(header(2, "198.51.100.7"), ""); code != http.StatusTooManyRequests {
		t.Errorf("a second session of the address: %d", code)
	}
	two, code := ask(header(1, "198.51.100.8"), "")
	if code != http.StatusSwitchingProtocols {
		t.Errorf("another address, by version 1: %d", code)
	}
	two.want("subscribed")

	direct := s.raw()
	direct.send("GET /ws HTTP/1.1\r\n" + strings.Join(upgrade(), "\r\n") + "\r\n\r\n")
	direct.deadline(10 * time.Second)
	if b, err := io.ReadAll(direct.r); strings.Contains(string(b), " 101 ") {
		t.Errorf("a trusted proxy that introduces nobody is served: %q %v", b, err)
	}
}

func TestOthersMayNotIntroduceThemselves(t *testing.T) {
	s := introduced(t, "192.0.2.0/24")
	c := s.raw()
	if code := c.ask("/ws/general", nil).StatusCode; code != http.StatusSwitchingProtocols {
		t.Errorf("without a header: %d", code)
	}
	liar := s.raw()
	liar.send("PROXY TCP4 198.51.100.7 203.0.113.1 99 80\r\nGET /ws HTTP/1.1\r\n" + strings.Join(upgrade(), "\r\n") + "\r\n\r\n")
	liar.deadline(10 * time.Second)
	if b, err := io.ReadAll(liar.r); strings.Contains(string(b), " 101 ") {
		t.Errorf("served: %q %v", b, err)
	}
	if _, err := ProxyListener(nil, []string{"*"}); err == nil {
		t.Error("any proxy is trusted")
	}
}
