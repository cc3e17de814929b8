package presence

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

const (
	// partUsers is how many users a part of a snapshot has at most.
	partUsers = 500
	// nextEvents is how many changes Next returns at most, and lookAhead how many it looks through under the lock at once.
	nextEvents = 500
	lookAhead  = 1024
)

// Kind is what an Event tells.
type Kind uint8

// The kinds of events.
const (
	Snapshot Kind = iota // who is there
	Joined               // a user has appeared
	Left                 // he is gone, and the grace is over
	Changed              // status, info or since
)

// Event is what a watcher is told.
type Event struct {
	Kind Kind
	Room message.Room // "" if users are watched
	// Users are those of this part of the snapshot, or the one who has changed, as he is now. Nobody changes them.
	Users []User
	// First and Last part of the whole snapshot. First: forget what you know.
	First, Last bool
	Time        int64 // of the change, Unix ms
	// Token resumes behind this event; "": nothing can be resumed here.
	Token string
}

// Target is what to watch: rooms, or users in whatever room. Exactly one of them is set.
type Target struct {
	Rooms []message.Room // ordinary ones
	Users []string
}

// record is a change of a watched place.
type record struct {
	room message.Room
	kind Kind
	user User
	time int64
}

// Watch follows places. It is a position in the node's recent changes and queues nothing: one that is too far behind gets
// a new snapshot. It is for one goroutine.
type Watch struct {
	p      *Presence
	users  bool
	places []message.Room // sorted
	key    uint64         // of places
	closed bool

	at     uint64                  // the number of the next change to look at
	known  map[message.Room]uint64 // changes below these were in the snapshot
	exact  uint64                  // the greatest of those: from here on a position says it all
	next   int                     // the place whose part of the snapshot comes next; all: the snapshot is through
	first  bool                    // no part was returned yet
	rest   []User                  // users of the place before next that were not returned yet
	behind bool                    // a snapshot has to begin
}

// Watch begins to watch. With the token of an event of an earlier Watch of the same target it goes on behind that event, if
// this node still can; else, as without, a snapshot comes first. The Watch must be closed.
func (p *Presence) Watch(target Target, token string) *Watch {
	w := &Watch{p: p, users: len(target.Users) > 0, known: make(map[message.Room]uint64), behind: true}
	w.places = slices.Clone(target.Rooms)
	for _, u := range target.Users {
		w.places = append(w.places, message.UserRoom(u))
	}
	slices.Sort(w.places)
	w.places = slices.Compact(w.places)
	w.key = keyOf(w.places)
	at, ok := p.position(token, w.key)
	p.mu.Lock()
	defer p.mu.Unlock()
	ok = ok && p.recorded-at <= uint64(len(p.recent)) // a number that was never given wraps around
	begins := false
	for _, name := range w.places {
		r := p.rooms[name]
		ok = ok && r != nil && r.recorded && r.from <= at
		begins = begins || r == nil || !r.recorded
	}
	if begins {
		p.note(record{}) // so that every token given so far is before what is recorded from now on
	}
	for _, name := range w.places {
		p.watch(name)
	}
	if ok {
		w.behind = false
		w.at, w.exact, w.next = at, at, len(w.places)
	}
	return w
}

// watch has a place followed and recorded.
func (p *Presence) watch(name message.Room) {
	isNew := p.rooms[name] == nil
	r := p.roomNamed(name)
	r.watchers++
	if !r.recorded {
		r.recorded, r.from = true, p.recorded
	}
	if id, ok := name.User(); ok && isNew {
		if u := p.users[id]; u != nil {
			p.changed(p.memberOf(r, u), true)
		}
	}
}

// Close ends the Watch. It may be called more than once.
func (w *Watch) Close() {
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	for _, name := range w.places {
		r := p.rooms[name]
		r.watchers--
		if r.watchers == 0 {
			r.until = p.now() + p.cfg.Linger
			p.timeRoom(r, r.until)
		}
	}
}

// Next waits for events and returns some: parts of a snapshot, then changes in order. Its error is ctx's, or ErrClosed when
// Run has ended or the Watch is closed.
func (w *Watch) Next(ctx context.Context) ([]Event, error) {
	for {
		events, wait := w.look()
		switch {
		case len(events) > 0:
			return events, nil
		case w.closed:
			return nil, ErrClosed
		case wait == nil: // there is more to look at
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.p.done:
			return nil, ErrClosed
		}
	}
}

// look returns what there is. If that is nothing, wait is closed when there may be more; nil means at once.
func (w *Watch) look() (events []Event, wait <-chan struct{}) {
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.closed {
		return nil, nil
	}
	if w.behind || p.recorded-w.at > uint64(len(p.recent)) {
		w.behind = false
		w.at, w.exact, w.next, w.first, w.rest = p.recorded, 0, 0, true, nil
	}
	if w.next < len(w.places) || len(w.rest) > 0 {
		part, ok := w.part()
		if !ok {
			return nil, p.awaitNews()
		}
		return []Event{part}, nil
	}
	for range lookAhead {
		if w.at == p.recorded {
			break
		}
		c := &p.recent[w.at%uint64(p.cfg.Recent)]
		w.at++
		if _, ours := slices.BinarySearch(w.places, c.room); !ours || w.at <= w.known[c.room] {
			continue
		}
		events = append(events, w.event(c))
		if len(events) == nextEvents {
			break
		}
	}
	if len(events) == 0 && w.at == p.recorded {
		return nil, p.awaitNews()
	}
	return events, nil
}

// event is the change behind which w.at stands.
func (w *Watch) event(c *record) Event {
	e := Event{Kind: c.kind, Room: c.room, Users: []User{c.user}, Time: c.time, Token: w.token()}
	if w.users {
		e.Room = ""
	}
	return e
}

// part returns the next part of the snapshot; not ok: a place's roster has not come yet.
func (w *Watch) part() (e Event, ok bool) {
	if w.users {
		for n := 0; w.next < len(w.places) && n < partUsers; n++ {
			if !w.take() {
				if n == 0 {
					return Event{}, false
				}
				break
			}
		}
	} else {
		if len(w.rest) == 0 && !w.take() {
			return Event{}, false
		}
		e.Room = w.places[w.next-1]
	}
	n := min(len(w.rest), partUsers)
	e.Users, w.rest = w.rest[:n:n], w.rest[n:]
	e.First, w.first = w.first, false
	if e.Last = w.next == len(w.places) && len(w.rest) == 0; e.Last {
		e.Token = w.token()
	}
	return e, true
}

// take adds the next place to the snapshot: what was told of it so far, so that what is recorded from now on follows it.
func (w *Watch) take() bool {
	p := w.p
	name := w.places[w.next]
	r := p.rooms[name]
	if r.waiting != nil {
		return false
	}
	for _, m := range r.members {
		if m.said != Offline {
			s := m.merged()
			s.Status, s.Since, s.Info = m.said, m.saidSince, m.saidInfo
			w.rest = append(w.rest, User{m.user.id, s})
		}
	}
	w.known[name], w.exact = p.recorded, p.recorded
	w.next++
	return true
}

// record notes a change of a watched place.
func (p *Presence) record(m *member, s State, at int64) {
	if !m.room.recorded {
		return
	}
	c := record{room: m.room.name, kind: Changed, user: User{m.user.id, s}, time: at}
	switch {
	case m.said == Offline:
		c.kind = Joined
	case s.Status == Offline:
		c.kind = Left
		c.user.Since, c.user.Info = m.saidSince, m.saidInfo
	}
	p.note(c)
}

// note adds a record to the recent ones.
func (p *Presence) note(c record) {
	if len(p.recent) < p.cfg.Recent { // then none was overwritten yet
		p.recent = append(p.recent, c)
	} else {
		p.recent[p.recorded%uint64(p.cfg.Recent)] = c
	}
	p.recorded++
}

// awaitNews returns what spread closes.
func (p *Presence) awaitNews() <-chan struct{} {
	if p.news == nil {
		p.news = make(chan struct{})
	}
	return p.news
}

// spread wakes the watchers.
func (p *Presence) spread() {
	if p.news != nil {
		close(p.news)
		p.news = nil
	}
}

// token is w's position, if it says all: not while places of the snapshot are at different ones.
func (w *Watch) token() string {
	if w.at < w.exact {
		return ""
	}
	return w.p.boot + "." + strconv.FormatUint(w.key, 36) + "." + strconv.FormatUint(w.at, 36)
}

// position reads a token of this node for the places with that key.
func (p *Presence) position(token string, key uint64) (uint64, bool) {
	at, ok := strings.CutPrefix(token, p.boot+"."+strconv.FormatUint(key, 36)+".")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(at, 36, 64)
	return n, err == nil
}

// keyOf is a hash of names.
func keyOf(names []message.Room) uint64 {
	h := fnv.New64a()
	for _, name := range names {
		h.Write(append([]byte(name), 0))
	}
	return h.Sum64()
}
