package presencetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// patience is how long anything is waited for.
const patience = 20 * time.Second

// owner is whose field it is.
type owner struct{ node, user string }

// node is one end of a bus under test, with its Sink.
type node struct {
	presence.Store
	t      testing.TB
	name   string
	cancel context.CancelFunc
	ended  chan struct{}
	busy   atomic.Bool
	slow   atomic.Int64 // how long a call of the Sink takes at least

	mu      sync.Mutex // guards what follows
	over    bool
	views   map[message.Room]map[owner]presence.State // what a follower holds
	rosters map[message.Room]int
	calls   map[message.Room][]presence.Field // all that came by Changed
	gone    []string
	news    chan struct{} // closed with the next call
}

var _ presence.Sink = (*node)(nil)

// start makes a bus and runs its nodes.
func start(t testing.TB, f Factory, n int) []*node {
	t.Helper()
	stores := f.New(t, n)
	if len(stores) != n {
		t.Fatalf("the factory made %d nodes, want %d", len(stores), n)
	}
	nodes := make([]*node, n)
	for i, s := range stores {
		nodes[i] = &node{
			Store: s, t: t, name: f.Names[i], ended: make(chan struct{}), news: make(chan struct{}),
			views: make(map[message.Room]map[owner]presence.State), rosters: make(map[message.Room]int), calls: make(map[message.Room][]presence.Field),
		}
		nodes[i].run()
	}
	return nodes
}

// run runs the node until the test ends, and returns when it is ready.
func (n *node) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	n.cancel = cancel
	ready := make(chan struct{})
	var runs sync.WaitGroup
	runs.Go(func() {
		defer close(n.ended)
		if err := n.Run(ctx, n, func() { close(ready) }); err != nil {
			n.t.Errorf("Run of %s = %v, want nil", n.name, err)
		}
		n.mu.Lock()
		n.over = true
		n.mu.Unlock()
	})
	n.t.Cleanup(func() {
		n.stop()
		runs.Wait()
	})
	n.await(ready, "Run calls ready")
}

// stop ends Run.
func (n *node) stop() {
	n.cancel()
	n.await(n.ended, "Run returns after its context has ended")
}

func (n *node) await(done <-chan struct{}, what string) {
	n.t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		n.t.Errorf("%s: %s: not within %v", n.name, what, patience)
	}
}

// until waits until what has reached the Sink makes ok true; it is called under the lock.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	deadline := time.After(patience)
	for {
		n.mu.Lock()
		done, news := ok(), n.news
		n.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline:
			n.t.Fatalf("%s: %s: not within %v", n.name, what, patience)
		}
	}
}

// enter notes that a call of the Sink has begun; the function it returns, that it ends. In between n.mu is held.
func (n *node) enter(call string, room message.Room, fields []presence.Field) func() {
	if n.busy.Swap(true) {
		n.t.Errorf("%s: %s(%q) while another call was under way", n.name, call, room)
	}
	if slow := time.Duration(n.slow.Load()); slow > 0 {
		<-time.After(slow)
	}
	n.mu.Lock()
	if n.over {
		n.t.Errorf("%s: %s(%q) after Run had returned", n.name, call, room)
	}
	for _, f := range fields {
		if f.Node == n.name || f.Node == "" {
			n.t.Errorf("%s: %s(%q) with a field of node %q", n.name, call, room, f.Node)
		}
	}
	return func() {
		close(n.news)
		n.news = make(chan struct{})
		n.mu.Unlock()
		n.busy.Store(false)
	}
}

// Roster implements presence.Sink.
func (n *node) Roster(room message.Room, fields []presence.Field) {
	defer n.enter("Roster", room, fields)()
	n.rosters[room]++
	n.views[room] = make(map[owner]presence.State)
	for _, f := range fields {
		if f.Status == presence.Offline {
			n.t.Errorf("%s: Roster(%q) with %q, who is offline", n.name, room, f.User)
		}
		n.views[room][owner{f.Node, f.User}] = f.State
	}
}

// Changed implements presence.Sink.
func (n *node) Changed(room message.Room, fields []presence.Field) {
	defer n.enter("Changed", room, fields)()
	if n.rosters[room] == 0 {
		n.t.Errorf("%s: Changed(%q) before Roster", n.name, room)
		return
	}
	for _, f := range fields {
		n.calls[room] = append(n.calls[room], f)
		if f.Status == presence.Offline {
			delete(n.views[room], owner{f.Node, f.User})
		} else {
			n.views[room][owner{f.Node, f.User}] = f.State
		}
	}
}

// Gone implements presence.Sink.
func (n *node) Gone(name string) {
	defer n.enter("Gone", "", nil)()
	n.gone = append(n.gone, name)
	for _, view := range n.views {
		maps.DeleteFunc(view, func(o owner, _ presence.State) bool { return o.node == name })
	}
}

// Again implements presence.Sink.
func (n *node) Again() { n.t.Errorf("%s: Again though nothing was lost", n.name) }

// follow follows a room and waits for its Roster.
func (n *node) follow(room message.Room) {
	n.t.Helper()
	before := n.rostersOf(room)
	n.Follow(room)
	n.until("Roster", func() bool { return n.rosters[room] > before })
}

func (n *node) rostersOf(room message.Room) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rosters[room]
}

// holds waits until a follower of the room holds these fields and no others.
func (n *node) holds(room message.Room, want ...presence.Field) {
	n.t.Helper()
	views := viewOf(want)
	n.until("the room's fields", func() bool { return cmp.Equal(n.views[room], views) })
}

// reads waits until Read returns these fields and no others.
func (n *node) reads(room message.Room, want ...presence.Field) {
	n.t.Helper()
	n.sees("Read", func() any {
		fields, err := n.Read(n.t.Context(), room)
		if err != nil {
			n.t.Fatalf("%s: Read(%q): %v", n.name, room, err)
		}
		return viewOf(fields)
	}, viewOf(want))
}

// counts waits until Count returns these totals.
func (n *node) counts(room message.Room, want presence.Totals) {
	n.t.Helper()
	n.sees("Count", func() any {
		totals, err := n.Count(n.t.Context(), []message.Room{"nobody-is-here", room})
		if err != nil || len(totals) != 2 || totals[0] != (presence.Totals{}) {
			n.t.Fatalf("%s: Count of an empty room and %q = %v, %v", n.name, room, totals, err)
		}
		return totals[1]
	}, want)
}

// seen waits until Users returns this of the user.
func (n *node) seen(user string, want presence.Seen) {
	n.t.Helper()
	n.sees("Users", func() any {
		seen, err := n.Users(n.t.Context(), []string{user, "nobody", user})
		if err != nil || len(seen) != 3 || !cmp.Equal(seen[1], presence.Seen{}) || !cmp.Equal(seen[0], seen[2]) {
			n.t.Fatalf("%s: Users of %q, nobody and %q again = %+v, %v", n.name, user, user, seen, err)
		}
		return seen[0]
	}, want)
}

// lists waits until Rooms returns these.
func (n *node) lists(prefix string, after message.Room, limit int, want ...message.Room) {
	n.t.Helper()
	n.sees("Rooms", func() any {
		rooms, err := n.Rooms(n.t.Context(), prefix, after, limit)
		if err != nil {
			n.t.Fatalf("%s: Rooms: %v", n.name, err)
		}
		return slices.Concat([]message.Room{}, rooms)
	}, slices.Concat([]message.Room{}, want))
}

// sees asks until the answer is what is wanted.
func (n *node) sees(what string, ask func() any, want any) {
	n.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := ask()
		if cmp.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("%s: %s within %v: got (-), want (+):\n%s", n.name, what, patience, cmp.Diff(got, want, cmp.AllowUnexported(owner{})))
		}
	}
}

func viewOf(fields []presence.Field) map[owner]presence.State {
	view := make(map[owner]presence.State)
	for _, f := range fields {
		view[owner{f.Node, f.User}] = f.State
	}
	return view
}
