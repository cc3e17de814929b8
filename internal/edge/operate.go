package edge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// pageBytes bounds what a node answers to one question about sessions, about; the first session is never too large.
const pageBytes = 512 << 10

const (
	sessionBytes  = 320 // what a session takes in an answer besides what differs
	positionBytes = 80  // and a room of it
)

// Sessions returns sessions by id; more tells whether others follow.
func (e *Edge) Sessions(ctx context.Context, q control.Query) (list []control.Session, more bool, err error) {
	found := e.find(func(s *session) bool {
		return s.h.ID > q.After && (q.User == "" || s.h.User == q.User) && (q.Session == "" || s.h.ID == q.Session) &&
			(q.Room == "" || s.h.Joined(q.Room))
	})
	slices.SortFunc(found, func(a, b *session) int { return cmp.Compare(a.h.ID, b.h.ID) })
	if more = len(found) > q.Limit; more {
		found = found[:max(q.Limit, 0)]
	}
	if q.Brief {
		for _, s := range found {
			list = append(list, control.Session{ID: s.h.ID, User: s.h.User, Connected: s.about.began})
		}
		return list, more, nil
	}
	hs := make([]*hub.Session, len(found))
	for i, s := range found {
		hs[i] = s.h
	}
	where, err := e.hub.Where(ctx, hs)
	if err != nil {
		return nil, false, fmt.Errorf("where sessions stand: %w", err)
	}
	size := 0
	for i, s := range found {
		if where[i].Ended {
			continue
		}
		size += sessionBytes + len(s.h.User) + len(s.about.agent.Value())
		for _, p := range where[i].Places {
			size += positionBytes + len(p.Room)
		}
		if size > pageBytes && len(list) > 0 {
			return list, true, nil
		}
		list = append(list, s.tell(where[i]))
	}
	return list, more && len(list) > 0, nil
}

// tell describes the session.
func (s *session) tell(w hub.Whereabouts) control.Session {
	c := control.Session{
		ID: s.h.ID, User: s.h.User, Connected: s.about.began, Address: s.about.address, Agent: s.about.agent.Value(),
		LastSeen: max(s.e.wheel.time(tick(s.seen.Load())).UnixMilli(), s.about.began), BlockedSince: w.BlockedSince,
	}
	if t := s.about.token.Load(); t != nil {
		c.Expires = unixMS(t.expires)
	}
	for _, p := range w.Places {
		c.Rooms = append(c.Rooms, control.Room{Room: p.Room, Position: p.Position.String(), Lag: p.Lag})
	}
	slices.SortFunc(c.Rooms, func(a, b control.Room) int { return cmp.Compare(a.Room, b.Room) })
	return c
}

// find returns the open sessions that fit.
func (e *Edge) find(fits func(*session) bool) []*session {
	return slices.DeleteFunc(e.wheel.all(), func(s *session) bool { return s.closing.Load() || !fits(s) })
}

func (e *Edge) ofUser(user string) []*session {
	return e.find(func(s *session) bool { return s.h.User == user })
}

// Disconnect closes sessions.
func (e *Edge) Disconnect(d control.Disconnect) (done control.Disconnected) {
	named := make(map[string]bool, len(d.Sessions))
	for _, id := range d.Sessions {
		named[id] = true
	}
	for _, s := range e.wheel.all() {
		if d.User != "" && s.h.User != d.User || d.User == "" && !named[s.h.ID] {
			continue
		}
		done.Found++
		if !slices.Contains(d.Except, s.h.ID) && s.close(CloseCode(d.Code), d.Reason) {
			done.Closed++
		}
	}
	return done
}

// EndRevoked closes the sessions whose tokens Config.Revoked says are revoked.
func (e *Edge) EndRevoked() (ended int) {
	for _, s := range e.wheel.all() {
		if s.revoked() && s.close(CloseRevoked, "") {
			ended++
		}
	}
	return ended
}

// Join puts a user's sessions into rooms, whatever their grants, and returns how many are in all of them. It waits for rooms to
// be live, until ctx ends.
func (e *Edge) Join(ctx context.Context, p control.Placing) (sessions int) {
	for _, s := range e.ofUser(p.User) {
		if s.place(ctx, p.Rooms) {
			sessions++
		}
	}
	return sessions
}

// place joins rooms as an operator wants it: all or, if they are too many, none.
func (s *session) place(ctx context.Context, rooms []message.Room) bool {
	if s.h.AwaitJoins(ctx) != nil {
		return false
	}
	n := len(s.h.Rooms())
	var joins []hub.Join
	for _, room := range rooms {
		if s.h.Joined(room) || slices.ContainsFunc(joins, func(j hub.Join) bool { return j.Room == room }) {
			continue
		}
		j := s.join(room, "")
		j.Frame.ByServer, j.Frame.Grants = true, (s.ops(room) | auth.Receive).String()
		joins = append(joins, j)
	}
	if n+len(joins) > s.e.cfg.MaxRooms {
		return false
	}
	s.about.place(rooms) // before it is there: a token that comes meanwhile must not take it out
	return len(joins) == 0 || s.h.Join(ctx, joins) == nil
}

// Leave takes a user's sessions out of rooms and returns how many sessions he has.
func (e *Edge) Leave(p control.Placing) (sessions int) {
	for _, s := range e.ofUser(p.User) {
		sessions++
		for _, room := range p.Rooms {
			s.about.displace(room)
			if s.h.Joined(room) {
				s.h.Leave(room, frame.Unsubscribed{Room: room, Reason: "operator"}.Append(nil, nowMS()))
			}
		}
	}
	return sessions
}

// time is when a tick began.
func (w *wheel) time(t tick) time.Time { return w.started.Add(time.Duration(t-1) * w.unit) }
