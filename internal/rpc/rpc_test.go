package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/publish"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(loadEnv); spec != "" {
		if err := load(context.Background(), spec); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// bus takes what is published and answers as it is told. Without an answer it gives an id.
type bus struct {
	broker.Broker // only Publish may be called
	answer        func(context.Context, broker.Publication) (broker.Receipt, error)

	mu  sync.Mutex
	got []broker.Publication
}

func (b *bus) Publish(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
	b.mu.Lock()
	b.got = append(b.got, p)
	b.mu.Unlock()
	if b.answer != nil {
		return b.answer(ctx, p)
	}
	return broker.Receipt{ID: message.ID{Position: 1, Low: p.Message.ID.Low}, Timestamp: p.Message.Timestamp}, nil
}

func (b *bus) published() []broker.Publication {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]broker.Publication(nil), b.got...)
}

// refusing is a bus with one answer to all.
func refusing(err error) *bus {
	return &bus{answer: func(context.Context, broker.Publication) (broker.Receipt, error) { return broker.Receipt{}, err }}
}

// gate is a publish.Gate with one answer.
type gate struct{ err error }

func (g gate) Ready(context.Context, message.Room) error { return g.err }

// over is a publisher over b.
func over(t testing.TB, b broker.Broker, g publish.Gate) *publish.Publisher {
	return publish.New(publish.Config{}, g, b, message.NewMinter(5), slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// records returns what was logged.
func (l *lines) records(t *testing.T) (all []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

// served is a Server on loopback with a caller.
type served struct {
	*Server
	conn *grpc.ClientConn
	pub  realtimev1.PublisherServiceClient
	addr string
	log  *lines
	accs *counting
}

// counting counts the connections of a listener.
type counting struct {
	net.Listener
	mu sync.Mutex
	n  int
}

func (c *counting) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.n++
		c.mu.Unlock()
	}
	return nc, err
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// serve starts a server that ends with the test.
func serve(t testing.TB, cfg Config, p *publish.Publisher) *served {
	t.Helper()
	return serveParts(t, cfg, Parts{Publisher: p}, nil)
}

// serveNode serves a whole node.
func serveNode(t testing.TB, cfg Config, n *node.Node) *served {
	t.Helper()
	return serveParts(t, cfg, Parts{Publisher: n.Publisher(), Broker: n.Broker(), Hub: n.Hub(), Presence: n.Presence(), Control: n.Control()}, nil)
}

// serveParts lets a test change who callers are.
func serveParts(t testing.TB, cfg Config, p Parts, change func(*doorman)) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{addr: l.Addr().String(), log: &lines{}, accs: &counting{Listener: l}}
	s.Server = New(context.WithoutCancel(t.Context()), cfg, p, slog.New(slog.NewJSONHandler(s.log, nil)))
	if change != nil {
		change(s.door)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(s.accs) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	s.conn, s.pub = dial(t, s.addr)
	return s
}

// dial is a caller that leaves before its server ends.
func dial(t testing.TB, addr string) (*grpc.ClientConn, realtimev1.PublisherServiceClient) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, realtimev1.NewPublisherServiceClient(conn)
}

// core is a node that runs until the test's end.
func core(t testing.TB) *node.Node {
	t.Helper()
	n := node.New(node.Config{}, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	<-n.Ready()
	return n
}

// hello is the smallest request there is.
func hello() *realtimev1.PublishRequest {
	return &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: `{"text":"Hello"}`}}
}

// within10s bounds a test's wait for what comes by itself.
func within10s(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var errSecret = errors.New("dial redis://user:hunter2@10.0.0.7: no route")
