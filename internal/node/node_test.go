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

// quiet logs what is worth a warning.
func quiet(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func compose(t *testing.T) *Node { return New(Config{}, quiet(t)) }

// open adds a way into n behind a listener of its own.
func open(t *testing.T, n *Node, cfg edge.Config) (url string) {
	t.Helper()
	cfg.Anonymous = true
	e, err := n.NewEdge(cfg, quiet(t))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// start runs n, with one way in, until the test's end.
func start(t *testing.T, n *Node, cfg ...edge.Config) *running {
	t.Helper()
	r := &running{Node: n, t: t, url: open(t, n, append(cfg, edge.Config{})[0]), ended: make(chan error, 1)}
	r.run()
	return r
}

func (r *running) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.end = cancel
	go func() { r.ended <- r.Run(ctx) }()
	r.t.Cleanup(cancel)
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
}

func (r *running) dial(room string) *websocket.Conn {
	r.t.Helper()
	return dial(r.t, r.url+"/ws/"+room)
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	conn, res, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatalf("dial: %v, %v", err, res)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// refused dials and wants 503.
func refused(t *testing.T, url string) {
	t.Helper()
	_, res, err := websocket.Dial(t.Context(), url, nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("dial: %v, %v, want 503", err, res)
	}
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
	refused(t, open(t, compose(t), edge.Config{})+"/ws/a")
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
	if err := a.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":{"n":2},"ref":"2"}`)); err != nil {
		t.Fatal(err)
	}
	find(t, b, `{"n":2}`)
	find(t, a, `"ack"`) // after it was counted
	if got := r.Publisher().Received(publish.Session); got != 1 {
		t.Errorf("%d messages of sessions counted, want 1", got)
	}
	for begin := time.Now(); r.Stats().Sessions != 2; { // that of ready goes too
		if time.Since(begin) > patience {
			t.Fatalf("%d sessions, want 2", r.Stats().Sessions)
		}
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
	other := open(t, n, edge.Config{})
	a, b := r.dial("general"), dial(t, other+"/ws/other")
	done := make(chan struct{})
	go func() { defer close(done); n.Drain(t.Context()) }()
	for _, conn := range []*websocket.Conn{a, b} {
		if code := closed(t, conn); code != websocket.StatusServiceRestart {
			t.Errorf("closed with %d, want 1012", code)
		}
	}
	<-done
	refused(t, r.url+"/ws/a")
	refused(t, other+"/ws/a")
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
	broken := &breaking{n.bus.Broker, make(chan error)}
	n.Use(broken, n.store.Store)
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
	n.Use(never{n.bus.Broker}, n.store.Store)
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
