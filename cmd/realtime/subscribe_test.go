package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func messageOf(id, room, data string) *realtimev1.Message {
	at := time.Date(2026, 3, 1, 12, 0, 0, 7_000_000, time.UTC)
	return &realtimev1.Message{Id: id, Room: room, Type: "chat", From: "alice", Data: data, Timestamp: timestamppb.New(at)}
}

func messageEvent(id, room, data string) *realtimev1.SubscribeResponse {
	return &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Message{Message: messageOf(id, room, data)}}
}

func subscribedEvent(room, latest string) *realtimev1.SubscribeResponse {
	return &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Subscribed{Subscribed: &realtimev1.Subscribed{Room: room, Recovered: true, LatestId: latest}}}
}

var (
	gapEvent = &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Gap{Gap: &realtimev1.Gap{
		Room: "a", AfterId: "A2", BeforeId: "A5", Reason: realtimev1.GapReason_GAP_REASON_EXPIRED,
	}}}
	idleEvent = &realtimev1.SubscribeResponse{Event: &realtimev1.SubscribeResponse_Keepalive{Keepalive: &realtimev1.Keepalive{}}}
)

// twice is a node that drains in the middle. It notes where each call began.
func twice(starts *[]string) *fake {
	f := &fake{}
	f.subscribe = func(r *realtimev1.SubscribeRequest, s grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error {
		var start []string
		for _, room := range r.GetRooms() {
			start = append(start, room.GetRoom()+"="+room.GetAfterId())
		}
		*starts = append(*starts, strings.Join(start, " "))
		events := []*realtimev1.SubscribeResponse{
			subscribedEvent("a", "A1"), subscribedEvent("b", ""), idleEvent, messageEvent("A2", "a", "{\n\"n\": 1 }"), messageEvent("X", "elsewhere", "0"),
		}
		if len(*starts) > 1 {
			events = []*realtimev1.SubscribeResponse{gapEvent, messageEvent("A5", "a", `"\u0000`+"\u009b"+`"`), subscribedEvent("a", "A5"), messageEvent("B1", "b", ""), messageEvent("B2", "b", "2")}
		}
		for _, event := range events {
			if err := s.Send(event); err != nil {
				return err
			}
		}
		return draining()
	}
	return f
}

func TestSubscribeGoesOnWhereItWasWhenTheNodeGoesAway(t *testing.T) {
	var starts []string
	addr := twice(&starts).serve(t)
	out, errOut, err := both(t, "subscribe", addr, "a", "b", "--count=4")
	if err != nil {
		t.Fatal(err)
	}
	want := `2026-03-01T12:00:00.007Z a chat alice {"n":1}
2026-03-01T12:00:00.007Z elsewhere chat alice 0
2026-03-01T12:00:00.007Z a chat alice "\u0000\u009b"
2026-03-01T12:00:00.007Z b chat alice null
`
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("out (-want +got):\n%s", d)
	}
	want = `subscribed to a at A1
subscribed to b at -
subscribe: this node goes away: use another (try again in 0s): calling again
gap in a: expired, after A2, before A5
subscribed to a at A5
`
	if d := cmp.Diff(want, errOut); d != "" {
		t.Errorf("err (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a= b=", "a=A2 b="}, starts); d != "" {
		t.Errorf("begun at (-want +got):\n%s", d)
	}
}

func TestSubscribeAsJSONTellsAllThatHappens(t *testing.T) {
	var starts []string
	addr := twice(&starts).serve(t)
	out, errOut, err := both(t, "subscribe", addr, "a", "b", "--count=3", "--json")
	if err != nil || strings.Contains(errOut, "gap") || strings.Contains(errOut, "subscribed") {
		t.Errorf("%v, err:\n%s", err, errOut)
	}
	var got []*realtimev1.SubscribeResponse
	for line := range strings.Lines(out) {
		var r realtimev1.SubscribeResponse
		if err := protojson.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, &r)
	}
	want := []*realtimev1.SubscribeResponse{
		subscribedEvent("a", "A1"), subscribedEvent("b", ""), messageEvent("A2", "a", "{\n\"n\": 1 }"), messageEvent("X", "elsewhere", "0"),
		gapEvent, messageEvent("A5", "a", `"\u0000`+"\u009b"+`"`),
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSubscribeBeginsWhereItIsTold(t *testing.T) {
	for want, args := range map[string][]string{
		"a= b=":    nil,
		"a=F b=F":  {"--from=F"},
		"a=A b=":   {"--after=a=A"},
		"a=A b=B0": {"--after=a=A", "--after", "b=B0"},
	} {
		var starts []string
		addr := twice(&starts).serve(t)
		if _, _, err := both(t, append([]string{"subscribe", addr, "a", "b", "--count=1"}, args...)...); err != nil || starts[0] != want {
			t.Errorf("subscribe %q: begun at %q, %v, want %q", args, starts, err, want)
		}
	}
}

func TestSubscribeEndsInOrderWhenInterruptedAndWithTheReasonWhenRefused(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	addr := (&fake{subscribe: func(_ *realtimev1.SubscribeRequest, s grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error {
		interrupt()
		<-s.Context().Done()
		return nil
	}}).serve(t)
	if err := run(ctx, []string{"subscribe", addr, "a"}, t.Output(), t.Output()); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	addr = (&fake{subscribe: func(*realtimev1.SubscribeRequest, grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error {
		return refused(codes.InvalidArgument, "POSITION_INVALID", "an id is something else")
	}}).serve(t)
	if _, err := command(t, "subscribe", addr, "a"); err == nil || err.Error() != "subscribe: an id is something else" {
		t.Errorf("refused: %v", err)
	}
}
