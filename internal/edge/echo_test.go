package edge

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/wire"
)

// What `make echo` takes.
var (
	echoAt        = flag.String("echo", "", "serve the echo at this HOST:PORT until interrupted")
	echoBytes     = flag.Int("echo.bytes", 16<<20, "of a message, at most")
	echoFragments = flag.Int("echo.fragments", 1<<20, "of a message, at most")
	echoOver      = flag.String("echo.path", string(fast), "how connections are read: fast, portable or tls")
)

// echo is an edge whose sessions get back what they send, and nothing else: what checks RFC 6455 can be pointed at it. What it
// accepts, reads, parses and writes, it does as the real one; only the limits are others.
func echo(t *testing.T, p path, messageBytes, fragments int) *server {
	t.Helper()
	return serve(t, p, setup{
		cfg: Config{
			MaxFrameBytes: messageBytes, AssemblyTimeout: time.Minute, PingInterval: time.Hour,
			Limits: Limits{Fragments: fragments, SessionControls: 1 << 20},
			instead: func(s *session, m delivered) {
				op := wire.OpText
				if m.binary {
					op = wire.OpBinary
				}
				s.h.Send("", append(wire.AppendHeader(nil, op, len(m.data)), m.data...))
			},
		},
		hub: hub.Config{OwnFrameBytes: 4 * (messageBytes + 1<<10)},
	})
}

func TestEcho(t *testing.T) {
	if *echoAt == "" {
		t.Skip("it serves until it is interrupted: make echo")
	}
	s := echo(t, path(*echoOver), *echoBytes, *echoFragments)
	l, err := net.Listen("tcp", *echoAt)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.Edge, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	fmt.Fprintf(os.Stdout, "ws://%s/ws\n", l.Addr())
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	select {
	case <-interrupted:
	case err := <-ended:
		t.Error(err)
	}
	_ = srv.Close()
}

// The echo is made of tests alone: no file that a program is built from can have it.
func TestNothingOfTheEchoIsInTheProgram(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{range .GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}`, "../../cmd/realtime").Output()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		if !strings.Contains(name, "/internal/edge/") {
			continue
		}
		ours++
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "echo") || strings.Contains(string(b), "instead =") || strings.Contains(string(b), "instead:") {
			t.Errorf("%s: the program has an echo", name)
		}
	}
	if ours < 20 {
		t.Errorf("%d files of the edge, there are more", ours)
	}
}
