package remote_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/hooks/remote"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers as a test wants, and keeps what it was asked.
type backend struct {
	realtimev1.UnimplementedHooksServiceServer
	answer proto.Message
	err    error
	asked  chan proto.Message
	keys   chan string
}

func (b *backend) take(ctx context.Context, req proto.Message) error {
	b.asked <- req
	b.keys <- strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), "|")
	return b.err
}

func (b *backend) OnConnect(ctx context.Context, r *realtimev1.OnConnectRequest) (*realtimev1.OnConnectResponse, error) {
	err := b.take(ctx, r)
	a, _ := b.answer.(*realtimev1.OnConnectResponse)
	return a, err
}

func (b *backend) OnSubscribe(ctx context.Context, r *realtimev1.OnSubscribeRequest) (*realtimev1.OnSubscribeResponse, error) {
	err := b.take(ctx, r)
	a, _ := b.answer.(*realtimev1.OnSubscribeResponse)
	return a, err
}

func (b *backend) OnMessage(ctx context.Context, r *realtimev1.OnMessageRequest) (*realtimev1.OnMessageResponse, error) {
	err := b.take(ctx, r)
	a, _ := b.answer.(*realtimev1.OnMessageResponse)
	return a, err
}

func (b *backend) OnDisconnect(ctx context.Context, r *realtimev1.OnDisconnectRequest) (*realtimev1.OnDisconnectResponse, error) {
	return &realtimev1.OnDisconnectResponse{}, b.take(ctx, r)
}

// serve starts a backend, and a client of it.
func serve(t *testing.T, cfg remote.Config, opts ...grpc.ServerOption) (*backend, *remote.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{asked: make(chan proto.Message, 100), keys: make(chan string, 100)}
	s := grpc.NewServer(opts...)
	realtimev1.RegisterHooksServiceServer(s, b)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	cfg.Addr = l.Addr().String()
	return b, dial(t, cfg)
}

func dial(t *testing.T, cfg remote.Config) *remote.Client {
	t.Helper()
	c, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var who = hooks.Session{ID: "s1", User: "ada", Node: "n1", Address: "192.0.2.1", Data: []byte(`{"tier":1}`)}

var whoSent = &realtimev1.HookSession{SessionId: "s1", UserId: "ada", NodeId: "n1", Address: "192.0.2.1", SessionData: `{"tier":1}`}

func asked(t *testing.T, b *backend, want proto.Message, ignore ...cmp.Option) {
	t.Helper()
	if d := cmp.Diff(want, <-b.asked, append(ignore, protocmp.Transform())...); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	if key := <-b.keys; key != "Bearer the key" {
		t.Errorf("asked with %q, want the key", key)
	}
}

func TestABackendIsAskedAndItsAnswersAreRead(t *testing.T) {
	b, c := serve(t, remote.Config{Key: "the key"})
	ends := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	b.answer = &realtimev1.OnConnectResponse{
		Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW, UserId: "eve", Rooms: []string{"x"}, Grants: []*realtimev1.Grant{{Pattern: "x*", Operations: "rw"}},
		SessionData: `1`, Info: `2`, ExpiresAt: timestamppb.New(ends),
	}
	a, err := c.Connect(t.Context(), &hooks.Attempt{Session: who, Claims: []byte(`{"sub":"ada"}`), Rooms: []message.Room{"a", "b"}, Headers: map[string]string{"cookie": "c=1"}})
	if d := cmp.Diff(&hooks.Admission{User: "eve", Rooms: []message.Room{"x"}, Grants: map[string]string{"x*": "rw"}, Data: []byte(`1`), Info: []byte(`2`), Expires: ends}, a); d != "" || err != nil {
		t.Errorf("Connect: %v (-want +got):\n%s", err, d)
	}
	asked(t, b, &realtimev1.OnConnectRequest{Session: whoSent, Claims: `{"sub":"ada"}`, Rooms: []string{"a", "b"}, Headers: map[string]string{"cookie": "c=1"}})

	b.answer = &realtimev1.OnSubscribeResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_DENY, Reason: "not yours"}
	if no, ok := errors.AsType[*hooks.Denied](c.Subscribe(t.Context(), &who, "a")); !ok || no.Reason != "not yours" {
		t.Errorf("Subscribe: %+v", no)
	}
	asked(t, b, &realtimev1.OnSubscribeRequest{Session: whoSent, Room: "a"})

	m := &message.Message{Type: "chat", Room: "a", From: "ada", Data: []byte(`{"text": 1}`), Ephemeral: true}
	b.answer = &realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE, Data: `2`}
	if out, err := c.Message(t.Context(), &who, m); err != nil || out.Type != "chat" || out.From != "ada" || string(out.Data) != "2" || string(m.Data) != `{"text": 1}` {
		t.Errorf("Message: %+v, %v", out, err)
	}
	asked(t, b, &realtimev1.OnMessageRequest{Session: whoSent, Message: &realtimev1.Message{Type: "chat", Room: "a", From: "ada", Data: `{"text": 1}`, Ephemeral: true}},
		protocmp.IgnoreFields(&realtimev1.Message{}, "timestamp"))

	last := message.ID{Position: message.At(ends.UnixMilli(), 1)}
	if err := c.Disconnect(t.Context(), []hooks.Disconnection{{Session: who, Rooms: []hooks.Place{{Room: "a", Last: last}}, Code: 4003, Reason: "bye", Time: ends, LastOfUser: true}}); err != nil {
		t.Error(err)
	}
	asked(t, b, &realtimev1.OnDisconnectRequest{Disconnections: []*realtimev1.Disconnection{{
		Session: whoSent, Rooms: []*realtimev1.RoomStart{{Room: "a", AfterId: last.String()}}, Code: 4003, Reason: "bye", Time: timestamppb.New(ends), LastOfUser: true,
	}}})
}

func TestVerdictsOfAMessage(t *testing.T) {
	b, c := serve(t, remote.Config{})
	m := &message.Message{Type: "chat", Room: "a", From: "ada", Data: []byte(`1`)}
	for name, x := range map[string]struct {
		answer *realtimev1.OnMessageResponse
		want   string
	}{
		"pass":                        {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_PASS, Data: `2`, Error: "x"}, "as it is"},
		"replace nothing":             {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE}, "chat ada 1"},
		"replace all":                 {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE, Type: "vote", From: "eve", Data: `2`}, "vote eve 2"},
		"suppress":                    {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_SUPPRESS, Data: `2`}, "nothing"},
		"suppress with an error":      {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_SUPPRESS, Error: "no"}, "denied no"},
		"no verdict":                  {&realtimev1.OnMessageResponse{Data: `2`}, "failure"},
		"a verdict of tomorrow's":     {&realtimev1.OnMessageResponse{Verdict: 9}, "failure"},
		"a negative verdict":          {&realtimev1.OnMessageResponse{Verdict: -1}, "failure"},
		"an answer that is too large": {&realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_PASS, Data: strings.Repeat("x", 1<<20)}, "failure"},
	} {
		b.answer = x.answer
		out, err := c.Message(t.Context(), &who, m)
		got := "nothing"
		no, denied := errors.AsType[*hooks.Denied](err)
		switch {
		case denied:
			got = "denied " + no.Reason
		case err != nil:
			got = "failure"
		case out == m:
			got = "as it is"
		case out != nil:
			got = fmt.Sprintf("%s %s %s", out.Type, out.From, out.Data)
		}
		if got != x.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, x.want)
		}
	}
}

func TestAnAnswerWithoutAVerdictThatIsKnownIsNone(t *testing.T) {
	b, c := serve(t, remote.Config{})
	twice := []*realtimev1.Grant{{Pattern: "a", Operations: "r"}, {Pattern: "a"}}
	for _, answer := range []*realtimev1.OnConnectResponse{
		{},
		{UserId: "eve"},
		{Verdict: 3},
		{Verdict: -1},
		{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW, Grants: twice},
		{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW, ExpiresAt: &timestamppb.Timestamp{Nanos: -1}},
	} {
		b.answer = answer
		_, err := c.Connect(t.Context(), &hooks.Attempt{})
		if _, denied := errors.AsType[*hooks.Denied](err); err == nil || denied {
			t.Errorf("%v: %v, want a failure", answer, err)
		}
	}
	for _, answer := range []*realtimev1.OnSubscribeResponse{{}, {Reason: "no"}, {Verdict: 3}} {
		b.answer = answer
		err := c.Subscribe(t.Context(), &who, "a")
		if _, denied := errors.AsType[*hooks.Denied](err); err == nil || denied {
			t.Errorf("%v: %v, want a failure", answer, err)
		}
	}
}

// Whatever the backend says in an error, it may be what it was asked about.
func TestErrorsQuoteNothingOfTheBackend(t *testing.T) {
	b, c := serve(t, remote.Config{})
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Internal, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated, codes.DeadlineExceeded} {
		b.err = status.Error(code, "a secret")
		err := c.Subscribe(t.Context(), &who, "a")
		if _, denied := errors.AsType[*hooks.Denied](err); err == nil || denied || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", code, err)
		}
		if errors.Is(err, hooks.ErrNoAnswer) != (code == codes.DeadlineExceeded) {
			t.Errorf("%v: %v: whether it answers", code, err)
		}
	}
}

func TestABackendThatIsAwayIsToldFromOneThatAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c := dial(t, remote.Config{Addr: l.Addr().String()})
	if err := c.Disconnect(t.Context(), []hooks.Disconnection{{}}); !errors.Is(err, hooks.ErrNoAnswer) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, want no answer, and why", err)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and no word
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := dial(t, remote.Config{Addr: l.Addr().String()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Message(ctx, &who, &message.Message{}); !errors.Is(err, hooks.ErrNoAnswer) {
		t.Errorf("%v, want no answer", err)
	}
}

func TestTLSChecksWhoTheBackendIs(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil) // for its certificate
	ts.StartTLS()
	ts.Close()
	cert := ts.TLS.Certificates[0]
	roots := x509.NewCertPool()
	roots.AddCert(ts.Certificate())
	creds := grpc.Creds(credentials.NewServerTLSFromCert(&cert))
	b, c := serve(t, remote.Config{Key: "the key", TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, creds)
	b.answer = &realtimev1.OnSubscribeResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW}
	if err := c.Subscribe(t.Context(), &who, "a"); err != nil {
		t.Error(err)
	}
	asked(t, b, &realtimev1.OnSubscribeRequest{Session: whoSent, Room: "a"})

	b, c = serve(t, remote.Config{Key: "the key", TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}}, creds)
	if err := c.Subscribe(t.Context(), &who, "a"); !errors.Is(err, hooks.ErrNoAnswer) {
		t.Errorf("a stranger: %v, want no answer", err)
	}
	if len(b.keys) != 0 {
		t.Error("a stranger was told the key")
	}
}

// What one call may tell stays below what gRPC takes by default.
func TestTheLargestCallIsBelowItsBound(t *testing.T) {
	b, c := serve(t, remote.Config{}, grpc.MaxRecvMsgSize(3<<20))
	long := func(n int) string { return strings.Repeat("x", n) }
	cfg := hooks.Config{Hooks: hooks.Hooks{Disconnect: c.Disconnect}, FlushTime: time.Minute}
	cfg.Points[hooks.Disconnect].Timeout = time.Minute
	chain := hooks.New(cfg, slog.New(slog.DiscardHandler))
	const sessions = 250
	for range sessions {
		d := hooks.Disconnection{Session: hooks.Session{ID: long(26), User: long(128), Node: "n1", Address: long(45), Data: []byte(long(hooks.MaxDataBytes))}, Code: 4999, Reason: long(123), Time: time.Now()}
		for range 128 {
			d.Rooms = append(d.Rooms, hooks.Place{Room: message.Room(long(128))})
		}
		chain.Ended(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := chain.Run(ctx, nil); err != nil || chain.Stats().Dropped != 0 {
		t.Errorf("Run = %v, %d dropped", err, chain.Stats().Dropped)
	}
	told := 0
	for len(b.asked) > 0 {
		told += len((<-b.asked).(*realtimev1.OnDisconnectRequest).GetDisconnections())
	}
	if told != sessions {
		t.Errorf("%d were told, want %d", told, sessions)
	}
}
