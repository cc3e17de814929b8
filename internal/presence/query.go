package presence

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

// MaxRooms is how many of a user's rooms RoomsOf lists.
const MaxRooms = 100

// smallRoom is up to how many users a roster is read as it is now: that costs some ten microseconds. A larger one is built at
// most twice a tick.
const smallRoom = 100

// User is a user in a room, merged over his sessions and over nodes.
type User struct {
	ID string
	State
}

// Roster is who is in a room. Nobody changes it.
type Roster struct {
	Users []User // by ID
	Totals
	Freshness
}

// After are the users whose ids follow one; "": all.
func (r *Roster) After(id string) []User {
	at := 0
	if id != "" {
		at, _ = slices.BinarySearchFunc(r.Users, id+"\x00", func(u User, id string) int { return strings.Compare(u.ID, id) })
	}
	return r.Users[at:]
}

// UserStatus is a user in whatever room.
type UserStatus struct {
	ID       string
	Status   Status
	LastSeen int64 // Unix ms; 0: not known
	Sessions int
}

// cache is a roster that was built.
type cache struct {
	roster  *Roster
	of      uint64 // the version it is of
	version uint64 // counts changes
	told    uint64 // the version of the last tick, of which members know: no roster may be older
}

// Count is how many users and sessions are in a room of this node, over all nodes. A room that nobody here is in or watches
// has none.
func (p *Presence) Count(name message.Room) (users, sessions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == message.Global {
		return p.global.Users(), p.global.Sessions
	}
	if r := p.rooms[name]; r != nil {
		return r.all.Users(), r.all.Sessions
	}
	return 0, 0
}

// Mode is how members of the room are told of it. One who asks when he is a member already misses no change of it.
func (p *Presence) Mode(name message.Room) Mode {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rooms[name]; r != nil {
		return r.mode
	}
	return Events
}

// Room returns who is in an ordinary room or message.Global, over all nodes. It is never older than what was emitted before
// the call, nor, but for rooms of many users, than the call itself; what is emitted afterwards applies to it.
//
// Of a room in which nobody here is it asks the Store. It waits only for that.
func (p *Presence) Room(ctx context.Context, name message.Room) (*Roster, error) {
	var roster *Roster
	if name != message.Global {
		r, err := p.await(ctx, name)
		if err != nil {
			return nil, err
		}
		if r != nil {
			roster = p.read(&r.cache, func() []User { return usersOf(r) })
			return p.dated(roster), nil
		}
	} else {
		roster = p.read(&p.everyone, p.connected)
	}
	fields, err := p.store.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(fields) > 0 || roster == nil {
		roster = newRoster(mergedWith(roster, fields))
	}
	return p.dated(roster), nil
}

// await returns the room when the others' fields of it are known, or nil if nobody here is in it.
func (p *Presence) await(ctx context.Context, name message.Room) (*room, error) {
	for {
		p.mu.Lock()
		r := p.rooms[name]
		if r == nil || r.waiting == nil {
			p.mu.Unlock()
			return r, nil
		}
		waiting := r.waiting
		p.mu.Unlock()
		select {
		case <-waiting:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.done:
			return nil, ErrClosed
		}
	}
}

// dated is the roster, which says if it is what was last known.
func (p *Presence) dated(r *Roster) *Roster {
	if !p.store.Stale() {
		return r
	}
	old := *r
	old.Stale = true
	return &old
}

// read returns the roster in c, or a new one of what list returns under the lock.
func (p *Presence) read(c *cache, list func() []User) *Roster {
	if r := p.cached(c); r != nil {
		return r
	}
	p.building.Lock()
	defer p.building.Unlock()
	if r := p.cached(c); r != nil { // another has built it
		return r
	}
	p.mu.Lock()
	users, version := list(), c.version
	p.mu.Unlock()
	r := newRoster(users)
	p.mu.Lock()
	c.roster, c.of = r, version
	p.mu.Unlock()
	return r
}

func (p *Presence) cached(c *cache) *Roster {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := c.roster
	if r == nil || c.of < c.told || c.of < c.version && len(r.Users) <= smallRoom {
		return nil
	}
	return r
}

// usersOf lists a room's users. Whom it shows otherwise than was told must be told of with the next tick, even if by then it
// has come to nothing.
func usersOf(r *room) []User {
	users := make([]User, 0, r.all.Users())
	for _, m := range r.members {
		s := m.merged()
		if m.differs(s) {
			m.shown = true
		}
		if s.Status != Offline {
			users = append(users, User{m.user.id, s})
		}
	}
	return users
}

// connected lists this node's users.
func (p *Presence) connected() []User {
	users := make([]User, 0, p.global.Users())
	for _, u := range p.users {
		if u.status != Offline {
			users = append(users, User{u.id, u.state()})
		}
	}
	return users
}

// newRoster sorts the users, which are its own now.
func newRoster(users []User) *Roster {
	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.ID, b.ID) })
	r := &Roster{Users: users}
	for _, u := range users {
		r.add(tally{u.Sessions, u.Status}, 1)
	}
	return r
}

// mergedWith is who is in the roster, which may be nil, or in the fields.
func mergedWith(r *Roster, fields []Field) []User {
	states := make(map[string]State)
	if r != nil {
		for _, u := range r.Users {
			states[u.ID] = u.State
		}
	}
	for _, f := range fields {
		states[f.User] = states[f.User].With(f.State)
	}
	users := make([]User, 0, len(states))
	for id, s := range states {
		if s.Status != Offline {
			users = append(users, User{id, s})
		}
	}
	return users
}

// Counts returns how many are in each room (or message.Global), in the order asked for.
func (p *Presence) Counts(ctx context.Context, rooms []message.Room) ([]Totals, Freshness, error) {
	totals := make([]Totals, len(rooms))
	fresh := Freshness{Stale: p.store.Stale()}
	var asked []int // indices of what the Store knows, or also knows
	p.mu.Lock()
	for i, name := range rooms {
		r := p.rooms[name]
		switch {
		case name == message.Global:
			totals[i] = p.global
			asked = append(asked, i)
		case r == nil || r.waiting != nil:
			if r != nil {
				totals[i] = r.mine
			}
			asked = append(asked, i)
		default:
			totals[i] = r.all
		}
	}
	p.mu.Unlock()
	if len(asked) == 0 {
		return totals, fresh, nil
	}
	names := make([]message.Room, len(asked))
	for i, at := range asked {
		names[i] = rooms[at]
	}
	others, err := p.store.Count(ctx, names)
	if err != nil {
		return nil, Freshness{}, err
	}
	for i, at := range asked {
		fresh.Approximate = fresh.Approximate || others[i] != Totals{}
		totals[at] = totals[at].plus(others[i])
	}
	return totals, fresh, nil
}

// Users returns how each user is, in the order asked for.
func (p *Presence) Users(ctx context.Context, ids []string) ([]UserStatus, Freshness, error) {
	own := make([]State, len(ids))
	found := make([]UserStatus, len(ids))
	p.mu.Lock()
	for i, id := range ids {
		found[i].ID = id
		if u := p.users[id]; u != nil {
			own[i] = u.state()
		}
	}
	p.mu.Unlock()
	others, err := p.store.Users(ctx, ids)
	if err != nil {
		return nil, Freshness{}, err
	}
	for i := range found {
		s := own[i].With(others[i].State)
		found[i].Status, found[i].Sessions = s.Status, int(s.Sessions)
		found[i].LastSeen = max(own[i].Active, others[i].Active, others[i].Last)
	}
	return found, Freshness{Stale: p.store.Stale()}, nil
}

// rooms are those the user is in on this node.
func (u *user) rooms() []message.Room {
	var rooms []message.Room
	for m := u.members; m != nil && len(rooms) < MaxRooms; m = m.next {
		if m.mine.status != Offline && m.room.name.Ordinary() {
			rooms = append(rooms, m.room.name)
		}
	}
	slices.Sort(rooms)
	return rooms
}

// Rooms lists ordinary rooms with users, by name: those that begin with prefix and lie behind after, at most limit.
func (p *Presence) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	rooms, err := p.store.Rooms(ctx, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	rooms = slices.Clone(rooms)
	p.mu.Lock()
	for name, r := range p.rooms {
		if r.all.Users() > 0 && name > after && name.Ordinary() && strings.HasPrefix(string(name), prefix) {
			rooms = append(rooms, name)
		}
	}
	p.mu.Unlock()
	slices.Sort(rooms)
	rooms = slices.Compact(rooms)
	return rooms[:min(len(rooms), max(limit, 0))], nil
}
