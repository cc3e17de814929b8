package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

const (
	maxStarts        = 1000 // rooms of one stream
	defaultKeepalive = 25 * time.Second
	minKeepalive     = time.Second
	maxKeepalive     = 10 * time.Minute
	// closeSlow is the code with which the hub shuts a session that does not read; the only other one says that a room was
	// not to be had.
	closeSlow = 4000
)

// Why the hub ends a stream.
var (
	errSlow    = errors.New("reader too slow")
	errNotLive = errors.New("room not live in time")
)

// subscriber makes backends members of rooms: each stream is a session of the hub whose socket is a pipe. Such a session
// has neither user nor id, so that no message excludes it.
type subscriber struct {
	realtimev1.UnimplementedSubscriberServiceServer
	hub     *hub.Hub
	senders sync.WaitGroup // goroutines that send; they end with their streams' handlers, or right behind them
}

// Subscribe sends what is published to rooms until the caller leaves, reads too slowly, or the node goes away.
func (s *subscriber) Subscribe(req *realtimev1.SubscribeRequest, ss grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error {
	joins, err := starts(req.GetRooms())
	if err != nil {
		return err
	}
	d := &delivery{hub: s.hub, out: ss, pipe: newPipe(), rooms: make(map[string]*place, len(joins))}
	if d.keepalive, err = keepaliveOf(req.GetKeepalive()); err != nil {
		return err
	}
	for _, j := range joins {
		d.rooms[string(j.Room)] = &place{room: j.Room, tag: j.Room.Tag()}
	}
	first := joins[0].Room
	session, err := s.hub.Open(hub.Open{Writer: d.pipe, Anchor: first, Fallback: first, Joins: joins})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer session.Gone()
	defer d.pipe.close()
	d.pipe.session = session
	// A Send that waits for its reader is let go by gRPC alone, when the handler returns: so the handler is not who sends.
	sent := make(chan error, 1)
	s.senders.Go(func() { sent <- d.guarded(ss.Context()) })
	select {
	case err := <-sent:
		return err
	case <-d.pipe.shut:
	}
	if d.pipe.why() == closeSlow {
		return errSlow
	}
	return errNotLive
}

// guarded is run for a goroutine whose panic nobody else would stop.
func (d *delivery) guarded(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return d.run(ctx)
}

// starts makes joins of the rooms asked for.
func starts(rooms []*realtimev1.RoomStart) ([]hub.Join, error) {
	switch n := len(rooms); {
	case n == 0:
		return nil, &message.Error{Err: message.ErrInvalid, Field: "rooms", Text: "rooms is empty: name 1 to 1,000 rooms"}
	case n > maxStarts:
		return nil, &message.Error{Err: errTooMany, Field: "rooms", Text: fmt.Sprintf("%d rooms, the limit is %d: open another stream for the rest", n, maxStarts), Limit: maxStarts, Size: n}
	}
	joins := make([]hub.Join, 0, len(rooms))
	seen := make(map[message.Room]struct{}, len(rooms))
	for i, r := range rooms {
		j, err := start(r)
		if err == nil {
			if _, twice := seen[j.Room]; twice {
				err = &message.Error{Err: message.ErrInvalid, Field: "room", Text: "the room is named twice"}
			}
		}
		if err != nil {
			return nil, within(fmt.Sprintf("rooms[%d]", i), err)
		}
		seen[j.Room] = struct{}{}
		joins = append(joins, j)
	}
	return joins, nil
}

// start makes a join of one room. An id of another room's is as good as its time.
func start(r *realtimev1.RoomStart) (hub.Join, error) {
	room := message.Room(r.GetRoom())
	if room != message.Global {
		var err error
		if room, err = message.ParseRoom(r.GetRoom()); err != nil {
			return hub.Join{}, err
		}
	}
	j := hub.Join{Room: room, Frame: subscribed(room)}
	if r.GetAfterId() == "" {
		return j, nil
	}
	id, ok := message.ParseID(r.GetAfterId())
	if !ok {
		return hub.Join{}, &message.Error{Err: errPosition, Field: "after_id", Text: "after_id is not the id of a message or of Subscribed.latest_id: leave it empty to begin now"}
	}
	j.From, j.Resume = hub.From(room, id), true
	return j, nil
}

// keepaliveOf is the silence after which a stream says that it lives.
func keepaliveOf(asked *durationpb.Duration) (time.Duration, error) {
	if asked == nil {
		return defaultKeepalive, nil
	}
	d := asked.AsDuration() // what overflows is cut to what does not
	if asked.CheckValid() != nil || d < minKeepalive || d > maxKeepalive {
		return 0, &message.Error{Err: message.ErrInvalid, Field: "keepalive", Text: "keepalive is 1 s to 10 min: leave it out for 25 s"}
	}
	return d, nil
}
