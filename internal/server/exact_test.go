package server

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// Data takes every way there is: from sessions and backends, past hooks, over Redis, to members of both nodes, to streams and
// out of history. None of them reads it.
func TestDataArrivesByteForByteOrIsRefused(t *testing.T) {
	var shown, put atomic.Pointer[string] // what the hook saw last; what it puts in place of it
	j := &judge{connect: lets, message: func(r *realtimev1.OnMessageRequest) *realtimev1.OnMessageResponse {
		data := r.GetMessage().GetData()
		shown.Store(&data)
		if other := put.Load(); other != nil {
			return &realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE, Data: *other}
		}
		return passes(r)
	}}
	nodes := shared(t, redistest.Start(t), 2, j.serve(t)...)
	a, b := nodes[0], nodes[1]
	here, there := a.join("general"), b.join("general")
	stream, err := realtimev1.NewSubscriberServiceClient(b.dial()).Subscribe(t.Context(), &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{{Room: "general"}}})
	if err != nil {
		t.Fatal(err)
	}
	recv := func() *realtimev1.SubscribeResponse {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for recv().GetSubscribed() == nil {
	}
	arrives := func(want string) {
		t.Helper()
		for node, s := range map[string]*guest{"its own node": here, "the other node": there} {
			if got := s.want("chat"); string(got.Data) != want {
				t.Errorf("a member of %s got %q, want %q", node, got.Data, want)
			}
		}
		m := recv().GetMessage()
		for m.GetType() != "chat" { // who joins
			m = recv().GetMessage()
		}
		if got := m.GetData(); got != want {
			t.Errorf("a stream got %q, want %q", got, want)
		}
	}

	exact := []string{
		`{"n":9007199254740993,"neg":-9007199254740993,"id":18446744073709551616}`,
		`[1e400,-1E+400,1e-400,-0,-0.0,1.0000000000000000000001,1.10]`,
		"{ \"pair\" : \"\\ud83d\\ude00 \\u0000\\u2028\",\t\"A\":\"\\u0041\\/\", \"a\":\"</script><b>&\u2028\" }",
	}
	for _, data := range exact {
		here.say(`{"type":"chat","data":` + data + `}`)
		arrives(data)
		if got := *shown.Load(); got != data {
			t.Errorf("the hook saw %q, want %q", got, data)
		}
		if _, err := a.publish(data); err != nil {
			t.Fatal(err)
		}
		arrives(data)
		put.Store(&data)
		here.say(`{"type":"chat","data":"another"}`)
		arrives(data)
		put.Store(nil)
	}
	page, err := b.publisher().GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "general"})
	if err != nil || len(page.GetMessages()) != 3*len(exact) {
		t.Fatalf("history has %d messages, %v", len(page.GetMessages()), err)
	}
	for i, m := range page.GetMessages() {
		if want := exact[i/3]; m.GetData() != want {
			t.Errorf("history has %q, want %q", m.GetData(), want)
		}
	}

	for _, data := range []string{`"\ud83d"`, `{"s":"\ude00\ud83d"}`, `{"\udfff":1}`, `"\ud83d\ud83d\ude00"`} {
		here.say(`{"type":"chat","data":` + data + `}`)
		if f := here.want("error"); code(f) != "bad_frame" {
			t.Errorf("%s from a session: %s, want bad_frame", data, f.Data)
		}
		if _, err := a.publish(data); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s from a backend: %v, want InvalidArgument", data, err)
		}
		put.Store(&data)
		here.say(`{"type":"chat","data":"another"}`)
		if f := here.want("error"); code(f) != "hook_unavailable" {
			t.Errorf("%s from a hook: %s, want hook_unavailable", data, f.Data)
		}
		put.Store(nil)
	}
	if _, err := a.publish(`"and nothing of these has arrived"`); err != nil {
		t.Fatal(err)
	}
	arrives(`"and nothing of these has arrived"`)
}

// code is an error frame's.
func code(f told) string {
	var d struct{ Code string }
	_ = json.Unmarshal(f.Data, &d)
	return d.Code
}
