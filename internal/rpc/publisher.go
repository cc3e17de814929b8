package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

// The contract's bounds of a call about several items.
const (
	maxItems   = 1000
	maxTargets = 10_000
	// parallel is how many publishes of one call are under way at once: enough to hide a bus's round trips, few enough that
	// one call does not crowd out others.
	parallel = 64
)

type publisher struct {
	realtimev1.UnimplementedPublisherServiceServer
	chain   *chain
	publish *publish.Publisher
	broker  broker.Broker
	lanes   sync.WaitGroup // of PublishStream
}

// Publish publishes one message to a room.
func (s *publisher) Publish(ctx context.Context, req *realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
	room, err := message.ParseRoom(req.GetRoom())
	if err != nil {
		return nil, err
	}
	receipt, err := s.single(ctx, room, req.GetMessage(), message.TypeChat, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	return &realtimev1.PublishResponse{Receipt: receipt}, nil
}

// BroadcastAll publishes one message to everyone.
func (s *publisher) BroadcastAll(ctx context.Context, req *realtimev1.BroadcastAllRequest) (*realtimev1.BroadcastAllResponse, error) {
	receipt, err := s.single(ctx, message.Global, req.GetMessage(), message.TypeSystem, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	return &realtimev1.BroadcastAllResponse{Receipt: receipt}, nil
}

func (s *publisher) single(ctx context.Context, room message.Room, c *realtimev1.MessageContent, usual message.Type, key string) (*realtimev1.Receipt, error) {
	who := callerOf(ctx)
	r, err := request(who, c, usual, key)
	if err != nil {
		return nil, err
	}
	if err := who.take(1); err != nil {
		return nil, err
	}
	r.Message.Room = room
	receipt, err := s.do(ctx, who, r)
	if err != nil {
		return nil, within("message", err)
	}
	return receiptOf(room, receipt), nil
}

// PublishBatch publishes messages, those of one room in their order.
func (s *publisher) PublishBatch(ctx context.Context, req *realtimev1.PublishBatchRequest) (*realtimev1.PublishBatchResponse, error) {
	items := req.GetItems()
	if err := count("items", len(items), maxItems); err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	if err := who.take(len(items)); err != nil {
		return nil, err
	}
	rooms := make(map[string]int, len(items)) // to the place in groups
	var groups [][]int
	for i, item := range items {
		g, ok := rooms[item.GetRoom()]
		if !ok {
			g = len(groups)
			rooms[item.GetRoom()] = g
			groups = append(groups, nil)
		}
		groups[g] = append(groups[g], i)
	}
	results := make([]*realtimev1.PublishResult, len(items))
	spread(len(groups), func(g int) {
		for _, i := range groups[g] {
			receipt, err := s.item(ctx, who, items[i])
			results[i] = s.result(ctx, message.Room(items[i].GetRoom()), receipt, err)
		}
	})
	return &realtimev1.PublishBatchResponse{Results: results}, nil
}

// Broadcast publishes one message to many rooms.
func (s *publisher) Broadcast(ctx context.Context, req *realtimev1.BroadcastRequest) (*realtimev1.BroadcastResponse, error) {
	results, err := s.many(ctx, "rooms", req.GetRooms(), message.ParseRoom, req.GetMessage(), message.TypeChat, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	return &realtimev1.BroadcastResponse{Results: results}, nil
}

// Notify publishes one message to many users.
func (s *publisher) Notify(ctx context.Context, req *realtimev1.NotifyRequest) (*realtimev1.NotifyResponse, error) {
	results, err := s.many(ctx, "user_ids", req.GetUserIds(), userRoom, req.GetMessage(), message.TypeNotification, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	return &realtimev1.NotifyResponse{Results: results}, nil
}

func userRoom(id string) (message.Room, error) { return message.UserRoom(id), message.CheckUser(id) }

// many publishes the same message to each target. A target that is none is refused by itself; what is wrong with the message
// is wrong for all, and refuses the call before anything of it is published.
func (s *publisher) many(ctx context.Context, field string, targets []string, parse func(string) (message.Room, error),
	c *realtimev1.MessageContent, usual message.Type, key string,
) ([]*realtimev1.PublishResult, error) {
	if err := count(field, len(targets), maxTargets); err != nil {
		return nil, err
	}
	seen := make(map[string]struct{}, len(targets))
	for i, t := range targets {
		if _, twice := seen[t]; twice {
			return nil, &message.Error{Err: message.ErrInvalid, Field: fmt.Sprintf("%s[%d]", field, i), Text: field + " must not name the same twice"}
		}
		seen[t] = struct{}{}
	}
	who := callerOf(ctx)
	r, err := request(who, c, usual, key)
	if err != nil {
		return nil, err
	}
	if err := who.take(len(targets)); err != nil {
		return nil, err
	}
	results, rooms, places := make([]*realtimev1.PublishResult, len(targets)), make([]message.Room, 0, len(targets)), make([]int, 0, len(targets))
	for i, t := range targets {
		room, err := parse(t)
		if err != nil {
			results[i] = s.result(ctx, "", broker.Receipt{}, err)
			continue
		}
		rooms, places = append(rooms, room), append(places, i)
	}
	to := func(n int) error {
		receipt, err := s.guarded(ctx, who, copyFor(r, rooms[n]))
		results[places[n]] = s.result(ctx, rooms[n], receipt, err)
		return err
	}
	if len(rooms) == 0 {
		return results, nil
	}
	if err := to(0); aboutMessage(err) { // the first one tells for all
		return nil, within("message", err)
	}
	spread(len(rooms)-1, func(n int) { _ = to(n + 1) }) // in its result
	return results, nil
}

// item publishes an item of a batch or stream.
func (s *publisher) item(ctx context.Context, who *Caller, item *realtimev1.PublishItem) (broker.Receipt, error) {
	room, err := message.ParseRoom(item.GetRoom())
	if err != nil {
		return broker.Receipt{}, err
	}
	r, err := request(who, item.GetMessage(), message.TypeChat, item.GetIdempotencyKey())
	if err != nil {
		return broker.Receipt{}, err
	}
	r.Message.Room = room
	return s.guarded(ctx, who, r)
}

// guarded publishes, and makes a panic an error: it is one item's, not the process's.
func (s *publisher) guarded(ctx context.Context, who *Caller, r publish.Request) (receipt broker.Receipt, err error) {
	defer func() { err = caught(recover(), err) }()
	return s.do(ctx, who, r)
}

// do publishes.
func (s *publisher) do(ctx context.Context, who *Caller, r publish.Request) (broker.Receipt, error) {
	receipt, err := s.publish.Do(ctx, r)
	if from := r.Message.From; err == nil && from != "" && from != who.Name {
		who.claims.note(ctx, s.chain.log, who, from)
	}
	return receipt, err
}

// result is an item's outcome as its caller reads it.
func (s *publisher) result(ctx context.Context, room message.Room, receipt broker.Receipt, err error) *realtimev1.PublishResult {
	if err != nil {
		return &realtimev1.PublishResult{Outcome: &realtimev1.PublishResult_Error{Error: s.refusal(ctx, err)}}
	}
	return &realtimev1.PublishResult{Outcome: &realtimev1.PublishResult_Receipt{Receipt: receiptOf(room, receipt)}}
}

// refusal maps an item's error; what is unexpected of it is logged.
func (s *publisher) refusal(ctx context.Context, err error) *realtimev1.ItemError {
	c := explain(err)
	method, _ := grpc.Method(ctx)
	s.chain.note(ctx, method, err, c.known)
	return c.itemError()
}

// count refuses a call about nothing or about too much.
func count(field string, n, limit int) error {
	switch {
	case n == 0:
		return &message.Error{Err: message.ErrInvalid, Field: field, Text: fmt.Sprintf("%s is empty: name 1 to %d", field, limit)}
	case n > limit:
		return &message.Error{Err: errTooMany, Field: field, Limit: limit, Size: n, Text: fmt.Sprintf("%d %s, the limit is %d: use more calls", n, field, limit)}
	}
	return nil
}

// spread calls do for 0 to n-1, several at once, and returns when all have returned.
func spread(n int, do func(int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var others sync.WaitGroup
	for range min(n, parallel) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// request checks what only a backend can get wrong, and makes it a request. Its message has no room yet.
func request(who *Caller, c *realtimev1.MessageContent, usual message.Type, key string) (publish.Request, error) {
	if c == nil {
		return publish.Request{}, &message.Error{Err: message.ErrInvalid, Field: "message", Text: "message is missing"}
	}
	if len(key) > message.MaxKeyBytes {
		return publish.Request{}, &message.Error{Err: message.ErrInvalid, Field: "idempotency_key", Text: "idempotency_key has at most 128 bytes", Limit: message.MaxKeyBytes, Size: len(key)}
	}
	if from := c.GetFrom(); from != "" && from != who.Name {
		if err := who.needs(ScopePublishAsUser); err != nil {
			return publish.Request{}, err
		}
	}
	m := &message.Message{
		Type: message.Type(c.GetType()), From: c.GetFrom(), Data: []byte(c.GetData()), Ephemeral: c.GetEphemeral(),
		ExcludeSessions: c.GetExcludeSessionIds(), ExcludeUsers: c.GetExcludeUserIds(),
	}
	if m.Type == "" {
		m.Type = usual
	}
	if len(m.Data) == 0 {
		m.Data = []byte("null")
	}
	if t := c.GetTimestamp(); t != nil {
		if err := t.CheckValid(); err != nil {
			return publish.Request{}, &message.Error{Err: message.ErrInvalid, Field: "message.timestamp", Text: "timestamp must lie between 1970 and 9999"}
		}
		m.Timestamp = t.AsTime().UnixMilli()
	}
	return publish.Request{Message: m, Caller: who.Identity, Key: key, Origin: publish.Backend}, nil
}

// copyFor is the same request for another room: its message is the publisher's own, what it points to is not changed by anyone.
func copyFor(r publish.Request, room message.Room) publish.Request {
	m := *r.Message
	m.Room = room
	r.Message = &m
	return r
}

func receiptOf(room message.Room, r broker.Receipt) *realtimev1.Receipt {
	return &realtimev1.Receipt{
		Id: r.ID.String(), Room: string(room), Timestamp: timestamppb.New((&message.Message{Timestamp: r.Timestamp}).Time()),
		Duplicate: r.Duplicate, Degraded: r.Degraded,
	}
}
