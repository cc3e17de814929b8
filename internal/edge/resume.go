package edge

import (
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// resumePoints tells from the ids of a URL where each of the session's rooms goes on.
type resumePoints struct {
	rooms  []message.Room // those of the session, its user's and Global included
	ids    []message.ID
	newest message.Position
}

func newResumePoints(ids []message.ID, rooms []message.Room) resumePoints {
	p := resumePoints{rooms: rooms, ids: ids}
	for _, id := range ids {
		p.newest = max(p.newest, id.Position)
	}
	return p
}

// of returns the id from which room is replayed; false: it begins now. An id whose tag is the room's positions it exactly.
// Of several the oldest counts: tags are 13 bits, so one may be another room's, and to repeat is better than to lose.
// With ids for other rooms only, the newest positions it inexactly.
func (p resumePoints) of(room message.Room) (from message.ID, ok bool) {
	if len(p.ids) == 0 {
		return message.ID{}, false
	}
	tag := room.Tag()
	for _, id := range p.ids {
		if id.Low.Tag() == tag && (from.IsZero() || id.Position < from.Position) {
			from = id
		}
	}
	if from.IsZero() {
		from = message.ID{Position: p.newest.Before(hub.Inexact)}
	}
	return from, true
}

// resumeFrom is the same for the one id that came with a room in a subscribe frame. What is no id means "from now".
func resumeFrom(room message.Room, lastID string) (from message.ID, ok bool) {
	id, ok := message.ParseID(lastID)
	if !ok {
		return message.ID{}, false
	}
	return hub.From(room, id), true
}
