package remote

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// bytesOf answers everything with the same bytes, read as what is expected.
type bytesOf []byte

func (b bytesOf) OnConnect(context.Context, *realtimev1.OnConnectRequest, ...grpc.CallOption) (*realtimev1.OnConnectResponse, error) {
	r := &realtimev1.OnConnectResponse{}
	return r, proto.Unmarshal(b, r)
}

func (b bytesOf) OnSubscribe(context.Context, *realtimev1.OnSubscribeRequest, ...grpc.CallOption) (*realtimev1.OnSubscribeResponse, error) {
	r := &realtimev1.OnSubscribeResponse{}
	return r, proto.Unmarshal(b, r)
}

func (b bytesOf) OnMessage(context.Context, *realtimev1.OnMessageRequest, ...grpc.CallOption) (*realtimev1.OnMessageResponse, error) {
	r := &realtimev1.OnMessageResponse{}
	return r, proto.Unmarshal(b, r)
}

func (b bytesOf) OnDisconnect(context.Context, *realtimev1.OnDisconnectRequest, ...grpc.CallOption) (*realtimev1.OnDisconnectResponse, error) {
	r := &realtimev1.OnDisconnectResponse{}
	return r, proto.Unmarshal(b, r)
}

// FuzzAnswers has any bytes be an answer: it is a verdict within the rules, or a failure, never a panic, and only what says yes
// is one.
func FuzzAnswers(f *testing.F) {
	for _, m := range []proto.Message{
		&realtimev1.OnConnectResponse{}, &realtimev1.OnConnectResponse{Verdict: 1, UserId: "ada", Rooms: []string{"a"}, Grants: []*realtimev1.Grant{{Pattern: "*", Operations: "r"}}, Info: "{ }", SessionData: "1"},
		&realtimev1.OnConnectResponse{Verdict: 2, Code: 4999, Reason: "no"}, &realtimev1.OnSubscribeResponse{Verdict: 1}, &realtimev1.OnSubscribeResponse{Verdict: 2, Reason: "no"},
		&realtimev1.OnMessageResponse{Verdict: 1}, &realtimev1.OnMessageResponse{Verdict: 2, Type: "vote", Data: "{}", From: "eve"}, &realtimev1.OnMessageResponse{Verdict: 3, Error: "no"},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{rpc: bytesOf(b)}
		chain := hooks.New(hooks.Config{Hooks: hooks.Hooks{Connect: c.Connect, Subscribe: c.Subscribe, Message: c.Message}}, log)
		answered := func(err error) bool {
			_, denied := errors.AsType[*hooks.Denied](err)
			_, away := errors.AsType[*hooks.Unavailable](err)
			if err != nil && !denied && !away {
				t.Errorf("an error of no kind: %v", err)
			}
			return err == nil
		}
		var connect realtimev1.OnConnectResponse
		a, err := chain.Connect(t.Context(), &hooks.Attempt{}, func(*hooks.Admission) error { return nil })
		if answered(err) {
			if proto.Unmarshal(b, &connect) != nil || connect.GetVerdict() != realtimev1.HookVerdict_HOOK_VERDICT_ALLOW {
				t.Errorf("let in by %v", &connect)
			}
			if a.User != "" && message.CheckUser(a.User) != nil || len(a.Data) > hooks.MaxDataBytes || len(a.Info) > 0 && message.CheckJSON(a.Info) != nil {
				t.Errorf("let in with %+v", a)
			}
		}
		var subscribe realtimev1.OnSubscribeResponse
		if answered(chain.Subscribe(t.Context(), &hooks.Session{}, []message.Room{"a"})[0]) {
			if proto.Unmarshal(b, &subscribe) != nil || subscribe.GetVerdict() != realtimev1.HookVerdict_HOOK_VERDICT_ALLOW {
				t.Errorf("joined by %v", &subscribe)
			}
		}
		m := &message.Message{Type: message.TypeChat, Room: "a", From: "ada", Data: []byte(`1`)}
		out, err := chain.Message(t.Context(), &hooks.Session{}, m)
		if answered(err) && out != nil && (out.Check(message.DefaultMaxDataBytes) != nil || out.Type.BackendOnly() || out.Room != "a") {
			t.Errorf("published as %+v", out)
		}
	})
}
