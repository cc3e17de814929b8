package presence

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Claim is Open for a user who may have at most most sessions, over all nodes; within tells whether he has no more with this
// one. Otherwise it opens none, unless force is set.
//
// It waits only for the Store. While the bus is away, or does not answer in time, only this node's sessions are counted.
func (p *Presence) Claim(ctx context.Context, user string, info []byte, most int, force bool) (s *Session, within bool) {
	now := time.Now().UnixMilli()
	f := Field{User: user}
	p.mu.Lock()
	if u := p.users[user]; u != nil {
		f.State = u.state()
		f.Sessions = u.sessions
	}
	p.claims[user]++ // those under way count: so together they take no more than there is
	f.Sessions += p.claims[user]
	p.mu.Unlock()
	if f.Status == Offline {
		f.Since = now
	}
	f.Status, f.Active, f.Newest, f.Info = Online, now, now, info

	within, err := p.store.Claim(ctx, f, most)
	if err != nil {
		p.log.Debug("a user's sessions on other nodes are not counted", "err", err)
		within = int(f.Sessions) <= most
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claims[user]--; p.claims[user] == 0 {
		delete(p.claims, user)
	}
	if within || force {
		return p.openLocked(user, info), within
	}
	if err != nil { // whether the Store took the field is not known: it gets what is true
		u := p.userNamed(user)
		u.put = true
		p.changedUser(u)
	}
	return nil, false
}

// RoomsOf lists ordinary rooms that each user is in on this node, at most MaxRooms, in the order asked for.
func (p *Presence) RoomsOf(users []string) [][]message.Room {
	rooms := make([][]message.Room, len(users))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range users {
		if u := p.users[id]; u != nil {
			rooms[i] = u.rooms()
		}
	}
	return rooms
}
