package redis_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/redis/redistest"
)

const lobby = message.Room("lobby")

// peer is a node with what it has put and what its Sink was told. As a node does it puts all anew when it is told to.
type peer struct {
	*store
	t    *testing.T
	name string
	stop func() // ends Run, without Leave

	mu     sync.Mutex // guards what follows
	own    map[message.Room]map[string]presence.State
	view   map[message.Room]map[string]presence.State // by node:user
	seen   map[string]bool                            // all that ever left a view
	gone   []string
	resets int
	news   chan struct{}
}

func runPeer(t *testing.T, s *redistest.Server, cfg setup) *peer {
	t.Helper()
	n := &peer{
		store: newPresence(t, s, "", cfg), t: t, name: cfg.bus.Incarnation, own: make(map[message.Room]map[string]presence.State),
		view: make(map[message.Room]map[string]presence.State), seen: make(map[string]bool), news: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var runs sync.WaitGroup
	ready := make(chan struct{})
	runs.Go(func() {
		if err := n.Run(ctx, n, func() { close(ready) }); err != nil {
			t.Errorf("Run of %s = %v", n.name, err)
		}
	})
	n.stop = func() {
		cancel()
		runs.Wait()
	}
	t.Cleanup(n.stop)
	<-ready
	return n
}

// peers runs nodes a and b.
func peers(t *testing.T, s *redistest.Server) (a, b *peer) {
	t.Helper()
	return runPeer(t, s, quick("a")), runPeer(t, s, quick("b"))
}

func (n *peer) note() {
	close(n.news)
	n.news = make(chan struct{})
}

func (n *peer) Roster(room message.Room, fields []presence.Field) {
	n.mu.Lock()
	defer n.mu.Unlock()
	view := make(map[string]presence.State)
	for _, f := range fields {
		view[f.Node+":"+f.User] = f.State
	}
	for u := range n.view[room] {
		if _, ok := view[u]; !ok {
			n.seen[u] = true
		}
	}
	n.view[room] = view
	n.note()
}

func (n *peer) Changed(room message.Room, fields []presence.Field) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range fields {
		if f.Status == presence.Offline {
			delete(n.view[room], f.Node+":"+f.User)
			n.seen[f.Node+":"+f.User] = true
		} else {
			n.view[room][f.Node+":"+f.User] = f.State
		}
	}
	n.note()
}

func (n *peer) Gone(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = append(n.gone, name)
	for _, view := range n.view {
		maps.DeleteFunc(view, func(u string, _ presence.State) bool { return strings.HasPrefix(u, name+":") })
	}
	n.note()
}

func (n *peer) Again() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resets++
	for room, users := range n.own {
		var fields []presence.Field
		for u, s := range users {
			fields = append(fields, presence.Field{User: u, State: s})
		}
		n.Put(room, fields, totalsOf(users))
	}
	n.note()
}

func totalsOf(users map[string]presence.State) (t presence.Totals) {
	for _, s := range users {
		t.Sessions += int(s.Sessions)
		if s.Status == presence.Online {
			t.Online++
		} else {
			t.Away++
		}
	}
	return t
}

// has puts the user: there, or gone.
func (n *peer) has(room message.Room, user string, there bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.own[room] == nil {
		n.own[room] = make(map[string]presence.State)
	}
	f := presence.Field{User: user}
	if there {
		f.State = presence.State{Status: presence.Online, Sessions: 1, Since: 1, Active: rand.Int64N(1 << 40), Newest: 3}
		n.own[room][user] = f.State
	} else {
		delete(n.own[room], user)
	}
	n.Put(room, []presence.Field{f}, totalsOf(n.own[room]))
}

// until waits until ok, which is called under the lock when the Sink is told something, and from time to time.
func (n *peer) until(what string, patience time.Duration, ok func() bool) {
	n.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		n.mu.Lock()
		done, news := ok(), n.news
		n.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("%s: %s: not within %v", n.name, what, patience)
		}
	}
}

// sees waits until the node follows all that others have in the room, and reads and counts the same.
func (n *peer) sees(room message.Room, patience time.Duration, others ...*peer) {
	n.t.Helper()
	want := make(map[string]presence.State)
	var totals presence.Totals
	for _, o := range others {
		o.mu.Lock()
		for u, s := range o.own[room] {
			want[o.name+":"+u] = s
		}
		t := totalsOf(o.own[room])
		o.mu.Unlock()
		totals.Online, totals.Away, totals.Sessions = totals.Online+t.Online, totals.Away+t.Away, totals.Sessions+t.Sessions
	}
	n.until(fmt.Sprintf("it holds the %d users of the others", len(want)), patience, func() bool { return cmp.Equal(n.view[room], want) })
	n.until("it reads and counts what the others have", patience, func() bool {
		fields, err := n.Read(n.t.Context(), room)
		sums, failed := n.Count(n.t.Context(), []message.Room{room})
		read := make(map[string]presence.State)
		for _, f := range fields {
			read[f.Node+":"+f.User] = f.State
		}
		return err == nil && failed == nil && cmp.Equal(read, want) && sums[0] == totals
	})
}

// lostNobody checks that nobody was ever told to have left.
func (n *peer) lostNobody() {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) > 0 || len(n.gone) > 0 {
		n.t.Errorf("%s was told that %d users have left and that nodes %q are gone, but they never were", n.name, len(n.seen), n.gone)
	}
}

func TestUsersOfAKilledNodeAreGoneEverywhereWithinEightSeconds(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	proxy := proxied(t, s.Addr)
	cut := usual("a")
	cut.bus.Client.InitAddress = []string{proxy.Listen}
	a, b, c := runPeer(t, s, cut), runPeer(t, s, usual("b")), runPeer(t, s, usual("c"))
	for i := range 100 {
		a.has(lobby, fmt.Sprint("u", i), true)
	}
	a.has(message.Global, "u1", true)
	b.has(lobby, "u1", true)
	for _, n := range []*peer{b, c} {
		n.Follow(lobby)
	}
	b.sees(lobby, 5*time.Second, a)
	c.sees(lobby, 5*time.Second, a, b)
	proxy.Stop() // it cannot even say that it ends
	b.sees(lobby, 8*time.Second)
	c.sees(lobby, time.Second, b)
	if seen, err := c.Users(t.Context(), []string{"u1"}); err != nil || seen[0].Status != presence.Offline || seen[0].Last == 0 {
		t.Errorf("of one of its users is known: %+v, %v", seen, err)
	}
}

func TestAllNodesPutAnewWhatRedisHasLost(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := runPeer(t, s, usual("a"))
	b := runPeer(t, s, usual("b"))
	for i := range 500 {
		a.has(lobby, fmt.Sprint("u", i), true)
		b.has(lobby, fmt.Sprint("v", i), true)
		b.has(message.Room(fmt.Sprint("room-", i)), "v", true)
	}
	a.Follow(lobby)
	b.Follow(lobby)
	a.sees(lobby, 5*time.Second, b)
	b.sees(lobby, 5*time.Second, a)
	s.FlushAll()
	for _, n := range []*peer{a, b} {
		n.until("it is told to put all anew", 10*time.Second, func() bool { return n.resets > 0 })
	}
	a.sees(lobby, 10*time.Second, b)
	b.sees(lobby, 10*time.Second, a)
	a.until("all rooms are listed", 10*time.Second, func() bool {
		rooms, err := a.Rooms(t.Context(), "room-", "", 1000)
		return err == nil && len(rooms) == 500
	})
	a.lostNobody()
	b.lostNobody()
}

func TestWithRedisAwayNobodyLeavesAndAllIsPutWhenItIsBack(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*redistest.Server){"stopped": (*redistest.Server).Stop, "killed": (*redistest.Server).Kill} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			a, b := peers(t, s)
			for i := range 50 {
				a.has(lobby, fmt.Sprint("u", i), true)
			}
			b.Follow(lobby)
			b.sees(lobby, 5*time.Second, a)
			end(s)
			for _, n := range []*peer{a, b} {
				n.until("it notices that redis is away", 10*time.Second, n.Stale)
			}
			a.has(lobby, "late", true)
			a.has(lobby, "brief", true)
			a.has(lobby, "brief", false)
			<-time.After(2500 * time.Millisecond) // the outage outlasts all leases
			if fields, err := b.Read(t.Context(), lobby); err != nil || len(fields) != 50 {
				t.Errorf("with redis away Read = %d fields, %v, want what was last known", len(fields), err)
			}
			b.Follow("elsewhere")
			b.until("what it follows now has a roster", 5*time.Second, func() bool { return b.view["elsewhere"] != nil })
			a.has("elsewhere", "u", true)
			s.Restart()
			b.sees(lobby, 10*time.Second, a)
			b.sees("elsewhere", 10*time.Second, a)
			a.until("its view is thawed", 10*time.Second, func() bool { return !a.Stale() })
			a.stop()
			b.sees(lobby, 10*time.Second) // so the live set is counted again
			if slices.Contains(b.gone, "b") || !cmp.Equal(b.gone, []string{"a"}) || len(b.seen) > 0 {
				t.Errorf("told that %d users have left and that %q are gone, want only that a is", len(b.seen), b.gone)
			}
		})
	}
}

func TestASilentRedisIsAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := peers(t, s)
	a.has(lobby, "u", true)
	b.Follow(lobby)
	b.sees(lobby, 5*time.Second, a)
	s.Pause()
	b.until("it notices", 10*time.Second, b.Stale)
	a.until("it notices", 10*time.Second, a.Stale)
	a.has(lobby, "v", true)
	s.Resume()
	b.sees(lobby, 10*time.Second, a)
	b.lostNobody()
}

func TestBrokenConnectionsLoseNoChange(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := peers(t, s)
	a.Follow(lobby)
	b.Follow(lobby)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 600 {
		n := []*peer{a, b}[r.IntN(2)]
		n.has(lobby, fmt.Sprint("u", r.IntN(40)), r.IntN(3) > 0)
		switch {
		case i%100 == 50:
			s.KillConns("pubsub")
		case i%100 == 99:
			s.KillConns("normal")
		}
	}
	a.sees(lobby, 15*time.Second, b)
	b.sees(lobby, 15*time.Second, a)
}

// TestWhoHasLeftStaysGoneWhenARedisTakesOverThatDoesNotKnowIt: what a replica had not yet is put back by hand.
func TestWhoHasLeftStaysGoneWhenARedisTakesOverThatDoesNotKnowIt(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := peers(t, s)
	b.Follow(lobby)
	for _, user := range []string{"u", "v"} {
		for _, there := range []bool{true, false} {
			a.has(lobby, user, there)
			b.sees(lobby, 5*time.Second, a)
		}
	}
	a.has(lobby, "v", true)
	b.sees(lobby, 5*time.Second, a)
	s.Do("HSET", "rt:p:{realtime:room:lobby}", "a:u", "2,1,1,1,1", "a:v", "2,1,1,1,1")
	s.KillConns("normal")
	s.KillConns("pubsub")
	b.sees(lobby, 10*time.Second, a)
}

func TestARedisThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Stop()
	a, b := peers(t, s)
	a.has(lobby, "u", true)
	b.Follow(lobby)
	b.until("it has a roster", 5*time.Second, func() bool { return b.view[lobby] != nil })
	if !b.Stale() {
		t.Error("Stale() = false, but redis was never there")
	}
	s.Restart()
	b.sees(lobby, 10*time.Second, a)
}

func TestAWrongPasswordEndsPresence(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("ACL", "SETUSER", "u", "on", ">right", "~*", "&*", "+@all")
	cfg := quick("a")
	cfg.bus.Client = rueidis.ClientOption{InitAddress: []string{s.Addr}, Username: "u", Password: "wrong"}
	err := newPresence(t, s, "", cfg).Presence.Run(t.Context(), nil, func() { t.Error("ready was called") })
	if err == nil || strings.Contains(err.Error(), "wrong ") {
		t.Errorf("Run = %v, want that redis refuses the node", err)
	}
}

func TestWhatIsNotOursInRedisIsCountedAndIgnored(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := peers(t, s)
	for _, key := range []string{"rt:p:{%s}", "rt:pc:{%s}", "rt:t:{%s}"} {
		s.Do("SET", fmt.Sprintf(key, "realtime:room:spoiled"), "x")
	}
	s.Do("SET", "rt:u:{realtime:user:u}", "x")
	s.Do("LPUSH", "rt:seen:{realtime:user:u}", "x")
	s.Do("HSET", "rt:p:{realtime:room:lobby}", "junk", "x", "a:u", "y", "a:%", "2,1,1,1,1", "a:v", "2,1,1,1,1,{")
	s.Do("HSET", "rt:pc:{realtime:room:lobby}", "a", "x")
	s.Do("ZADD", "rt:rooms:a", "0", "@junk", "0", "a b")
	b.Follow(lobby)
	b.Follow("spoiled")
	b.Follow(message.UserRoom("u"))
	b.until("it has rosters", 5*time.Second, func() bool { return len(b.view) == 3 })
	before := b.Stats().Junk
	for _, junk := range []string{"", "{}", "|||", "||1|", "||1|\x00\x00\x00\x0012345678\x0c12345678", "||1|\x00\x00\x00\x0012345678\x0c12345678\x01a\xff", "||1|\x00\x00\x00\x0012345678\x0c12345678\x01a\x01u\x03xyz"} {
		s.Do("PUBLISH", "realtime:room:lobby", junk)
	}
	b.until("junk frames are counted", 5*time.Second, func() bool { return b.Stats().Junk >= before+3 })
	a.has("spoiled", "u", true)
	a.has(message.Global, "u", true)
	a.has(lobby, "w", true)
	b.sees(lobby, 5*time.Second, a)
	if fields, err := b.Read(t.Context(), "spoiled"); err != nil || len(fields) != 0 {
		t.Errorf("Read of a room whose key has another type = %v, %v", fields, err)
	}
	if seen, err := b.Users(t.Context(), []string{"u"}); err != nil || !cmp.Equal(seen, []presence.Seen{{}}) {
		t.Errorf("Users of one whose keys have other types = %v, %v", seen, err)
	}
	if rooms, err := b.Rooms(t.Context(), "", "", 10); err != nil || !slices.Equal(rooms, []message.Room{lobby, "spoiled"}) {
		t.Errorf("Rooms = %q, %v", rooms, err)
	}
	if a.Stats().Junk == 0 {
		t.Error("who writes to keys of other types counts nothing")
	}
}
