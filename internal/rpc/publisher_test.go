package rpc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

func TestAReceiptIsThatOfTheMessage(t *testing.T) {
	s := serve(t, Config{}, core(t).Publisher())
	before := time.Now().Truncate(time.Millisecond)
	req := hello()
	req.IdempotencyKey = "k1"
	first, err := s.pub.Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	r := first.GetReceipt()
	id, ok := message.ParseID(r.GetId())
	if !ok || id.Low.Unstored() || id.Low.Tag() != message.Room("general").Tag() {
		t.Errorf("id %q, want one that is stored in the room", r.GetId())
	}
	if at := r.GetTimestamp().AsTime(); at.Before(before) || at.After(time.Now()) || at.Nanosecond()%1e6 != 0 {
		t.Errorf("timestamp %v, want now to the millisecond", at)
	}
	if r.GetRoom() != "general" || r.GetDuplicate() || r.GetDegraded() {
		t.Errorf("receipt %v", r)
	}
	req.Message.Data = `"something else"`
	again, err := s.pub.Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(r)
	want.Duplicate = true
	if !proto.Equal(again.GetReceipt(), want) {
		t.Errorf("the repeat's receipt is %v, want %v", again.GetReceipt(), want)
	}
}

func TestARequestBecomesTheMessageItDescribes(t *testing.T) {
	at := time.Date(2001, 2, 3, 4, 5, 6, 789_999_999, time.UTC)
	for name, c := range map[string]struct {
		content *realtimev1.MessageContent
		want    message.Message
		now     bool
	}{
		"the least that may be said": {
			&realtimev1.MessageContent{},
			message.Message{Type: "chat", Data: []byte("null")},
			true,
		},
		"all that may be said": {
			&realtimev1.MessageContent{
				Type: "order.created", Data: ` {"n": 9007199254740993} `, From: "shop", Ephemeral: true,
				ExcludeSessionIds: []string{"s1", "s2"}, ExcludeUserIds: []string{"u1"}, Timestamp: timestamppb.New(at),
			},
			message.Message{
				Type: "order.created", Data: []byte(` {"n": 9007199254740993} `), From: "shop", Ephemeral: true,
				ExcludeSessions: []string{"s1", "s2"}, ExcludeUsers: []string{"u1"}, Timestamp: at.Truncate(time.Millisecond).UnixMilli(),
			},
			false,
		},
		"a system message": {
			&realtimev1.MessageContent{Type: "system", Data: `{"text":"soon"}`},
			message.Message{Type: "system", Data: []byte(`{"text":"soon"}`)},
			true,
		},
		"the first millisecond that can be told from none": {
			&realtimev1.MessageContent{Timestamp: timestamppb.New(time.UnixMilli(1))},
			message.Message{Type: "chat", Data: []byte("null"), Timestamp: 1},
			false,
		},
		"the last millisecond": {
			&realtimev1.MessageContent{Timestamp: timestamppb.New(time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC))},
			message.Message{Type: "chat", Data: []byte("null"), Timestamp: 253402300799999},
			false,
		},
		"a time that says nothing": {
			&realtimev1.MessageContent{Timestamp: &timestamppb.Timestamp{}},
			message.Message{Type: "chat", Data: []byte("null")},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bus{}
			s := serve(t, Config{}, over(t, b, gate{}))
			before := time.Now().UnixMilli()
			req := &realtimev1.PublishRequest{Room: "team/7", Message: c.content, IdempotencyKey: strings.Repeat("k", 128)}
			resp, err := s.pub.Publish(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			got := b.published()[0]
			if got.Caller != "backend/"+local || got.Key != req.GetIdempotencyKey() {
				t.Errorf("caller %q, key %q", got.Caller, got.Key)
			}
			m := *got.Message
			if m.ID.Low.Unstored() != c.want.Ephemeral {
				t.Errorf("P = %v, want %v", m.ID.Low.Unstored(), c.want.Ephemeral)
			}
			if got, want := resp.GetReceipt().GetTimestamp().AsTime(), m.Time(); !got.Equal(want) {
				t.Errorf("the receipt's time is %v, the message's %v", got, want)
			}
			if c.now && m.Timestamp >= before && m.Timestamp <= time.Now().UnixMilli() {
				m.Timestamp = 0
			}
			m.ID, c.want.Room = message.ID{}, "team/7"
			if d := cmp.Diff(c.want, m); d != "" {
				t.Errorf("message (-want +got):\n%s", d)
			}
		})
	}
}

func TestAReceiptTellsADegradedBus(t *testing.T) {
	b := &bus{answer: func(context.Context, broker.Publication) (broker.Receipt, error) {
		return broker.Receipt{ID: message.ID{Position: message.At(5, 6), Low: 7 | 1<<63}, Timestamp: 8, Degraded: true}, nil
	}}
	resp, err := serve(t, Config{}, over(t, b, gate{})).pub.Publish(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	want := &realtimev1.Receipt{Id: "00000000-0005-7006-8000-000000000007", Room: "general", Timestamp: timestamppb.New(time.UnixMilli(8)), Degraded: true}
	if !proto.Equal(resp.GetReceipt(), want) {
		t.Errorf("receipt %v, want %v", resp.GetReceipt(), want)
	}
}

func TestACallWithoutADeadlineHasOneOfTheServers(t *testing.T) {
	var left time.Duration
	b := &bus{answer: func(ctx context.Context, _ broker.Publication) (broker.Receipt, error) {
		end, ok := ctx.Deadline()
		if !ok {
			return broker.Receipt{}, errors.New("no deadline")
		}
		left = time.Until(end)
		return broker.Receipt{}, nil
	}}
	s := serve(t, Config{}, over(t, b, gate{}))
	if _, err := s.pub.Publish(t.Context(), hello()); err != nil {
		t.Fatal(err)
	}
	if left < 4*time.Second || left > 5*time.Second {
		t.Errorf("%v are left of the default deadline, want 5 s", left)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.pub.Publish(ctx, hello()); err != nil {
		t.Fatal(err)
	}
	if left < 50*time.Second {
		t.Errorf("%v are left of the caller's own minute: it is the caller's to choose", left)
	}
}

func TestACallThatTakesTooLongEndsUnknown(t *testing.T) {
	b := &bus{answer: func(ctx context.Context, _ broker.Publication) (broker.Receipt, error) {
		<-ctx.Done()
		return broker.Receipt{}, ctx.Err()
	}}
	s := serve(t, Config{Timeout: 20 * time.Millisecond}, over(t, b, gate{}))
	_, err := s.pub.Publish(t.Context(), hello()) // without a deadline of its own
	if st := status.Convert(err); st.Code() != codes.DeadlineExceeded || !strings.Contains(st.Message(), "same idempotency key") {
		t.Errorf("error %v, want DEADLINE_EXCEEDED that says what to do", err)
	}
	if got := s.log.records(t); got != nil {
		t.Errorf("logged %v: a slow call is not the unexpected", got)
	}
}

func TestARequestAboveFourMiBIsRefusedUnread(t *testing.T) {
	s := serve(t, Config{}, core(t).Publisher())
	req := hello()
	req.Message.Data = ""
	pad := func(size int) *realtimev1.PublishRequest {
		r := proto.CloneOf(req)
		for r.Message.Data = strings.Repeat("a", size-100); proto.Size(r) < size; {
			r.Message.Data += strings.Repeat("a", size-proto.Size(r))
		}
		return r
	}
	_, err := s.pub.Publish(t.Context(), pad(4<<20))
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("4 MiB: %v, want it read and its data refused", err)
	}
	_, err = s.pub.Publish(t.Context(), pad(4<<20+1))
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) != 0 {
		t.Errorf("4 MiB + 1: %v, want RESOURCE_EXHAUSTED without RetryInfo", err)
	}
}

// The wait of a publisher for a room is the hub's, and its end an error of the table.
func TestARoomThatCannotFollowRefusesItsPublishers(t *testing.T) {
	b := &bus{}
	s := serve(t, Config{}, over(t, b, gate{hub.ErrOverloaded}))
	if _, err := s.pub.Publish(t.Context(), hello()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v, want RESOURCE_EXHAUSTED", err)
	}
	if got := b.published(); got != nil {
		t.Errorf("published all the same: %v", got)
	}
}

var _ publish.Gate = (*hub.Hub)(nil)
