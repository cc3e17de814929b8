package edge

import (
	"context"
	"errors"
	"slices"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// maxBatch is how many rooms one subscribe or unsubscribe may name.
const maxBatch = 128

// join is the join of a granted room with its answer; the hub fills in how it went.
func (s *session) join(room message.Room, ref string) hub.Join {
	ops := s.ops(room)
	sees := ops&auth.See != 0 && s.e.cfg.Presence != nil
	f := &frame.Subscribed{Room: room, Ref: ref, Presence: "off", Grants: ops.String()}
	if sees {
		f.Presence, f.Counts = "events", true
	}
	return hub.Join{Room: room, Frame: f, Presence: sees}
}

// subscribe joins rooms and waits until the joins stand, so that no later frame is judged before.
func (s *session) subscribe(ctx context.Context, in frame.In) error {
	wants, err := in.Subscribe(maxBatch)
	if err != nil {
		return err
	}
	if wait, ok := s.use.subscribes.Take(s.e.limits.rates[KindSubscribes], s.e.now(), len(wants)); !ok {
		return s.over(KindSubscribes, wait)
	}
	var joins []hub.Join
	count := 0
	for _, room := range s.h.Rooms() {
		if !s.hasLeft(room) { // the shard may have come to it already, or not
			count++
		}
	}
	for _, w := range wants {
		room, err := s.room(w.Room)
		if err == nil && s.ops(room)&auth.Receive == 0 {
			err = errDenied
		}
		if err == nil && !s.joined(room) {
			if count++; count > s.e.cfg.MaxRooms {
				count, err = count-1, errRoomLimit
			} else if err = s.mayMake(room); err != nil {
				count--
			}
		}
		if err != nil {
			s.fail(w.Room, in.Ref, err)
			continue
		}
		if slices.ContainsFunc(joins, func(j hub.Join) bool { return j.Room == room }) {
			continue // the default room, and its name besides
		}
		j := s.join(room, in.Ref)
		j.From, j.Resume = resumeFrom(room, w.LastID)
		joins = append(joins, j)
	}
	joins = s.permitted(ctx, joins, in.Ref)
	for _, j := range joins {
		s.use.left = slices.DeleteFunc(s.use.left, func(r message.Room) bool { return r == j.Room })
	}
	if len(joins) == 0 {
		return nil
	}
	if err := s.h.Join(ctx, joins); err != nil && !errors.Is(err, hub.ErrClosed) && ctx.Err() == nil {
		return err
	}
	return nil // with ErrClosed there is nobody to answer
}

func (s *session) unsubscribe(in frame.In) error {
	names, err := in.Unsubscribe(maxBatch)
	if err != nil {
		return err
	}
	for _, name := range names {
		room, err := s.room(name)
		if err == nil && !s.joined(room) {
			err = errNotJoined
		}
		if err != nil {
			s.fail(name, in.Ref, err)
			continue
		}
		s.use.left = append(s.use.left, room)
		s.about.displace(room)
		s.h.Leave(room, frame.Unsubscribed{Room: room, Ref: in.Ref, Reason: "requested"}.Append(nil, nowMS()))
	}
	return nil
}

func (s *session) hasLeft(room message.Room) bool { return slices.Contains(s.use.left, room) }
