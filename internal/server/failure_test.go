package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/telemetry/telemetrytest"
)

// freePorts are addresses where nobody listens.
func freePorts(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // after all are found, so that none comes twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// failsToStart has New fail with an error that begins with the first text and contains the others, and looks for what it leaves:
// goroutines, descriptors, a word that it serves.
func failsToStart(t *testing.T, args []string, begins string, contains ...string) {
	t.Helper()
	before, open := goleak.IgnoreCurrent(), descriptors()
	log, out := &journal{}, &journal{}
	s, err := New(t.Context(), flags(t, args...), out, log.logger(t))
	if s != nil || err == nil || !strings.HasPrefix(err.Error(), begins) {
		t.Fatalf("New = %v, want an error that begins with %s", err, begins)
	}
	for _, text := range contains {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("New = %v, want %q in it", err, text)
		}
	}
	if out.String() != "" || log.find("INFO", "serving") != nil {
		t.Errorf("it tells that it serves: %q", out.String()+log.String())
	}
	if err := goleak.Find(slices.Concat(lingers, []goleak.Option{before})...); err != nil {
		t.Errorf("goroutines are left: %v", err)
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors() <= open }) // those of tests before go meanwhile
}

// descriptors counts this process's, where the system tells.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

func TestAPortInUseNamesItsOptionAndLeavesNothingOpen(t *testing.T) {
	names := []string{"--edge-addr", "--grpc-addr", "--ops-addr"}
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			addrs := freePorts(t, len(names))
			taken, err := net.Listen("tcp", addrs[i])
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = taken.Close() }()
			var args []string
			for j, addr := range addrs {
				args = append(args, names[j]+"="+addr)
			}
			failsToStart(t, args, name+": ", addrs[i], "another address")
			for j, addr := range addrs {
				if j == i {
					continue
				}
				l, err := net.Listen("tcp", addr)
				if err != nil {
					t.Errorf("%s is left open: %v", names[j], err)
					continue
				}
				_ = l.Close()
			}
		})
	}
}

// Everything else is open by then: the exporters, the node, the other listeners.
func TestTheLastListenerThatFailsTakesAllElseWithIt(t *testing.T) {
	telemetrytest.Start(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	p := newPair(t)
	failsToStart(t, []string{
		"--edge-tls-cert=" + p.cert, "--edge-tls-key=" + p.key, "--grpc-tls-cert=" + p.cert, "--grpc-tls-key=" + p.key, "--ops-addr=" + taken.Addr().String(),
	}, "--ops-addr: ")
}

func TestABadOptionFailsBeforeAnythingIsOpened(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for name, c := range map[string]struct {
		change func(*config.Serve)
		want   string
	}{
		"what config finds":     {func(c *config.Serve) { c.MaxSessions = 0 }, "--max-sessions"},
		"what the edge finds":   {func(c *config.Serve) { c.Origin = []string{"https://*.com"} }, "origin"},
		"all that config finds": {func(c *config.Serve) { c.Dev, c.HistorySize = false, 0 }, "--history-size"},
	} {
		t.Run(name, func(t *testing.T) {
			c0 := flags(t)
			c.change(c0)
			if s, err := New(t.Context(), c0, io.Discard, (&journal{}).logger(t)); s != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want an error about %s", err, c.want)
			}
		})
	}
	if err := goleak.Find(slices.Concat(lingers, []goleak.Option{before})...); err != nil {
		t.Errorf("goroutines are left: %v", err)
	}
}

// failing is a listener that breaks when it is told to.
type failing struct {
	net.Listener
	broken chan struct{}
}

var errBroken = errors.New("the network is gone")

func (f *failing) Accept() (net.Conn, error) {
	<-f.broken
	return nil, errors.Join(errBroken, net.ErrClosed) // closed, but not by us
}

func (f *failing) Close() error {
	select {
	case <-f.broken:
	default:
		close(f.broken)
	}
	return f.Listener.Close()
}

func TestAPartThatFailsEndsTheServiceInOrderWithItsError(t *testing.T) {
	for name, at := range map[string]func(*Server) *net.Listener{
		"edge listener": func(s *Server) *net.Listener { return &s.edgeL },
		"gRPC listener": func(s *Server) *net.Listener { return &s.grpcL },
		"ops listener":  func(s *Server) *net.Listener { return &s.opsL },
	} {
		t.Run(name, func(t *testing.T) {
			var f *failing
			r := startWith(t, func(s *Server) {
				l := at(s)
				f = &failing{Listener: *l, broken: make(chan struct{})}
				*l = f
			})
			var s *guest
			if name != "edge listener" {
				s = r.join("general")
			}
			begin := time.Now()
			close(f.broken)
			if s != nil {
				s.want("reconnect")
				if code := s.closed(); code != 1012 {
					t.Errorf("the session is closed with %d, want 1012", code)
				}
			}
			if took, err := r.wait(begin); !errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), name+": ") || took > 10*time.Second {
				t.Errorf("Run = %v after %v, want the error of the %s", err, took, name)
			}
		})
	}
	t.Run("node", func(t *testing.T) {
		s, err := New(t.Context(), flags(t), io.Discard, (&journal{}).logger(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.node.Run(ctx) }()
		<-s.node.Ready()
		// a node runs only once
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "only once") {
			t.Errorf("Run = %v, want the node's error", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnEndBeforeTheBeginningIsNoError(t *testing.T) {
	for range 20 { // either may win
		log, out := &journal{}, &journal{}
		s, err := New(t.Context(), flags(t), out, log.logger(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatalf("Run = %v", err)
		}
		if got := log.find("ERROR", ""); got != nil {
			t.Fatalf("logged %q", got)
		}
	}
}
