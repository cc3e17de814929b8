package presence

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/slack5/realtime/internal/message"
)

const (
	// batch is how many users or members are looked at under the lock at once: some 100 µs.
	batch = 256
	// maxChanges and updateBytes bound an Update: what it is rendered into goes to every member of the room.
	maxChanges  = 128
	updateBytes = 32 << 10
	changeBytes = 80 // what a change takes besides user and info
)

// deadline is when something has to be looked at again. Exactly one of its pointers is set.
type deadline struct {
	at     time.Duration
	user   *user
	member *member
	room   *room
}

// deadlines is a heap, the earliest first. What has become void is found out when its time comes.
type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = deadline{}
	*d = (*d)[:last]
	return x
}

func (p *Presence) push(d deadline) {
	heap.Push(&p.deadlines, d)
	if p.deadlines[0] == d {
		p.kick()
	}
}

// timeUser has the user looked at when he is due.
func (p *Presence) timeUser(u *user) {
	if u.timed == 0 || u.due < u.timed {
		u.timed = u.due
		p.push(deadline{at: u.due, user: u})
	}
}

// timeMember has the member looked at when he is due. A deadline he has is never later.
func (p *Presence) timeMember(m *member) {
	if !m.timed {
		m.timed = true
		p.push(deadline{at: m.due, member: m})
	}
}

// timeRoom has the room looked at then.
func (p *Presence) timeRoom(r *room, at time.Duration) {
	if r.timed == 0 || at < r.timed {
		r.timed = at
		p.push(deadline{at: at, room: r})
	}
}

// loop does what is due until ctx ends.
func (p *Presence) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		p.tellWishes()
		p.expire()
		p.refreshAll()
		p.flush()
		timer.Reset(p.rest())
	}
}

// rest is how long nothing is due.
func (p *Presence) rest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.now() + time.Hour
	if p.flushAt != 0 {
		next = min(next, p.flushAt)
	}
	if len(p.deadlines) > 0 {
		next = min(next, p.deadlines[0].at)
	}
	return max(next-p.now(), 0)
}

// tellWishes asks the Store to follow rooms or not, in the order in which that was wanted.
func (p *Presence) tellWishes() {
	p.mu.Lock()
	wishes := p.wishes
	p.wishes = nil
	p.mu.Unlock()
	for _, w := range wishes {
		if w.follow {
			p.store.Follow(w.room)
		} else {
			p.store.Unfollow(w.room)
		}
	}
}

// expire looks at everything whose deadline has come.
func (p *Presence) expire() {
	for more := true; more; {
		more = p.expireSome()
	}
}

func (p *Presence) expireSome() (more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for range batch {
		if len(p.deadlines) == 0 || p.deadlines[0].at > now {
			return false
		}
		switch d := heap.Pop(&p.deadlines).(deadline); {
		case d.user != nil:
			p.expireUser(d.user, d.at, now)
		case d.member != nil:
			p.expireMember(d.member, now)
		default:
			p.expireRoom(d.room, d.at, now)
		}
	}
	return true
}

func (p *Presence) expireUser(u *user, at, now time.Duration) {
	if at == u.timed {
		u.timed = 0
	}
	switch {
	case u.due == 0:
	case u.due > now:
		p.timeUser(u)
	case u.sessions > 0:
		u.due = 0
		u.status = u.best()
		p.changedUser(u)
		p.refresh(u)
	default:
		u.due = 0
		// His members' grace began earlier, if only by nanoseconds: it ends with this round at the latest.
		u.status, u.info = Offline, nil
		p.changedUser(u)
	}
}

func (p *Presence) expireMember(m *member, now time.Duration) {
	m.timed = false
	switch {
	case m.due == 0:
	case m.due > now:
		p.timeMember(m)
	default:
		m.due = 0
		p.changed(m, true)
	}
}

func (p *Presence) expireRoom(r *room, at, now time.Duration) {
	if at == r.timed {
		r.timed = 0
	}
	if r.mode == Counts && r.saidAll != r.all {
		p.queue(r)
	}
	switch {
	case !r.recorded || r.watchers > 0:
	case r.until > now:
		p.timeRoom(r, r.until)
	default:
		r.recorded = false
		p.dropIdle(r)
	}
}

// refreshAll has the members looked at whose users have changed.
func (p *Presence) refreshAll() {
	p.mu.Lock()
	refreshing := p.refreshing
	p.refreshing = nil
	p.mu.Unlock()
	for users := range slices.Chunk(refreshing, batch) {
		p.mu.Lock()
		for _, u := range users {
			u.refreshing = false
			for m := u.members; m != nil; m = m.next {
				p.changed(m, true)
			}
		}
		p.mu.Unlock()
	}
}

// flush tells the Store, the watchers and the rooms' members what has changed, if a tick is over.
func (p *Presence) flush() {
	p.mu.Lock()
	if p.flushAt == 0 || p.flushAt > p.now() {
		p.mu.Unlock()
		return
	}
	p.flushAt = 0
	rooms, users := p.dirtyRooms, p.dirtyUsers
	p.dirtyRooms, p.dirtyUsers = nil, nil
	p.mu.Unlock()
	for us := range slices.Chunk(users, batch) {
		p.flushUsers(us)
	}
	for _, r := range rooms {
		p.flushRoom(r)
	}
}

// flushUsers puts users as they are in the place where everyone is.
func (p *Presence) flushUsers(users []*user) {
	var fields []Field
	p.mu.Lock()
	for _, u := range users {
		u.dirty = false
		if s := u.state(); s.Status != Offline || u.put {
			u.put = s.Status != Offline
			fields = append(fields, Field{User: u.id, State: s})
		}
		if u.status == Offline {
			u.since = 0
		}
		p.forget(u)
	}
	p.everyone.told = p.everyone.version
	totals := p.global
	p.mu.Unlock()
	if len(fields) > 0 {
		p.store.Put(message.Global, fields, totals)
	}
}

// flushRoom puts what has changed of this node's in the room, and tells what has changed over all nodes. Before the room's
// first Roster it only puts: nobody is told of what then turns out to be otherwise.
func (p *Presence) flushRoom(r *room) {
	p.mu.Lock()
	r.queued = false
	dirty := r.dirty
	live := r.waiting == nil
	tell := false
	var numbers *Update
	if live {
		r.dirty = nil
		r.cache.told = r.cache.version
		tell, numbers = p.turn(r)
	}
	p.mu.Unlock()
	if numbers != nil {
		p.emit(r.name, *numbers)
	}
	for ms := range slices.Chunk(dirty, maxChanges) {
		p.flushMembers(r, ms, live, tell)
	}
	p.mu.Lock()
	p.dropIdle(r)
	p.mu.Unlock()
}

// turn decides how the room's members are told: of changes, or by numbers, which are returned if they are due.
func (p *Presence) turn(r *room) (changes bool, numbers *Update) {
	if !r.name.Ordinary() {
		return false, nil
	}
	users, now, was := r.all.Users(), p.now(), r.mode
	switch {
	case was == Events && users > p.cfg.CountsAbove:
		r.mode, r.countsAt = Counts, 0
	case was == Counts && users < p.cfg.CountsBelow:
		r.mode = Events
		numbers = &Update{Mode: Events}
	}
	if r.mode != was {
		p.log.Debug("members of a room are told otherwise", "room", string(r.name), "mode", r.mode.String(), "users", users)
	}
	if r.mode == Counts && (r.mode != was || r.saidAll != r.all) {
		if r.countsAt > now {
			p.timeRoom(r, r.countsAt)
		} else {
			r.saidAll, r.countsAt = r.all, now+p.cfg.CountsEvery
			numbers = &Update{Mode: Counts, Totals: r.all}
		}
	}
	if r.mine.Users() == 0 {
		return false, nil // nobody is here to be told
	}
	return r.mode == Events && was == Events, numbers // behind the way back all is asked anew
}

// flushMembers is flushRoom for some of the members.
func (p *Presence) flushMembers(r *room, ms []*member, live, tell bool) {
	var fields []Field
	var changes []Change
	p.mu.Lock()
	at := time.Now().UnixMilli()
	before := p.recorded
	for _, m := range ms {
		if m.own {
			if s := m.state(); s.Status != Offline || m.put {
				m.put = s.Status != Offline
				fields = append(fields, Field{User: m.user.id, State: s})
			}
			m.own = false
		}
		if live {
			if c, ok := p.announce(m, at); ok && tell {
				changes = append(changes, c)
			}
		}
	}
	if live {
		r.cache.told = r.cache.version
	}
	if p.recorded != before {
		p.spread()
	}
	totals := r.mine
	p.mu.Unlock()
	if len(fields) > 0 && r.name.Ordinary() {
		p.store.Put(r.name, fields, totals)
	}
	for len(changes) > 0 {
		n := fitting(changes)
		p.emit(r.name, Update{Mode: Events, Changes: changes[:n:n]})
		changes = changes[n:]
	}
}

// announce makes what the member is now what was told of him, and returns that if there is a difference.
func (p *Presence) announce(m *member, at int64) (c Change, ok bool) {
	s := m.merged()
	changed := m.differs(s)
	c, ok = Change{User: m.user.id, Status: s.Status, Since: s.Since, Info: s.Info}, changed || m.shown
	m.dirty, m.shown = false, false
	if s.Status == Offline {
		c.Since = at
	}
	if changed {
		p.record(m, s, at)
		m.say(s)
	}
	if m.mine.status == Offline {
		m.since = 0
		if s.Status == Offline {
			p.unlink(m)
		}
	}
	return c, ok
}

// fitting is how many of the changes go into one Update.
func fitting(changes []Change) int {
	size := 0
	for n, c := range changes {
		size += changeBytes + 2*len(c.User) + len(c.Info) // a user id may be all quotes
		if n > 0 && size > updateBytes {
			return n
		}
	}
	return len(changes)
}
