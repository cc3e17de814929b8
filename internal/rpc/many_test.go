package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// item is a message for a room.
func item(room, data string) *realtimev1.PublishItem {
	return &realtimev1.PublishItem{Room: room, Message: &realtimev1.MessageContent{Data: data}}
}

// outcomes are short texts: the room of a receipt, or code, reason and retry of a refusal.
func outcomes(t *testing.T, results []*realtimev1.PublishResult) (all []string) {
	t.Helper()
	for _, r := range results {
		e := r.GetError()
		switch {
		case e == nil && r.GetReceipt().GetId() != "":
			all = append(all, r.GetReceipt().GetRoom())
		case e.GetMessage() == "" || strings.Contains(e.GetMessage(), "hunter2"):
			t.Errorf("refused with the text %q", e.GetMessage())
		default:
			text := fmt.Sprintf("%v %v", codes.Code(e.GetCode()), strings.TrimPrefix(e.GetReason().String(), "ERROR_REASON_"))
			if e.GetRetryAfter() != nil {
				text += " " + e.GetRetryAfter().AsDuration().String()
			}
			all = append(all, text)
		}
	}
	return all
}

func TestABadItemSpoilsNoOther(t *testing.T) {
	b := &bus{answer: func(_ context.Context, p broker.Publication) (broker.Receipt, error) {
		switch p.Message.Room {
		case "away":
			return broker.Receipt{}, broker.ErrUnavailable
		case "odd":
			return broker.Receipt{}, errSecret
		case "panic":
			panic("hunter2")
		}
		return broker.Receipt{ID: message.ID{Position: 1, Low: p.Message.ID.Low}}, nil
	}}
	nothing, bare, reserved, key := item("", ""), item("a", "1"), item("a", "1"), item("a", "1")
	bare.Message, reserved.Message.Type, key.IdempotencyKey = nil, "presence", strings.Repeat("k", 129)
	items := []*realtimev1.PublishItem{
		item("a", "1"), item("@global", "1"), item("a", "{"), item("away", "1"), item("odd", "1"), item("panic", "1"), bare, reserved, nothing,
		item("a", "2"), key, item("b", `"`+strings.Repeat("a", 64<<10)+`"`),
	}
	want := []string{
		"a", "InvalidArgument ROOM_INVALID", "InvalidArgument DATA_INVALID", "Unavailable BROKER_UNAVAILABLE 1s", "Internal INTERNAL", "Internal INTERNAL",
		"InvalidArgument ARGUMENT_INVALID", "InvalidArgument TYPE_FORBIDDEN", "InvalidArgument ROOM_INVALID", "a",
		"InvalidArgument ARGUMENT_INVALID", "InvalidArgument DATA_TOO_LARGE",
	}
	ways := map[string]func(*served) []*realtimev1.PublishResult{
		"batch": func(s *served) []*realtimev1.PublishResult {
			resp, err := s.pub.PublishBatch(within10s(t), &realtimev1.PublishBatchRequest{Items: items})
			if err != nil {
				t.Fatal(err)
			}
			return resp.GetResults()
		},
		"stream": func(s *served) (all []*realtimev1.PublishResult) {
			st, err := s.pub.PublishStream(within10s(t))
			if err != nil {
				t.Fatal(err)
			}
			for i, it := range items {
				if err := st.Send(&realtimev1.PublishStreamRequest{Item: it, Tag: uint64(i) * 7}); err != nil {
					t.Fatal(err)
				}
			}
			if err := st.CloseSend(); err != nil {
				t.Fatal(err)
			}
			for i := range items {
				resp, err := st.Recv()
				if err != nil || resp.GetTag() != uint64(i)*7 {
					t.Fatalf("answer %d: tag %d, %v", i, resp.GetTag(), err)
				}
				all = append(all, resp.GetResult())
			}
			return all
		},
	}
	for way, send := range ways {
		for _, kind := range []broker.Broker{nil, broker.NewMemory(broker.MemoryConfig{})} { // a network's, the embedded one's way
			t.Run(fmt.Sprintf("%s over %T", way, kind), func(t *testing.T) {
				s := serveParts(t, Config{}, Parts{Publisher: over(t, b, gate{}), Broker: kind}, nil)
				if d := cmp.Diff(want, outcomes(t, send(s))); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				logged := s.log.records(t)
				if len(logged) != 2 || logged[0]["method"] == "" || logged[1]["level"] != "ERROR" {
					t.Errorf("logged %v, want one line for each item that nobody expected", logged)
				}
			})
		}
	}
}

func TestABatchKeepsTheOrderOfEachRoom(t *testing.T) {
	n := core(t)
	s := serveNode(t, Config{}, n)
	var req realtimev1.PublishBatchRequest
	for i := range maxItems {
		req.Items = append(req.Items, item(fmt.Sprint("r", i%7), fmt.Sprint(i)))
	}
	resp, err := s.pub.PublishBatch(within10s(t), &req)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range resp.GetResults() {
		if want := fmt.Sprint("r", i%7); r.GetReceipt().GetRoom() != want {
			t.Fatalf("result %d: %v, want a receipt of %s", i, r, want)
		}
	}
	for room := range 7 {
		var want []string
		for i := room; i < maxItems; i += 7 {
			want = append(want, fmt.Sprint(i))
		}
		if got := s.kept(t, fmt.Sprint("r", room)); !slices.Equal(got, want) {
			t.Errorf("room %d holds %v", room, got)
		}
	}
}

// kept reads all data that a room keeps.
func (s *served) kept(t *testing.T, room string) (data []string) {
	t.Helper()
	resp := &realtimev1.GetHistoryResponse{NextPageToken: ""}
	for first := true; first || resp.GetNextPageToken() != ""; first = false {
		var err error
		resp, err = s.pub.GetHistory(within10s(t), &realtimev1.GetHistoryRequest{
			Room: room, PageSize: maxPage, PageToken: resp.GetNextPageToken(), Start: &realtimev1.GetHistoryRequest_AfterId{AfterId: message.ID{Low: 1 << 63}.String()},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range resp.GetMessages() {
			data = append(data, m.GetData())
		}
	}
	return data
}

// A call about many waits for a bus many times at once, but not as often as it has items.
func TestItemsOfDifferentRoomsOverlapWithABound(t *testing.T) {
	var now, most atomic.Int64
	full, release := make(chan struct{}), make(chan struct{})
	fill := sync.OnceFunc(func() { close(full) })
	b := &bus{answer: func(_ context.Context, p broker.Publication) (broker.Receipt, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == parallel {
			fill()
		}
		if p.Message.Room != "r0" { // what tells for all goes alone
			<-release
		}
		return broker.Receipt{ID: message.ID{Position: 1}}, nil
	}}
	s := serve(t, Config{}, over(t, b, gate{}))
	var rooms []string
	for i := range 4 * parallel {
		rooms = append(rooms, fmt.Sprint("r", i))
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.pub.Broadcast(within10s(t), &realtimev1.BroadcastRequest{Rooms: rooms, Message: &realtimev1.MessageContent{}})
		ended <- err
	}()
	<-full
	close(release)
	if err := <-ended; err != nil || most.Load() != parallel || len(b.published()) != 4*parallel {
		t.Errorf("%v; %d at once, want %d; %d published", err, most.Load(), parallel, len(b.published()))
	}
}

func TestManyGetTheSameMessage(t *testing.T) {
	s := serveNode(t, Config{}, core(t))
	content := &realtimev1.MessageContent{Data: `{"n":1}`, From: "shop"}
	cast, err := s.pub.Broadcast(t.Context(), &realtimev1.BroadcastRequest{Rooms: []string{"b", "@me", "a"}, Message: content, IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(t, cast.GetResults()), []string{"b", "InvalidArgument ROOM_INVALID", "a"}; !slices.Equal(got, want) {
		t.Errorf("broadcast: %q, want %q", got, want)
	}
	// A repeat completes what was done by half.
	again, err := s.pub.Broadcast(t.Context(), &realtimev1.BroadcastRequest{Rooms: []string{"a", "b", "c"}, Message: content, IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range again.GetResults() {
		if r.GetReceipt().GetDuplicate() != (i < 2) {
			t.Errorf("the repeat's result %d: %v", i, r)
		}
	}
	note, err := s.pub.Notify(t.Context(), &realtimev1.NotifyRequest{UserIds: []string{"ann", "", "böb x", "\n"}, Message: content, IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(t, note.GetResults()), []string{"@user/ann", "InvalidArgument USER_INVALID", "@user/böb x", "InvalidArgument USER_INVALID"}; !slices.Equal(got, want) {
		t.Errorf("notify: %q, want %q", got, want)
	}
	all, err := s.pub.BroadcastAll(t.Context(), &realtimev1.BroadcastAllRequest{Message: content})
	if err != nil || all.GetReceipt().GetRoom() != "@global" {
		t.Errorf("broadcast to all: %v, %v", all, err)
	}
	for room, typ := range map[string]string{"a": "chat", "b": "chat", "c": "chat", "@user/ann": "notification", "@user/böb x": "notification", "@global": "system"} {
		resp, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: room})
		if err != nil || len(resp.GetMessages()) != 1 {
			t.Errorf("%s: %v, %v, want one message", room, resp, err)
			continue
		}
		if m := resp.GetMessages()[0]; m.GetType() != typ || m.GetRoom() != room || m.GetData() != content.GetData() || m.GetFrom() != "shop" {
			t.Errorf("%s holds %v", room, m)
		}
	}
}

func TestACallAboutManyFailsAsAWholeOnlyIfItIsBad(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{}, over(t, b, gate{}))
	names := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint("r", i))
		}
		return all
	}
	batch := func(n int) error {
		req := &realtimev1.PublishBatchRequest{}
		for range n {
			req.Items = append(req.Items, item("a", "1"))
		}
		_, err := s.pub.PublishBatch(within10s(t), req)
		return err
	}
	broadcast := func(rooms []string, c *realtimev1.MessageContent) error {
		_, err := s.pub.Broadcast(within10s(t), &realtimev1.BroadcastRequest{Rooms: rooms, Message: c})
		return err
	}
	notify := func(ids []string, c *realtimev1.MessageContent) error {
		_, err := s.pub.Notify(within10s(t), &realtimev1.NotifyRequest{UserIds: ids, Message: c})
		return err
	}
	good, bad := &realtimev1.MessageContent{}, &realtimev1.MessageContent{Data: "{"}
	refused := func(reason, field string, numbers ...string) *told {
		w := &told{Code: codes.InvalidArgument, Reason: "realtime/" + reason, Field: field}
		if numbers != nil {
			w.Metadata = map[string]string{"limit": numbers[0], "count": numbers[1]}
		}
		return w
	}
	for name, c := range map[string]struct {
		err  error
		want *told
	}{
		"an empty batch":               {batch(0), refused("ARGUMENT_INVALID", "items")},
		"a batch too many":             {batch(1001), refused("TOO_MANY_ITEMS", "items", "1000", "1001")},
		"no rooms":                     {broadcast(nil, good), refused("ARGUMENT_INVALID", "rooms")},
		"a room twice":                 {broadcast([]string{"a", "b", "a"}, good), refused("ARGUMENT_INVALID", "rooms[2]")},
		"a room too many":              {broadcast(names(10_001), good), refused("TOO_MANY_ITEMS", "rooms", "10000", "10001")},
		"no message for rooms":         {broadcast(names(3), nil), refused("ARGUMENT_INVALID", "message")},
		"a bad message for rooms":      {broadcast(names(3), bad), refused("DATA_INVALID", "message.data")},
		"a bad message behind no room": {broadcast([]string{"@", "a"}, bad), refused("DATA_INVALID", "message.data")},
		"no users":                     {notify(nil, good), refused("ARGUMENT_INVALID", "user_ids")},
		"a user twice":                 {notify([]string{"a", "a"}, good), refused("ARGUMENT_INVALID", "user_ids[1]")},
		"a user too many":              {notify(names(10_001), good), refused("TOO_MANY_ITEMS", "user_ids", "10000", "10001")},
		"a bad message for users":      {notify(names(3), bad), refused("DATA_INVALID", "message.data")},
	} {
		if got, _ := read(t, c.err); !cmp.Equal(&got, c.want) {
			t.Errorf("%s (-want +got):\n%s", name, cmp.Diff(c.want, &got))
		}
	}
	if n := len(b.published()); n != 0 {
		t.Errorf("%d published all the same", n)
	}
	for name, err := range map[string]error{"the largest batch": batch(1000), "the most rooms": broadcast(names(10_000), good), "the most users": notify(names(10_000), good)} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(b.published()); n != 21_000 {
		t.Errorf("%d published, want all", n)
	}
	_, err := s.pub.BroadcastAll(t.Context(), &realtimev1.BroadcastAllRequest{Message: bad})
	if got, _ := read(t, err); !cmp.Equal(&got, refused("DATA_INVALID", "message.data")) {
		t.Errorf("to all: %+v", got)
	}
}
