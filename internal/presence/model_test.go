package presence_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
)

// modelled is a session as the model has it.
type modelled struct {
	*presence.Session
	node  int
	user  string
	rooms map[message.Room]bool
	away  bool
	info  string
	began int64
}

// model is a bus of nodes under random use, and what must come of it.
type model struct {
	t        *testing.T
	r        *rand.Rand
	nodes    []*modelNode
	users    []string
	rooms    []message.Room
	sessions []*modelled
	stop     context.CancelFunc
	runs     sync.WaitGroup
}

// modelNode is a node with those who are told by it.
type modelNode struct {
	*presence.Presence
	told     map[message.Room]*told
	watchers []*watcher
}

// modelConfig has rooms change to counts with five users already, and watchers fall behind after a hundred changes.
var modelConfig = presence.Config{CountsAbove: 4, CountsBelow: 3, Recent: 100}

func newModel(t *testing.T, seed uint64, stores ...presence.Store) *model {
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 0)), rooms: []message.Room{"r0", "r1", "r2"}}
	for i := range 7 {
		m.users = append(m.users, fmt.Sprint("u", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	m.stop = cancel
	for i, s := range stores {
		n := &modelNode{told: make(map[message.Room]*told)}
		n.Presence = presence.New(modelConfig, s, func(room message.Room, u presence.Update) {
			switch f := n.told[room]; {
			case f != nil:
				f.take(u)
			case room != "r2": // where nobody stays who could be told
				t.Errorf("node %d emitted to %q", i, room)
			}
		}, slog.New(slog.DiscardHandler))
		m.nodes = append(m.nodes, n)
		for _, room := range m.rooms[:2] {
			n.told[room] = &told{t: t}
		}
		m.runs.Go(func() {
			if err := n.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		// One session of each node stays in two of the rooms: it is the one that is told.
		s := n.Open(fmt.Sprint("stays-", i), nil)
		ms := &modelled{Session: s, node: i, user: fmt.Sprint("stays-", i), rooms: make(map[message.Room]bool), began: time.Now().UnixMilli()}
		m.sessions = append(m.sessions, ms)
		for _, room := range m.rooms[:2] {
			s.Joined(room)
			ms.rooms[room] = true
		}
	}
	pass(time.Second)
	for i, n := range m.nodes {
		for _, room := range m.rooms[:2] {
			m.who(n, room)
		}
		n.watchers = []*watcher{
			m.watch(i, presence.Target{Rooms: m.rooms}),
			m.watch(i, presence.Target{Users: m.users}),
		}
	}
	return m
}

// pass lets time go by, and what is due then be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// step does something at random.
func (m *model) step() {
	r := m.r
	var s *modelled
	if busy := m.sessions[len(m.nodes):]; len(busy) > 0 {
		s = busy[r.IntN(len(busy))]
	}
	room := m.rooms[r.IntN(len(m.rooms))]
	node := r.IntN(len(m.nodes))
	switch op := r.IntN(100); {
	case op < 14 && len(m.sessions) < 30 || s == nil:
		info := fmt.Sprintf(`{"n":%d}`, r.IntN(3))
		s = &modelled{node: node, user: m.users[r.IntN(len(m.users))], rooms: make(map[message.Room]bool), info: info, began: time.Now().UnixMilli()}
		s.Session = m.nodes[s.node].Open(s.user, []byte(info))
		m.sessions = append(m.sessions, s)
		fallthrough
	case op < 40:
		s.Joined(room)
		s.rooms[room] = true
	case op < 55:
		s.Left(room, false)
		delete(s.rooms, room)
	case op < 70:
		if r.IntN(2) == 0 {
			for room := range s.rooms {
				s.Left(room, true)
			}
		}
		s.Close()
		m.sessions = slices.DeleteFunc(m.sessions, func(o *modelled) bool { return o == s })
		s.Joined(room) // too late
		s.Away(true)
	case op < 80:
		s.away = !s.away
		s.Away(s.away)
	case op < 83:
		s.info = fmt.Sprintf(`{"n":%d}`, r.IntN(3))
		s.Info([]byte(s.info))
	case op < 86:
		s.Active()
	case op < 93:
		m.who(m.nodes[node], m.rooms[r.IntN(2)])
	case op < 95:
		m.nodes[node].watchers[r.IntN(2)].cut()
	case op < 97:
		m.nodes[node].watchers[r.IntN(2)].pause(r.IntN(2) == 0)
	default:
		m.checkCounts()
	}
	pass(time.Millisecond)
	if r.IntN(4) > 0 {
		pass(time.Duration(r.IntN(60)) * time.Millisecond)
	}
	if r.IntN(12) == 0 {
		pass(time.Duration(r.IntN(10_000)) * time.Millisecond)
	}
	for _, n := range m.nodes {
		for _, room := range m.rooms[:2] {
			if n.told[room].asks() {
				m.who(n, room)
			}
		}
	}
}

// who asks for the roster as a session does: what it is told meanwhile is newer.
func (m *model) who(n *modelNode, room message.Room) {
	f := n.told[room]
	before := f.begin()
	roster, err := n.Room(m.t.Context(), room)
	if err != nil {
		m.t.Fatalf("Room(%q): %v", room, err)
	}
	f.page(before, roster)
}

// checkCounts: what is counted at once is what is there.
func (m *model) checkCounts() {
	if len(m.nodes) > 1 {
		return // of others it is known a little later
	}
	synctest.Wait()
	for _, room := range m.rooms {
		_, sessions := m.nodes[0].Count(room)
		want := 0
		for _, s := range m.sessions {
			if s.rooms[room] {
				want++
			}
		}
		if sessions != want {
			m.t.Errorf("Count(%q) has %d sessions, want %d", room, sessions, want)
		}
	}
}

// seen is what is compared of a user.
type seen struct {
	Status   presence.Status
	Info     string
	Sessions int32
}

// truth is who should be in a place; here tells which sessions are.
func (m *model) truth(here func(*modelled) bool) map[string]seen {
	type part struct {
		seen
		newest int64
	}
	merged := make(map[string]part)
	for i := range m.nodes {
		own := make(map[string]part)
		for _, s := range m.sessions {
			if s.node != i {
				continue
			}
			p := own[s.user]
			if !s.away {
				p.Status = presence.Online
			}
			p.Status = max(p.Status, presence.Away)
			if s.began >= p.newest {
				p.Info, p.newest = s.info, s.began
			}
			if here(s) {
				p.Sessions++
			}
			own[s.user] = p
		}
		for u, p := range own {
			was := merged[u]
			if p.Sessions == 0 {
				continue
			}
			p.Status = max(p.Status, was.Status)
			p.Sessions += was.Sessions
			if was.newest > p.newest || was.newest == p.newest && was.Info > p.Info {
				p.Info, p.newest = was.Info, was.newest
			}
			merged[u] = p
		}
	}
	all := make(map[string]seen)
	for u, p := range merged {
		all[u] = p.seen
	}
	return all
}

// check waits until it is quiet and compares everything.
func (m *model) check() {
	for _, n := range m.nodes {
		for _, w := range n.watchers {
			w.pause(false)
		}
	}
	pass(10 * time.Second)
	for _, n := range m.nodes {
		for _, room := range m.rooms[:2] {
			if n.told[room].asks() {
				m.who(n, room)
			}
		}
	}
	pass(10 * time.Second)
	var first []*presence.Roster
	for i, n := range m.nodes {
		for j, room := range m.rooms {
			roster := m.checkRoster(i, room, m.truth(func(s *modelled) bool { return s.rooms[room] }))
			if i == 0 {
				first = append(first, roster)
			} else if diff := cmp.Diff(first[j].Users, roster.Users, cmpopts.IgnoreFields(presence.State{}, "Active")); diff != "" {
				m.t.Errorf("%q on node 0 (-) and on node %d (+):\n%s", room, i, diff)
			}
			if j < 2 {
				n.told[room].check(fmt.Sprintf("node %d, %q", i, room), n.Mode(room), roster)
			}
			n.watchers[0].check(fmt.Sprintf("node %d, watching %q", i, room), room, roster)
		}
		everyone := m.truth(func(*modelled) bool { return true })
		all := m.checkRoster(i, message.Global, everyone)
		n.watchers[1].check(fmt.Sprintf("node %d, watching users", i), "", all)
		m.checkUsers(i, everyone)
	}
}

func (m *model) checkRoster(node int, room message.Room, want map[string]seen) *presence.Roster {
	n := m.nodes[node]
	roster, err := n.Room(m.t.Context(), room)
	if err != nil {
		m.t.Fatalf("Room(%q): %v", room, err)
	}
	got := make(map[string]seen)
	totals := presence.Totals{}
	for _, u := range roster.Users {
		got[u.ID] = seen{u.Status, string(u.Info), u.Sessions}
		totals.Sessions += int(u.Sessions)
		switch u.Status {
		case presence.Online:
			totals.Online++
		case presence.Away:
			totals.Away++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Errorf("node %d, %q: want (-), got (+):\n%s", node, room, diff)
	}
	if !slices.IsSortedFunc(roster.Users, func(a, b presence.User) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) }) {
		m.t.Errorf("node %d, %q: the roster is not sorted", node, room)
	}
	if roster.Totals != totals {
		m.t.Errorf("node %d, %q: totals %v, the users make %v", node, room, roster.Totals, totals)
	}
	counts, fresh, err := n.Counts(m.t.Context(), []message.Room{room})
	if err != nil || !fresh.Approximate && counts[0] != totals {
		m.t.Errorf("node %d: Counts of %q = %v, %v, want %v", node, room, counts, err, totals)
	}
	if users, sessions := n.Count(room); room != message.Global && (users != totals.Users() || sessions != totals.Sessions) {
		m.t.Errorf("node %d: Count of %q = %d, %d, want %v", node, room, users, sessions, totals)
	}
	return roster
}

func (m *model) checkUsers(node int, want map[string]seen) {
	users, _, err := m.nodes[node].Users(m.t.Context(), m.users)
	if err != nil {
		m.t.Fatal(err)
	}
	listed := m.nodes[node].RoomsOf(m.users)
	for i, u := range users {
		if u.ID != m.users[i] || u.Status != want[u.ID].Status || u.Sessions != int(want[u.ID].Sessions) {
			m.t.Errorf("node %d: Users of %s = %+v, want %+v", node, m.users[i], u, want[u.ID])
		}
		rooms := make(map[message.Room]bool)
		for _, s := range m.sessions {
			if s.node == node && s.user == u.ID {
				maps.Copy(rooms, s.rooms)
			}
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(rooms)), listed[i]); diff != "" {
			m.t.Errorf("node %d: rooms of %s: want (-), got (+):\n%s", node, u.ID, diff)
		}
	}
}

// end closes everything and checks that nothing is left.
func (m *model) end() {
	for _, s := range m.sessions {
		s.Close()
	}
	m.sessions = nil
	for _, n := range m.nodes {
		for _, w := range n.watchers {
			w.end()
		}
	}
	pass(2 * time.Minute)
	for i, n := range m.nodes {
		if users, rooms, members, deadlines := n.Held(); users+rooms+members+deadlines > 0 {
			m.t.Errorf("node %d still holds %d users, %d rooms, %d members, %d deadlines", i, users, rooms, members, deadlines)
		}
	}
	m.stop()
	m.runs.Wait()
}

func TestWhatIsToldAddsUpToWhatIsSo(t *testing.T) {
	for seed := range uint64(25) {
		for _, nodes := range []int{1, 2} {
			t.Run(fmt.Sprintf("seed %d, %d nodes", seed, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					stores := []presence.Store{presence.NewMemory(presence.MemoryConfig{})}
					if nodes > 1 {
						bus := presencetest.NewBus(8*time.Second, 6*time.Second)
						stores = []presence.Store{bus.Node("a"), bus.Node("b")}
					}
					m := newModel(t, seed, stores...)
					for range 3 {
						for range 120 {
							m.step()
						}
						m.check()
					}
					m.end()
				})
			})
		}
	}
}
