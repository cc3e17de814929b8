package edge

import (
	"context"
	"errors"
	"slices"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// maxBatch is how many rooms one subscribe or unsubscribe may name.
const maxBatch = 128

// allGrants is what every session may do until tokens say otherwise.
const allGrants = "rwph"

// subscribed is the answer to a join; the hub fills in how it went.
func subscribed(room message.Room, ref string) *frame.Subscribed {
	return &frame.Subscribed{Room: room, Ref: ref, Presence: "off", Grants: allGrants}
}

// subscribe joins rooms and waits until the joins stand, so that no later frame is judged before.
func (s *session) subscribe(ctx context.Context, in frame.In) error {
	wants, err := in.Subscribe(maxBatch)
	if err != nil {
		return err
	}
	var joins []hub.Join
	count := s.h.RoomCount() - len(s.use.left)
	for _, w := range wants {
		room, err := s.room(w.Room)
		if err == nil && !s.joined(room) {
			if count++; count > s.e.cfg.MaxRooms {
				count, err = count-1, errRoomLimit
			}
		}
		if err != nil {
			s.fail(w.Room, in.Ref, err)
			continue
		}
		if slices.ContainsFunc(joins, func(j hub.Join) bool { return j.Room == room }) {
			continue // the default room, and its name besides
		}
		from, resume := resumeFrom(room, w.LastID)
		joins = append(joins, hub.Join{Room: room, From: from, Resume: resume, Frame: subscribed(room, in.Ref), Presence: true})
		s.use.left = slices.DeleteFunc(s.use.left, func(r message.Room) bool { return r == room })
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
		s.h.Leave(room, frame.Unsubscribed{Room: room, Ref: in.Ref, Reason: "requested"}.Append(nil, nowMS()))
	}
	return nil
}

func (s *session) hasLeft(room message.Room) bool { return slices.Contains(s.use.left, room) }
