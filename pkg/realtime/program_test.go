package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/pkg/realtime"
)

func TestMain(m *testing.M) {
	// What the Redis library leaves behind a look at the servers rests for up to a second and ends by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// patience is for what takes milliseconds.
const patience = 10 * time.Second

// failer is what tests and examples have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// example fails by panicking.
type example struct{}

func (example) Helper()                           {}
func (example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// program is one that embeds the package: with a logger, a listener, and the sessions that come to it.
type program struct {
	t      failer
	logger *slog.Logger
	hub    *realtime.Hub
	server *httptest.Server
	peers  []*peer
	ctx    context.Context
	stop   context.CancelFunc
	ended  chan error
	left   chan error // by the broadcaster; nil: there is none
}

// begin is the program of an example, which ends it.
func begin() *program { return &program{t: example{}, logger: slog.New(slog.DiscardHandler)} }

// start is the program of a test.
func start(t *testing.T) *program {
	p := &program{t: t, logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	t.Cleanup(p.end)
	return p
}

// run is `go hub.Run(ctx)`; end waits for it.
func (p *program) run(hub *realtime.Hub) {
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.hub, p.ended = hub, make(chan error, 1)
	go func() { p.ended <- hub.Run(p.ctx) }()
}

// connects is `go broadcaster.Run(ctx)`; end waits for it too.
func (p *program) connects(b realtime.Broadcaster) {
	p.left = make(chan error, 1)
	go func() { p.left <- b.Run(p.ctx) }()
}

// serve opens the program's listener.
func (p *program) serve(h http.Handler) { p.server = httptest.NewServer(h) }

// mount serves a handler as its Path says, /ws.
func (p *program) mount(cfg realtime.HandlerConfig) {
	p.serve(realtime.NewHandler(p.hub, p.logger, cfg))
}

// with is a running hub with one handler.
func (p *program) with(cfg realtime.HandlerConfig) *program {
	p.run(realtime.NewHub(p.logger))
	p.mount(cfg)
	return p
}

// end has all sessions leave, stops the hub and waits.
func (p *program) end() {
	for _, s := range p.peers {
		s.leave()
	}
	if p.hub != nil {
		p.until("all sessions are gone", func() bool { return p.hub.ConnectionCount() == 0 })
		p.stop()
		if err := p.wait(p.ended); err != nil {
			p.t.Fatalf("Run() = %v", err)
		}
		if err := p.wait(p.left); err != nil {
			p.t.Fatalf("Run() of the broadcaster = %v", err)
		}
	}
	if p.server != nil {
		p.server.Close()
	}
}

// wait returns what a Run returned; nil: it was not called.
func (p *program) wait(ended chan error) error {
	p.t.Helper()
	if ended == nil {
		return nil
	}
	select {
	case err := <-ended:
		ended <- err
		return err
	case <-time.After(patience):
		p.t.Fatalf("Run does not return")
		return nil
	}
}

func (p *program) until(what string, ok func() bool) {
	p.t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			p.t.Fatalf("not in %v: %s", patience, what)
		}
		<-tick.C
	}
}

// peer is a session, seen from its own side.
type peer struct {
	t    failer
	ws   *websocket.Conn
	ID   string // of its welcome, like User
	User string
}

// dial tries to connect; headers are "Name: value".
func (p *program) dial(target string, headers ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.server.URL, "http")+target, &websocket.DialOptions{HTTPHeader: h})
}

// connect is a session that has read its welcome. While the hub starts it tries again, as sessions do.
func (p *program) connect(target string, headers ...string) *peer {
	p.t.Helper()
	s := &peer{t: p.t}
	var err error
	p.until("connected to "+target, func() bool {
		var res *http.Response
		s.ws, res, err = p.dial(target, headers...)
		return err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable
	})
	if err != nil {
		p.t.Fatalf("connect to %s: %v", target, err)
	}
	s.ws.SetReadLimit(1 << 20)
	p.peers = append(p.peers, s)
	var w struct{ Session, User string }
	if err := json.Unmarshal(s.want("welcome").Data, &w); err != nil {
		p.t.Fatalf("welcome: %v", err)
	}
	s.ID, s.User = w.Session, w.User
	return s
}

// join is connect to a URL that names a room.
func (p *program) join(target string, headers ...string) *peer {
	p.t.Helper()
	s := p.connect(target, headers...)
	s.want("subscribed")
	return s
}

// status is what a handshake that is refused gets, with its body.
func (p *program) status(target string, headers ...string) (int, string) {
	p.t.Helper()
	ws, res, err := p.dial(target, headers...)
	if err == nil {
		_ = ws.CloseNow()
		return res.StatusCode, ""
	}
	if res == nil {
		p.t.Fatalf("connect to %s: %v", target, err)
	}
	body := make([]byte, 1024)
	n, _ := res.Body.Read(body) // the library keeps it in memory
	return res.StatusCode, string(body[:n])
}

func (s *peer) leave() { _ = s.ws.CloseNow() }

// say sends a frame.
func (s *peer) say(frame string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.ws.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
		s.t.Fatalf("write: %v", err)
	}
}

// received is a frame of the server's.
type received struct {
	realtime.Message
	Ref string
}

// what is the event of the server's own news, else the type.
func (r received) what() string {
	var d struct{ Event string }
	if r.Type == realtime.MessageTypeSystem && json.Unmarshal(r.Data, &d) == nil && d.Event != "" {
		return d.Event
	}
	return string(r.Type)
}

func (s *peer) read() (r received, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := s.ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

// want returns the next frame that is what; those before it are passed over.
func (s *peer) want(what string) received {
	s.t.Helper()
	for {
		r, err := s.read()
		if err != nil {
			s.t.Fatalf("waiting for %s: %v", what, err)
		}
		// Of presence only what programs broadcast counts: rooms have news of their own.
		if r.what() == what && (what != "presence" || r.Room == "@global") {
			return r
		}
	}
}

// next returns the next frame and insists on what it is.
func (s *peer) next(what string) received {
	s.t.Helper()
	r, err := s.read()
	if err != nil || r.what() != what {
		s.t.Fatalf("got %s %s, %v; want %s", r.what(), r.Data, err, what)
	}
	return r
}

// closed reads to the end and returns how it came.
func (s *peer) closed() (code int, reason string) {
	for {
		if _, err := s.read(); err != nil {
			if ce, ok := errors.AsType[websocket.CloseError](err); ok {
				return int(ce.Code), ce.Reason
			}
			return 1006, ""
		}
	}
}
