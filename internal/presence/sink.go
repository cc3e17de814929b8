package presence

import "github.com/slack5/realtime/internal/message"

// sink takes what the Store has for a Presence.
type sink struct{ p *Presence }

var _ Sink = sink{}

// Roster implements Sink. The first of a room is what its members find there, nobody is told of it; what a later one has
// otherwise was missed, and is told.
func (k sink) Roster(name message.Room, fields []Field) {
	p := k.p
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rooms[name]
	if r == nil {
		return
	}
	was := r.others
	r.others = nil
	for _, f := range fields {
		p.setOther(r, f)
	}
	for u := range was {
		if len(r.others[u]) == 0 {
			p.changed(p.memberOf(r, u), false)
		}
	}
	if r.waiting == nil {
		return
	}
	for _, m := range r.members {
		if name.Ordinary() {
			m.say(m.elsewhere())
		} else {
			m.say(m.merged()) // only watchers are told of it, and they have no snapshot yet
		}
	}
	close(r.waiting)
	r.waiting = nil
	p.queue(r)
	p.spread()
}

// Changed implements Sink.
func (k sink) Changed(name message.Room, fields []Field) {
	p := k.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rooms[name]; r != nil {
		for _, f := range fields {
			p.setOther(r, f)
		}
	}
}

// Gone implements Sink.
func (k sink) Gone(node string) {
	p := k.p
	p.log.Info("the users of another node are gone with it", "node", node)
	for _, r := range p.allRooms() {
		p.mu.Lock()
		for u := range r.others {
			p.setOther(r, Field{Node: node, User: u.id})
		}
		p.mu.Unlock()
	}
}

// Again implements Sink.
func (k sink) Again() {
	p := k.p
	p.mu.Lock()
	for _, u := range p.users {
		if u.status != Offline {
			p.changedUser(u)
		}
	}
	p.mu.Unlock()
	for _, r := range p.allRooms() {
		p.mu.Lock()
		for _, m := range r.members {
			if m.mine.status != Offline {
				p.changed(m, true)
			}
		}
		p.mu.Unlock()
	}
}

func (p *Presence) allRooms() []*room {
	p.mu.Lock()
	defer p.mu.Unlock()
	rooms := make([]*room, 0, len(p.rooms))
	for _, r := range p.rooms {
		rooms = append(rooms, r)
	}
	return rooms
}
