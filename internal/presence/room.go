package presence

import (
	"bytes"
	"slices"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// user is someone with sessions here, or who is in a followed place by another node's field. What he is on this node is the
// same in all rooms but for when he came and with how many sessions.
type user struct {
	id      string
	first   *Session // the newest of his sessions
	members *member  // the first of the places he is in
	active  atomic.Int64
	told    atomic.Int64  // the active that other nodes were last told of
	since   int64         // when the first of his sessions began; 0: he has none
	newest  int64         // when first began, also when it has ended
	info    []byte        // of first, also when it has ended
	due     time.Duration // with sessions: when a status that differs is told; without: when the grace ends; 0: neither
	timed   time.Duration // the earliest deadline there is of him; 0: none

	sessions int32
	away     int32 // of the sessions
	tally    tally // in Presence.global
	status   Status

	dirty, put, refreshing bool
}

// place is where a member is found.
type place struct {
	room *room
	user *user
}

// member is a user in a place, over all nodes.
type member struct {
	user *user
	room *room
	next *member // the user's next

	// Of no use in a user's own room.
	since    int64         // when he came here, on this node; 0: he is not
	due      time.Duration // when the grace ends; 0: none runs
	sessions int32         // on this node

	index int32 // in room.members
	mine  tally // in room.mine
	all   tally // in room.all

	// What was told last.
	saidSince int64
	saidInfo  []byte
	said      Status

	dirty bool // it is in room.dirty, or in the part of it that is being told
	own   bool // this node's field changed
	put   bool // the store has a field of this node
	shown bool // a roster showed him otherwise than was told: telling must not be saved
	timed bool // there is a deadline of him
}

// room is a place that somebody here is in or watches.
type room struct {
	name    message.Room
	members []*member
	others  map[*user][]Field // of other nodes
	mine    Totals            // of this node
	all     Totals            // over all nodes
	cache   cache
	waiting chan struct{} // closed and nil when the first Roster has come: before it nothing is told
	dirty   []*member
	queued  bool          // it is in dirtyRooms
	timed   time.Duration // the earliest deadline there is of it; 0: none

	mode     Mode
	saidAll  Totals        // in Counts: what was told last
	countsAt time.Duration // and when it may be told again

	watchers int
	until    time.Duration // without watchers: how long changes are recorded
	recorded bool          // changes are
	from     uint64        // since this number, all of them
}

// tally is what somebody counts for in Totals.
type tally struct {
	sessions int32
	status   Status
}

// move counts s for what was counted.
func (t *Totals) move(was *tally, s State) {
	t.add(*was, -1)
	*was = tally{s.Sessions, s.Status}
	t.add(*was, 1)
}

func (t *Totals) add(of tally, sign int) {
	switch of.status {
	case Online:
		t.Online += sign
	case Away:
		t.Away += sign
	}
	t.Sessions += sign * int(of.sessions)
}

// state is the user on this node, in whatever room.
func (u *user) state() State {
	s := State{Active: u.active.Load()}
	if u.status != Offline {
		s.Status, s.Sessions, s.Since, s.Newest, s.Info = u.status, u.sessions, u.since, u.newest, u.info
	}
	return s
}

// state is the member on this node. In his own room a user is wherever he is.
func (m *member) state() State {
	s := m.user.state()
	if !m.room.name.Ordinary() {
		return s
	}
	if s.Status == Offline || m.sessions == 0 && m.due == 0 {
		return State{Active: s.Active}
	}
	s.Sessions, s.Since = m.sessions, m.since
	return s
}

// elsewhere is the member on other nodes.
func (m *member) elsewhere() (s State) {
	for _, f := range m.room.others[m.user] {
		s = s.With(f.State)
	}
	return s
}

// merged is the member over all nodes.
func (m *member) merged() State { return m.state().With(m.elsewhere()) }

// differs tells whether what members see of s is not what was told last.
func (m *member) differs(s State) bool {
	return s.Status != m.said || s.Status != Offline && (s.Since != m.saidSince || !bytes.Equal(s.Info, m.saidInfo))
}

// say notes that s was told.
func (m *member) say(s State) {
	m.said, m.saidSince, m.saidInfo = s.Status, s.Since, s.Info
}

// userNamed returns the user, made if need be.
func (p *Presence) userNamed(id string) *user {
	u := p.users[id]
	if u == nil {
		u = &user{id: id}
		p.users[id] = u
	}
	return u
}

// roomNamed returns the room, made and followed if need be.
func (p *Presence) roomNamed(name message.Room) *room {
	r := p.rooms[name]
	if r == nil {
		r = &room{name: name, waiting: make(chan struct{})}
		p.rooms[name] = r
		if !name.Ordinary() {
			p.watched++
		}
		p.wishes = append(p.wishes, wish{name, true})
		p.kick()
	}
	return r
}

// memberOf returns the user's member, made if need be.
func (p *Presence) memberOf(r *room, u *user) *member {
	m := p.members[place{r, u}]
	if m == nil {
		m = &member{user: u, room: r, next: u.members, index: int32(len(r.members))}
		u.members = m
		r.members = append(r.members, m)
		p.members[place{r, u}] = m
	}
	return m
}

// unlink forgets a member who is nowhere, and with him his user if nothing else is known of him.
func (p *Presence) unlink(m *member) {
	r, u := m.room, m.user
	delete(p.members, place{r, u})
	delete(r.others, u)
	last := len(r.members) - 1
	r.members[m.index] = r.members[last]
	r.members[m.index].index = m.index
	r.members[last] = nil
	r.members = r.members[:last]
	at := &u.members
	for *at != m {
		at = &(*at).next
	}
	*at = m.next
	p.forget(u)
}

func (p *Presence) forget(u *user) {
	if u.status == Offline && u.members == nil && !u.dirty {
		delete(p.users, u.id)
	}
}

// dropIdle forgets a room that nobody here is in or watches. Others' fields go with it.
func (p *Presence) dropIdle(r *room) {
	inUse := r.name.Ordinary() && r.mine.Users() > 0 || r.watchers > 0 || r.recorded
	if inUse || r.queued || len(r.dirty) > 0 || p.rooms[r.name] != r {
		return
	}
	for len(r.members) > 0 {
		p.unlink(r.members[len(r.members)-1])
	}
	delete(p.rooms, r.name)
	if !r.name.Ordinary() {
		p.watched--
	}
	if r.waiting != nil {
		close(r.waiting)
	}
	p.wishes = append(p.wishes, wish{r.name, false})
	p.kick()
}

// changed is called behind every change of a member: it counts him anew and has him told with the next tick. own: it was
// this node's field that changed.
func (p *Presence) changed(m *member, own bool) {
	r := m.room
	if own {
		r.mine.move(&m.mine, m.state())
		m.own = true
	}
	r.all.move(&m.all, m.merged())
	r.cache.version++
	if !m.dirty {
		m.dirty = true
		r.dirty = append(r.dirty, m)
	}
	p.queue(r)
}

// changedUser is called behind every change of a user, for the place that everyone is in and his own room.
func (p *Presence) changedUser(u *user) {
	p.global.move(&u.tally, u.state())
	p.everyone.version++
	if !u.dirty {
		u.dirty = true
		p.dirtyUsers = append(p.dirtyUsers, u)
	}
	p.schedule()
	if p.watched > 0 {
		if r := p.rooms[message.UserRoom(u.id)]; r != nil {
			p.changed(p.memberOf(r, u), true)
		}
	}
}

// queue has a room told with the next tick.
func (p *Presence) queue(r *room) {
	if !r.queued {
		r.queued = true
		p.dirtyRooms = append(p.dirtyRooms, r)
	}
	p.schedule()
}

func (p *Presence) schedule() {
	if p.flushAt == 0 {
		p.flushAt = p.now() + p.cfg.Coalesce
		p.kick()
	}
}

// refresh has all places of a user look at him again, soon and not by the caller.
func (p *Presence) refresh(u *user) {
	if u.members != nil && !u.refreshing {
		u.refreshing = true
		p.refreshing = append(p.refreshing, u)
		p.kick()
	}
}

// setOther sets, or takes away, another node's field of a user.
func (p *Presence) setOther(r *room, f Field) {
	u := p.users[f.User]
	if u == nil {
		if f.Status == Offline {
			return
		}
		u = p.userNamed(f.User)
	}
	fields := r.others[u]
	at := slices.IndexFunc(fields, func(o Field) bool { return o.Node == f.Node })
	switch {
	case f.Status == Offline && at < 0:
		return
	case f.Status == Offline:
		fields = slices.Delete(fields, at, at+1)
	case at < 0:
		fields = append(fields, f)
	default:
		fields[at] = f
	}
	p.setOthers(r, u, fields)
}

// setOthers sets all other nodes' fields of a user.
func (p *Presence) setOthers(r *room, u *user, fields []Field) {
	if len(fields) == 0 {
		delete(r.others, u)
	} else {
		if r.others == nil {
			r.others = make(map[*user][]Field)
		}
		r.others[u] = fields
	}
	p.changed(p.memberOf(r, u), false)
}
