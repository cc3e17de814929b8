package server

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// judge is a backend that is asked. A nil function of its answers nothing.
type judge struct {
	realtimev1.UnimplementedHooksServiceServer
	saw func(rpc string) // nil: nobody counts

	mu      sync.Mutex
	connect func(*realtimev1.OnConnectRequest) *realtimev1.OnConnectResponse
	message func(*realtimev1.OnMessageRequest) *realtimev1.OnMessageResponse
	keys    []string
	ended   []*realtimev1.Disconnection
}

var errSilent = errors.New("as the test wants")

const (
	allow = realtimev1.HookVerdict_HOOK_VERDICT_ALLOW
	deny  = realtimev1.HookVerdict_HOOK_VERDICT_DENY
	pass  = realtimev1.MessageVerdict_MESSAGE_VERDICT_PASS
)

func (j *judge) asked(ctx context.Context, rpc string) {
	if j.saw != nil {
		j.saw(rpc)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keys = append(j.keys, strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ""))
}

func (j *judge) OnConnect(ctx context.Context, r *realtimev1.OnConnectRequest) (*realtimev1.OnConnectResponse, error) {
	j.asked(ctx, "OnConnect")
	if j.connect == nil {
		return nil, errSilent
	}
	return j.connect(r), nil
}

func (j *judge) OnSubscribe(ctx context.Context, r *realtimev1.OnSubscribeRequest) (*realtimev1.OnSubscribeResponse, error) {
	j.asked(ctx, "OnSubscribe")
	if r.GetRoom() == "denied" {
		return &realtimev1.OnSubscribeResponse{Verdict: deny, Reason: "not yours"}, nil
	}
	return &realtimev1.OnSubscribeResponse{Verdict: allow}, nil
}

func (j *judge) OnMessage(ctx context.Context, r *realtimev1.OnMessageRequest) (*realtimev1.OnMessageResponse, error) {
	j.asked(ctx, "OnMessage")
	if j.message == nil {
		return nil, errSilent
	}
	return j.message(r), nil
}

func (j *judge) OnDisconnect(ctx context.Context, r *realtimev1.OnDisconnectRequest) (*realtimev1.OnDisconnectResponse, error) {
	j.asked(ctx, "OnDisconnect")
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = append(j.ended, r.GetDisconnections()...)
	return &realtimev1.OnDisconnectResponse{}, nil
}

func (j *judge) gone() []*realtimev1.Disconnection {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended
}

// serve has the judge asked somewhere, and returns the options that say where, and that a busy machine has its time.
func (j *judge) serve(t testing.TB, opts ...grpc.ServerOption) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	realtimev1.RegisterHooksServiceServer(s, j)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return []string{"--hooks-addr=" + l.Addr().String(), "--hooks-timeout=connect=5s;subscribe=5s;message=5s;disconnect=5s"}
}

func lets(*realtimev1.OnConnectRequest) *realtimev1.OnConnectResponse {
	return &realtimev1.OnConnectResponse{Verdict: allow}
}

func passes(*realtimev1.OnMessageRequest) *realtimev1.OnMessageResponse {
	return &realtimev1.OnMessageResponse{Verdict: pass}
}

// hooked are the ways of what hooks make of sessions.
func (c *contract) hooked() map[string]func(*testing.T) {
	with := func(t *testing.T, j *judge, options ...string) *Running {
		j.saw = func(rpc string) { c.saw("rpc HooksService." + rpc) }
		return StartServer(t, append(options, j.serve(t)...)...)
	}
	away := func(t *testing.T) { // it answers neither for connecting nor for messages
		c.handshake(t, with(t, &judge{}), "/ws")
		p := c.open(t, with(t, &judge{}, "--hooks-fail=connect=open"), "/ws/general")
		p.say(`{"type":"chat"}`)
		p.want("error")
	}
	asks := func(t *testing.T) {
		p := c.open(t, with(t, &judge{connect: lets, message: passes}), "/ws/general")
		p.say(`{"type":"subscribe","room":"denied"}`)
		p.want("error").say(`{"type":"chat"}`)
		p.want("chat").send(wire(0x88, "\x03\xe8"))
	}
	return map[string]func(*testing.T){
		"rpc HooksService.OnConnect":    asks,
		"rpc HooksService.OnSubscribe":  asks,
		"rpc HooksService.OnMessage":    asks,
		"rpc HooksService.OnDisconnect": asks,
		"error hook_denied":             asks,
		"error hook_unavailable":        away,
		"close 1013":                    func(t *testing.T) { c.open(t, with(t, &judge{}), "/ws?refuse=close") },
	}
}

func TestABackendDecidesWhoComesInWithoutAnyKey(t *testing.T) {
	t.Setenv("HOOKS_KEY", "0123456789abcdef")
	j := &judge{message: passes, connect: func(r *realtimev1.OnConnectRequest) *realtimev1.OnConnectResponse {
		switch user, named := strings.CutPrefix(r.GetHeaders()["cookie"], "user="); {
		case !named:
			return &realtimev1.OnConnectResponse{Verdict: deny, Reason: "log in first"}
		default:
			return &realtimev1.OnConnectResponse{Verdict: allow, UserId: user}
		}
	}}
	r := StartServer(t, append(j.serve(t), "--dev=false", "--drain-delay=0s", "--drain-window=0s", "--hooks-key=env:HOOKS_KEY", "--hooks-header=cookie")...)
	dial := func(h http.Header) (*websocket.Conn, *http.Response) {
		ws, resp, err := websocket.Dial(t.Context(), r.ws+"/ws/general", &websocket.DialOptions{HTTPHeader: h})
		if err == nil {
			t.Cleanup(func() { _ = ws.CloseNow() })
		}
		return ws, resp
	}
	if _, resp := dial(http.Header{"Cookie": {"user=ada"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a cookie without an Origin: %s, want 403", resp.Status)
	}
	ws, resp := dial(http.Header{"Cookie": {"user=ada"}, "Origin": {strings.Replace(r.ws, "ws:", "http:", 1)}})
	if ws == nil {
		t.Fatal(resp.Status)
	}
	g := &guest{t: t, ws: ws}
	g.want("subscribed")
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat"}`)); err != nil {
		t.Fatal(err)
	}
	if f := g.want("chat"); f.From != "ada" {
		t.Errorf("from %q, want whom the backend named", f.From)
	}
	if _, err := r.end(); err != nil { // the session ends with the server, and the backend hears of it
		t.Error(err)
	}
	if ended := j.gone(); len(ended) != 1 || ended[0].GetCode() != 1012 || ended[0].GetSession().GetUserId() != "ada" || !ended[0].GetLastOfUser() || len(ended[0].GetRooms()) != 1 {
		t.Errorf("told of %v, want ada's session, closed with 1012", ended)
	}
	for _, key := range j.keys {
		if key != "Bearer 0123456789abcdef" {
			t.Errorf("asked with %q", key)
		}
	}
}

func TestHooksOverTLSNeedTheCertificateOfTheirAuthority(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil) // for its certificate
	ts.StartTLS()
	ts.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	j := &judge{connect: lets, message: passes}
	there := j.serve(t, grpc.Creds(credentials.NewServerTLSFromCert(&ts.TLS.Certificates[0])))
	for _, file := range []string{filepath.Join(t.TempDir(), "none.pem"), os.DevNull} {
		failsToStart(t, append(there, "--hooks-tls-ca="+file), "--hooks-tls-ca: ")
	}
	StartServer(t, append(there, "--hooks-tls-ca="+ca)...).join("general")
	if code, _, body := StartServer(t, there...).handshake(); code != http.StatusServiceUnavailable || !strings.Contains(body, "hook_unavailable") {
		t.Errorf("in plaintext: %d %s, want 503", code, body)
	}
}

// A backend that nobody can reach costs sessions what its rules say, and does not keep the server from its end.
func TestABackendThatIsAwayIsTold(t *testing.T) {
	addr := "--hooks-addr=" + freePorts(t, 1)[0]
	r := StartServer(t, addr, "--hooks-fail=connect=open;subscribe=open;message=open", "--drain-timeout=5s", "--drain-window=0s")
	s := r.join("general")
	if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat"}`)); err != nil {
		t.Fatal(err)
	}
	s.want("chat")
	if _, got := r.scrape(); got["realtime_hook_passes_total connect"] != 1 || got["realtime_hook_passes_total message"] != 1 {
		t.Errorf("%v connects and %v messages are counted as passed", got["realtime_hook_passes_total connect"], got["realtime_hook_passes_total message"])
	}
	if len(r.log.find("WARN", `"hook":"message"`)) != 1 {
		t.Errorf("the failing hook is not told: %s", r.log)
	}
	if _, err := r.end(); err != nil {
		t.Error(err)
	}
	if n := r.hooks.Stats().Dropped; n != 1 || len(r.log.find("WARN", "not told of")) != 1 {
		t.Errorf("%d ended sessions are counted as not told, want 1; log: %s", n, r.log)
	}
}
