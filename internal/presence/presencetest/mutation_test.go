package presencetest

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// mutant is a Store that breaks the contract where a hook is set.
type mutant struct {
	presence.Store
	run              func(m *mutant, ctx context.Context, s presence.Sink, ready func()) error
	put              func(m *mutant, room message.Room, changes []presence.Field, own presence.Totals)
	follow, unfollow func(m *mutant, room message.Room)
	read             func(m *mutant, fields []presence.Field) []presence.Field
	count            func(m *mutant, totals []presence.Totals) []presence.Totals
	users            func(m *mutant, seen []presence.Seen) []presence.Seen
	rooms            func(m *mutant, rooms []message.Room) []message.Room
	claim            func(m *mutant, own presence.Field, most int) (presence.Field, int)
	leave            func(m *mutant)
	sink             func(s presence.Sink) presence.Sink
	lax              bool // contexts are not looked at
	puts             int
}

func (m *mutant) Run(ctx context.Context, s presence.Sink, ready func()) error {
	if m.sink != nil {
		s = m.sink(s)
	}
	if m.run != nil {
		return m.run(m, ctx, s, ready)
	}
	return m.Store.Run(ctx, s, ready)
}

func (m *mutant) Put(room message.Room, changes []presence.Field, own presence.Totals) {
	m.puts++
	if m.put != nil {
		m.put(m, room, changes, own)
		return
	}
	m.Store.Put(room, changes, own)
}

func (m *mutant) Follow(room message.Room) {
	if m.follow != nil {
		m.follow(m, room)
		return
	}
	m.Store.Follow(room)
}

func (m *mutant) Unfollow(room message.Room) {
	if m.unfollow != nil {
		m.unfollow(m, room)
		return
	}
	m.Store.Unfollow(room)
}

func (m *mutant) context(ctx context.Context) context.Context {
	if m.lax {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

func (m *mutant) Read(ctx context.Context, room message.Room) ([]presence.Field, error) {
	fields, err := m.Store.Read(m.context(ctx), room)
	if m.read != nil {
		fields = m.read(m, fields)
	}
	return fields, err
}

func (m *mutant) Count(ctx context.Context, rooms []message.Room) ([]presence.Totals, error) {
	totals, err := m.Store.Count(m.context(ctx), rooms)
	if m.count != nil {
		totals = m.count(m, totals)
	}
	return totals, err
}

func (m *mutant) Users(ctx context.Context, users []string) ([]presence.Seen, error) {
	seen, err := m.Store.Users(m.context(ctx), users)
	if m.users != nil {
		seen = m.users(m, seen)
	}
	return seen, err
}

func (m *mutant) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	rooms, err := m.Store.Rooms(m.context(ctx), prefix, after, limit)
	if m.rooms != nil {
		rooms = m.rooms(m, rooms)
	}
	return rooms, err
}

func (m *mutant) Claim(ctx context.Context, own presence.Field, most int) (bool, error) {
	if m.claim != nil {
		own, most = m.claim(m, own, most)
	}
	return m.Store.Claim(m.context(ctx), own, most)
}

func (m *mutant) Leave() {
	if m.leave != nil {
		m.leave(m)
		return
	}
	m.Store.Leave()
}

// twisted is a Sink between the bus and the case.
type twisted struct {
	presence.Sink
	roster  func(s presence.Sink, room message.Room, fields []presence.Field)
	changed func(s presence.Sink, room message.Room, fields []presence.Field)
	gone    func(s presence.Sink, node string)
}

func (s twisted) Roster(room message.Room, fields []presence.Field) {
	if s.roster != nil {
		s.roster(s.Sink, room, fields)
		return
	}
	s.Sink.Roster(room, fields)
}

func (s twisted) Changed(room message.Room, fields []presence.Field) {
	if s.changed != nil {
		s.changed(s.Sink, room, fields)
		return
	}
	s.Sink.Changed(room, fields)
}

func (s twisted) Gone(node string) {
	if s.gone != nil {
		s.gone(s.Sink, node)
		return
	}
	s.Sink.Gone(node)
}

func twist(t twisted) func(*mutant) {
	return func(m *mutant) {
		m.sink = func(s presence.Sink) presence.Sink {
			t.Sink = s
			return t
		}
	}
}

// mutations show of every case that it can fail.
var mutations = []struct {
	name string
	make func(*mutant)
	seen []contractFunc
}{
	{"own fields come back", func(m *mutant) {
		m.read = func(_ *mutant, fields []presence.Field) []presence.Field {
			return append(fields, field("a", "u", presence.Online, 1))
		}
	}, []contractFunc{ownStay}},
	{"own totals are counted", func(m *mutant) {
		m.count = func(_ *mutant, totals []presence.Totals) []presence.Totals {
			totals[len(totals)-1].Online++
			return totals
		}
	}, []contractFunc{ownStay, counts, absolute, leave}},
	{"nothing is known of who has left", func(m *mutant) {
		m.users = func(_ *mutant, seen []presence.Seen) []presence.Seen {
			for i := range seen {
				seen[i].Last = 0
			}
			return seen
		}
	}, []contractFunc{lastSeen, users}},
	{"contexts are not looked at", func(m *mutant) { m.lax = true }, []contractFunc{endedContext}},
	{"the Roster is empty", twist(twisted{roster: func(s presence.Sink, room message.Room, _ []presence.Field) {
		s.Roster(room, nil)
	}}), []contractFunc{rosterThenChanged, racingFollow, unfollow, usersRoom}},
	{"changes come before the Roster", twist(twisted{roster: func(s presence.Sink, room message.Room, fields []presence.Field) {
		s.Changed(room, nil)
		s.Roster(room, fields)
	}}), []contractFunc{rosterThenChanged, ownStay}},
	{"changes come twice, the second time late", func(m *mutant) {
		var last []presence.Field
		twist(twisted{changed: func(s presence.Sink, room message.Room, fields []presence.Field) {
			s.Changed(room, fields)
			if last != nil {
				s.Changed(room, last)
			}
			last = fields
		}})(m)
	}, []contractFunc{rosterThenChanged}},
	{"calls overlap", twist(twisted{changed: func(s presence.Sink, room message.Room, fields []presence.Field) {
		var wg sync.WaitGroup
		wg.Go(func() { s.Changed(room, fields) })
		wg.Go(func() { s.Changed(room, fields) })
		wg.Wait()
	}}), []contractFunc{oneAtATime}},
	{"fields say nothing of their node", twist(twisted{changed: func(s presence.Sink, room message.Room, fields []presence.Field) {
		fields = slices.Clone(fields)
		for i := range fields {
			fields[i].Node = "b"
		}
		s.Changed(room, fields)
	}}), []contractFunc{sideBySide, rosterThenChanged}},
	{"a put adds to the one before", func(m *mutant) {
		m.put = func(m *mutant, room message.Room, changes []presence.Field, own presence.Totals) {
			changes = slices.Clone(changes)
			for i := range changes {
				changes[i].Sessions += int32(m.puts)
			}
			m.Store.Put(room, changes, own)
		}
	}, []contractFunc{absolute, readAsHeld}},
	{"the first put is all there is", func(m *mutant) {
		m.put = func(m *mutant, room message.Room, changes []presence.Field, own presence.Totals) {
			if m.puts == 1 {
				m.Store.Put(room, changes, own)
			}
		}
	}, []contractFunc{rosterThenChanged, offline, usersRoom, counts, users, rooms}},
	{"who is gone stays", func(m *mutant) {
		m.put = func(m *mutant, room message.Room, changes []presence.Field, own presence.Totals) {
			changes = slices.DeleteFunc(slices.Clone(changes), func(f presence.Field) bool { return f.Status == presence.Offline })
			m.Store.Put(room, changes, own)
		}
	}, []contractFunc{offline, sideBySide, readAsHeld, usersRoom, users, lastSeen}},
	{"Unfollow does nothing", func(m *mutant) { m.unfollow = func(*mutant, message.Room) {} }, []contractFunc{unfollow}},
	{"Follow works once", func(m *mutant) {
		once := make(map[message.Room]bool)
		m.follow = func(m *mutant, room message.Room) {
			if !once[room] {
				once[room] = true
				m.Store.Follow(room)
			}
		}
	}, []contractFunc{unfollow}},
	{"all users' rooms are one", func(m *mutant) {
		m.follow = func(m *mutant, room message.Room) {
			if _, ok := room.User(); ok {
				room = message.UserRoom("other")
			}
			m.Store.Follow(room)
		}
	}, []contractFunc{usersRoom}},
	{"one node's totals are forgotten", func(m *mutant) {
		m.count = func(_ *mutant, totals []presence.Totals) []presence.Totals {
			for i := range totals {
				totals[i].Sessions = min(totals[i].Sessions, 9)
			}
			return totals
		}
	}, []contractFunc{counts}},
	{"a claim is always taken", func(m *mutant) {
		m.claim = func(_ *mutant, own presence.Field, _ int) (presence.Field, int) { return own, 1000 }
	}, []contractFunc{claim, racingClaims}},
	{"a claim is one session too strict", func(m *mutant) {
		m.claim = func(_ *mutant, own presence.Field, most int) (presence.Field, int) { return own, most - 1 }
	}, []contractFunc{claim, racingClaims}},
	{"rooms are listed in any order", func(m *mutant) {
		m.rooms = func(_ *mutant, rooms []message.Room) []message.Room {
			slices.Reverse(rooms)
			return rooms
		}
	}, []contractFunc{rooms}},
	{"leaving is as ending", func(m *mutant) { m.leave = func(*mutant) {} }, []contractFunc{leave}},
	{"nobody is ever gone", twist(twisted{gone: func(presence.Sink, string) {}}), []contractFunc{crash, leave}},
	{"Run fails at its end", func(m *mutant) {
		m.run = func(m *mutant, ctx context.Context, s presence.Sink, ready func()) error {
			_ = m.Store.Run(ctx, s, ready)
			return ctx.Err()
		}
	}, []contractFunc{ownStay, crash}},
	{"the Sink is called after Run", func(m *mutant) {
		m.run = func(m *mutant, ctx context.Context, s presence.Sink, ready func()) error {
			var late sync.WaitGroup
			err := m.Store.Run(ctx, s, ready)
			late.Go(func() {
				for range 1000 {
					runtime.Gosched()
				}
				s.Roster("late", nil)
			})
			return err
		}
	}, []contractFunc{crash}},
}

type contractFunc = func(t testing.TB, f Factory)

func TestEachCaseFailsForAStoreThatBreaksItsPromise(t *testing.T) {
	shown := make(map[uintptr]bool)
	for _, m := range mutations {
		for _, c := range contracts {
			if !slices.ContainsFunc(m.seen, func(f contractFunc) bool { return same(f, c.run) }) {
				continue
			}
			shown[reflect.ValueOf(c.run).Pointer()] = true
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				f := busFactory(func(s presence.Store) presence.Store {
					broken := &mutant{Store: s}
					m.make(broken)
					return broken
				})
				synctest.Test(t, func(t *testing.T) {
					if faults := record(t, func(t testing.TB) { c.run(t, f) }); len(faults) == 0 {
						t.Error("the case passes")
					}
				})
			})
		}
	}
	for _, c := range contracts {
		if !shown[reflect.ValueOf(c.run).Pointer()] {
			t.Errorf("no mutation shows that %q can fail", c.name)
		}
	}
}

func same(a, b contractFunc) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// recorder is a test whose failure is not one of the test around it.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	faults   []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) { r.Error(fmt.Sprintf(format, args...)) }

func (r *recorder) Error(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprint(args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// record runs a case and returns what it reported.
func record(t *testing.T, run func(t testing.TB)) []string {
	r := &recorder{TB: t}
	apart := func(f func()) { // Fatalf ends the goroutine it is called on
		var wg sync.WaitGroup
		wg.Go(f)
		wg.Wait()
	}
	apart(func() { run(r) })
	for _, f := range slices.Backward(r.cleanups) {
		apart(f)
	}
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults
}
