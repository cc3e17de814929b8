package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/telemetry"
)

func TestMain(m *testing.M) {
	_ = os.Unsetenv("REDIS_URL") // the developer's own, which would be an option of every server here
	goleak.VerifyTestMain(m, lingers...)
}

// lingers is what Redis' library leaves for some seconds, whoever has ended meanwhile: it closes connections to nodes that
// have left a cluster after five, and looks at a cluster again after one.
var lingers = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
	goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
}

// patience is for what takes milliseconds.
const patience = 10 * time.Second

// journal is what a server logs or prints.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *journal) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// logger is the program's own, into l and the test's output.
func (l *journal) logger(t testing.TB) *slog.Logger { return l.at(t, slog.LevelInfo) }

func (l *journal) at(t testing.TB, level slog.Level) *slog.Logger {
	return telemetry.NewLogger(io.MultiWriter(l, t.Output()), level)
}

// find returns the lines of a level that contain a text.
func (l *journal) find(level, text string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, `"level":"`+level+`"`) && strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// flags are the options of the command line, with ports that are free.
func flags(t testing.TB, args ...string) *config.Serve {
	t.Helper()
	var c config.Serve
	k, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	free := []string{"--dev", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0"}
	if _, err := k.Parse(append(free, args...)); err != nil {
		t.Fatal(err)
	}
	return &c
}

// Running is a server that serves.
type Running struct {
	*Server
	t               testing.TB
	ws, rpcAt, http string
	hc              *http.Client                     // of sessions; nil: plaintext
	creds           credentials.TransportCredentials // of backends; nil: plaintext
	printed, log    *journal
	stop            context.CancelFunc // begins the end, as a signal does
	ended           chan struct{}      // closed when Run has returned
	err             error              // what Run returned; read it after ended
}

// StartServer boots the real thing on loopback with these options; it ends with the test at the latest.
func StartServer(t testing.TB, args ...string) *Running {
	t.Helper()
	return startWith(t, func(*Server) {}, args...)
}

// startWith lets a test change what New has built.
func startWith(t testing.TB, change func(*Server), args ...string) *Running {
	t.Helper()
	r := &Running{t: t, printed: &journal{}, log: &journal{}, ended: make(chan struct{})}
	cfg := flags(t, args...)
	s, err := New(t.Context(), cfg, r.printed, r.log.at(t, cfg.LogLevel))
	if err != nil {
		t.Fatal(err)
	}
	change(s)
	r.Server = s
	edge, rpc, ops := s.Addrs()
	r.ws, r.rpcAt, r.http = "ws://"+edge, rpc, "http://"+ops
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r.stop = stop
	go func() { defer close(r.ended); r.err = s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-r.ended })
	eventually(t, "it serves", func() bool { return s.state.Load() != starting })
	return r
}

// end stops the server and returns how long that took and what Run returned.
func (r *Running) end() (time.Duration, error) {
	r.t.Helper()
	begin := time.Now()
	r.stop()
	return r.wait(begin)
}

func (r *Running) wait(begin time.Time) (time.Duration, error) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		r.t.Fatal("Run does not return")
	}
	return time.Since(begin), r.err
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
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

// told is a frame that a session reads.
type told struct {
	ID, Type, Room, From string
	Data                 json.RawMessage
}

func (f told) event() string {
	var d struct{ Event string }
	_ = json.Unmarshal(f.Data, &d)
	return d.Event
}

// guest is a session of the library's.
type guest struct {
	t      testing.TB
	ws     *websocket.Conn
	joined map[string]any // data of `subscribed`
}

// join opens a session in a room and waits until it is a member.
func (r *Running) join(room string) *guest {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	var ws *websocket.Conn
	eventually(r.t, "the edge lets sessions in", func() bool {
		var resp *http.Response
		var err error
		ws, resp, err = websocket.Dial(ctx, r.ws+"/ws/"+room, &websocket.DialOptions{HTTPClient: r.hc})
		if err != nil && (resp == nil || resp.StatusCode != http.StatusServiceUnavailable) {
			r.t.Fatalf("join %s: %v, %v", room, err, resp)
		}
		return err == nil
	})
	ws.SetReadLimit(1 << 20)
	s := &guest{t: r.t, ws: ws}
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	if err := json.Unmarshal(s.want("subscribed").Data, &s.joined); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// next returns the next frame, or the close code.
func (s *guest) next() (told, websocket.StatusCode) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := s.ws.Read(ctx)
	if err != nil {
		if code := websocket.CloseStatus(err); code != -1 {
			return told{}, code
		}
		s.t.Fatalf("read: %v", err)
	}
	var f told
	if err := json.Unmarshal(b, &f); err != nil {
		s.t.Fatalf("frame %q: %v", b, err)
	}
	return f, 0
}

// want reads on to a frame of this type or event.
func (s *guest) want(what string) told {
	s.t.Helper()
	for {
		f, code := s.next()
		if code != 0 {
			s.t.Fatalf("closed with %d, want %s", code, what)
		}
		if f.Type == what || f.event() == what {
			return f
		}
	}
}

// closed reads on to the close code.
func (s *guest) closed() websocket.StatusCode {
	s.t.Helper()
	for {
		if _, code := s.next(); code != 0 {
			return code
		}
	}
}

// publisher is a backend.
func (r *Running) publisher() realtimev1.PublisherServiceClient {
	r.t.Helper()
	return realtimev1.NewPublisherServiceClient(r.dial())
}

func (r *Running) dial() *grpc.ClientConn {
	r.t.Helper()
	creds := r.creds
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(r.rpcAt, grpc.WithTransportCredentials(creds))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// get asks over HTTP on a connection of its own.
func fetch(t testing.TB, url string, headers ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// handshake tries to open a session and returns the refusal.
func (r *Running) handshake() (int, http.Header, string) {
	r.t.Helper()
	return fetch(r.t, strings.Replace(r.ws, "ws:", "http:", 1)+"/ws/general", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}
