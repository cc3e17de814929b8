package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

// local is who calls on loopback without a credential: all scopes.
const local = "local"

type publisher struct {
	realtimev1.UnimplementedPublisherServiceServer
	publish *publish.Publisher
}

// Publish publishes one message to a room.
func (s *publisher) Publish(ctx context.Context, req *realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
	r, err := request(req.GetRoom(), req.GetMessage(), message.TypeChat, req.GetIdempotencyKey())
	if err != nil {
		return nil, err
	}
	receipt, err := s.publish.Do(ctx, r)
	if err != nil {
		return nil, within("message", err)
	}
	return &realtimev1.PublishResponse{Receipt: receiptOf(r.Message.Room, receipt)}, nil
}

// request checks what only a backend can get wrong, and makes it a request.
func request(room string, c *realtimev1.MessageContent, usual message.Type, key string) (publish.Request, error) {
	name, err := message.ParseRoom(room)
	if err != nil {
		return publish.Request{}, err
	}
	if c == nil {
		return publish.Request{}, &message.Error{Err: message.ErrInvalid, Field: "message", Text: "message is missing"}
	}
	if len(key) > message.MaxKeyBytes {
		return publish.Request{}, &message.Error{Err: message.ErrInvalid, Field: "idempotency_key", Text: "idempotency_key has at most 128 bytes", Limit: message.MaxKeyBytes, Size: len(key)}
	}
	m := &message.Message{
		Type: message.Type(c.GetType()), Room: name, From: c.GetFrom(), Data: []byte(c.GetData()), Ephemeral: c.GetEphemeral(),
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
	return publish.Request{Message: m, Caller: local, Key: key, Origin: publish.Backend}, nil
}

func receiptOf(room message.Room, r broker.Receipt) *realtimev1.Receipt {
	return &realtimev1.Receipt{
		Id: r.ID.String(), Room: string(room), Timestamp: timestamppb.New((&message.Message{Timestamp: r.Timestamp}).Time()),
		Duplicate: r.Duplicate, Degraded: r.Degraded,
	}
}
