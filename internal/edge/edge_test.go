package edge

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// path is how the edge carries a session.
type path string

const (
	fast     path = "fast"
	portably path = "portable"
	overTLS  path = "tls"
)

// onPaths runs a test on each of the paths.
func onPaths(t *testing.T, f func(t *testing.T, p path)) {
	for _, p := range []path{fast, portably, overTLS} {
		t.Run(string(p), func(t *testing.T) { f(t, p) })
	}
}

// server is an edge with a hub and a bus behind a real listener.
type server struct {
	*Edge
	t    *testing.T
	hub  *hub.Hub
	bus  *bus
	addr string
	http *httptest.Server
}

// setup is what a test may want otherwise.
type setup struct {
	cfg Config
	hub hub.Config
	bus func(*bus)
}

// serve starts a server that ends with the test.
func serve(t *testing.T, p path, set setup) *server {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	minter := message.NewMinter(7)
	b := newBus(minter)
	if set.bus != nil {
		set.bus(b)
	}
	h := hub.New(set.hub, b, minter, logger)
	b.sink = h
	cfg := set.cfg
	cfg.portable = p != fast
	cfg.Anonymous = cfg.Anonymous || cfg.Verify == nil
	cfg.Node = "n1"
	if cfg.History == nil {
		cfg.History = b.History
	}
	e, err := New(cfg, h, b, minter, logger)
	if err != nil {
		t.Fatal(err)
	}
	run(t, h.Run)
	run(t, func(ctx context.Context) error { return e.Run(ctx, func() {}) })
	until(t, "the edge serves", func() bool { return e.state.Load() == serving })
	s := &server{Edge: e, t: t, hub: h, bus: b}
	s.http = httptest.NewUnstartedServer(e)
	s.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	if p == overTLS {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	t.Cleanup(s.http.Close)
	s.addr = s.http.Listener.Addr().String()
	return s
}

// run runs f until the test's end. What was started last ends first.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // the test's context ends before what it stops
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
		<-tick.C
	}
}

// dial opens a byte stream to the server.
func (s *server) dial() net.Conn {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err == nil && s.http.TLS != nil {
		nc, err = tlsClient(nc, s.http.Client())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// get asks over HTTP with these headers ("Name: value").
func (s *server) get(method, target string, headers ...string) *http.Response {
	s.t.Helper()
	c := s.raw()
	c.send(method + " " + target + " HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, target, err)
	}
	return res
}
