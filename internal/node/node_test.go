package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what takes milliseconds.
const patience = 10 * time.Second

// running is a node behind a listener.
type running struct {
	*Node
	t     *testing.T
	url   string
	end   context.CancelFunc
	ended chan error
}

func compose(t *testing.T) *Node {
	t.Helper()
	n, err := New(Config{Edge: edge.Config{Anonymous: true}}, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// quiet logs what is worth a warning.
func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// start runs n until the test's end.
func start(t *testing.T, n *Node) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Node: n, t: t, end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- n.Run(ctx) }()
	t.Cleanup(cancel)
	s := httptest.NewServer(n.Handler())
	t.Cleanup(s.Close)
	r.url = "ws" + strings.TrimPrefix(s.URL, "http")
	return r
}

// wait returns what Run returned.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatal("Run does not return")
		return nil
	}
}

func (r *running) ready() {
	r.t.Helper()
	select {
	case <-r.Ready():
	case <-time.After(patience):
		r.t.Fatal("not ready")
	}
	// The edge lets sessions in a moment later.
	for begin := time.Now(); ; {
		conn, _, err := websocket.Dial(r.t.Context(), r.url+"/ws", nil)
		if err == nil {
			_ = conn.CloseNow()
			return
		}
		if time.Since(begin) > patience {
			r.t.Fatal(err)
		}
	}
}

func (r *running) dial(room string) *websocket.Conn {
	r.t.Helper()
	conn, res, err := websocket.Dial(r.t.Context(), r.url+"/ws/"+room, nil)
	if err != nil {
		r.t.Fatalf("dial: %v, %v", err, res)
	}
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// find reads frames until one contains text.
func find(t *testing.T, conn *websocket.Conn, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(string(b), text) {
			return string(b)
		}
	}
}

// closed reads until the end and returns the close code.
func closed(t *testing.T, conn *websocket.Conn) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func (r *running) publish(room, data string) (broker.Receipt, error) {
	return r.Publisher().Do(r.t.Context(), publish.Request{
		Message: &message.Message{Room: message.Room(room), Type: message.TypeChat, Data: []byte(data)}, Origin: publish.Backend, Caller: "test",
	})
}

func TestNobodyIsLetInBeforeRun(t *testing.T) {
	s := httptest.NewServer(compose(t).Handler())
	defer s.Close()
	_, res, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(s.URL, "http")+"/ws/a", nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("dial: %v, %v, want 503", err, res)
	}
}

func TestABackendsMessageReachesItsMembersAndTheyReachEachOther(t *testing.T) {
	r := start(t, compose(t))
	r.ready()
	a, b := r.dial("general"), r.dial("general")
	find(t, a, `"subscribed"`)
	find(t, b, `"subscribed"`)
	receipt, err := r.publish("general", `{"n":1}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range []*websocket.Conn{a, b} {
		if got := find(t, conn, `{"n":1}`); !strings.Contains(got, receipt.ID.String()) {
			t.Errorf("got %s, want the receipt's id %v", got, receipt.ID)
		}
	}
	if err := a.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":{"n":2}}`)); err != nil {
		t.Fatal(err)
	}
	find(t, b, `{"n":2}`)
	if got := r.Publisher().Received(publish.Session); got != 1 {
		t.Errorf("%d messages of sessions counted, want 1", got)
	}
	if st := r.Stats(); st.Sessions != 2 {
		t.Errorf("%d sessions, want 2", st.Sessions)
	}
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestADrainEndsSessionsWith1012AndLetsNobodyIn(t *testing.T) {
	n := compose(t)
	n.cfg.DrainWindow = 50 * time.Millisecond
	r := start(t, n)
	r.ready()
	a, b := r.dial("general"), r.dial("other")
	done := make(chan struct{})
	go func() { defer close(done); n.Drain(t.Context()) }()
	for _, conn := range []*websocket.Conn{a, b} {
		if code := closed(t, conn); code != websocket.StatusServiceRestart {
			t.Errorf("closed with %d, want 1012", code)
		}
	}
	<-done
	if _, res, err := websocket.Dial(t.Context(), r.url+"/ws/a", nil); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("dial while draining: %v, want 503", err)
	}
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestTheEndWithoutADrainCutsSessionsAndPublishersGetClosed(t *testing.T) {
	r := start(t, compose(t))
	r.ready()
	conn := r.dial("general")
	find(t, conn, `"subscribed"`)
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	closed(t, conn)
	if _, err := r.publish("general", `1`); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("publish after the end: %v, want broker.ErrClosed", err)
	}
}

// breaking is a broker whose Run fails when told.
type breaking struct {
	broker.Broker
	fail chan error
}

func (b *breaking) Run(ctx context.Context, s broker.Sink, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.Broker.Run(ctx, s, ready) }()
	err := <-b.fail
	cancel()
	return errors.Join(err, <-ended)
}

func TestABrokerThatFailsEndsTheNodeWithItsError(t *testing.T) {
	n := compose(t)
	broken := &breaking{n.broker, make(chan error)}
	n.broker = broken
	r := start(t, n)
	r.ready()
	conn := r.dial("general")
	find(t, conn, `"subscribed"`)
	cause := errors.New("the bus burst")
	broken.fail <- cause
	if err := r.wait(); !errors.Is(err, cause) {
		t.Errorf("Run() = %v, want %v", err, cause)
	}
	closed(t, conn)
}

// never is a broker that does not become ready.
type never struct{ broker.Broker }

func (never) Run(ctx context.Context, _ broker.Sink, _ func()) error { <-ctx.Done(); return nil }

func TestANodeThatIsNotReadyYetEndsToo(t *testing.T) {
	n := compose(t)
	n.broker = never{n.broker}
	r := start(t, n)
	select {
	case <-r.Ready():
		t.Error("ready without its broker")
	default:
	}
	r.end()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestNodesHaveNamesOfTheirOwn(t *testing.T) {
	if a, b := compose(t), compose(t); a.Name() == b.Name() && a.Name() == compose(t).Name() {
		t.Errorf("three nodes named %q", a.Name())
	}
}
