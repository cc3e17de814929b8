package presencetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// Bus is a whole bus in one process, for tests of several nodes: what the nodes put lies in maps, and each node's Run hands
// its Sink what concerns it, in order and later, as a real bus does.
type Bus struct {
	grace, lease time.Duration

	mu    sync.Mutex
	nodes map[string]*Node
	seen  map[string]int64
	stale bool
}

// NewBus makes a bus. grace is how long the fields of a node stand that has left, lease of one that has ended otherwise.
func NewBus(grace, lease time.Duration) *Bus {
	return &Bus{grace: grace, lease: lease, nodes: make(map[string]*Node), seen: make(map[string]int64)}
}

// Node is one node's Store.
type Node struct {
	bus  *Bus
	name string
	wake chan struct{}

	// Guarded by bus.mu.
	ran     bool
	left    bool
	ended   bool
	gone    time.Time // when its fields end; zero: it runs
	fields  map[message.Room]map[string]presence.State
	totals  map[message.Room]presence.Totals
	follows map[message.Room]bool
	inbox   []func(presence.Sink)
}

var _ presence.Store = (*Node)(nil)

// Node makes a node of the bus.
func (b *Bus) Node(name string) *Node {
	return &Node{
		bus: b, name: name, wake: make(chan struct{}, 1),
		fields: make(map[message.Room]map[string]presence.State), totals: make(map[message.Room]presence.Totals),
		follows: make(map[message.Room]bool),
	}
}

// SetStale says that the bus is away, or no more. It goes on working: what nodes know is what they would know last.
func (b *Bus) SetStale(stale bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale = stale
}

// Lose loses all that was ever put, as a bus does that starts anew, and has everyone say it again.
func (b *Bus) Lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.seen)
	for _, n := range b.nodes {
		clear(n.fields)
		clear(n.totals)
	}
	for _, n := range b.nodes {
		n.post(func(s presence.Sink) { s.Again() })
	}
}

// Run implements presence.Store. A Node runs once.
func (n *Node) Run(ctx context.Context, s presence.Sink, ready func()) error {
	if !n.join() {
		return errors.New("presencetest: a Node runs only once")
	}
	defer n.end()
	ready()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-timer.C:
		}
		timer.Reset(n.bus.expire())
		for _, call := range n.take() {
			call(s)
		}
	}
}

func (n *Node) join() bool {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	ok := !n.ran
	n.ran = true
	n.bus.nodes[n.name] = n
	return ok
}

func (n *Node) end() {
	b := n.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	n.ended = true
	if !n.left {
		n.gone = time.Now().Add(b.lease)
	}
	clear(n.follows)
	n.inbox = nil
	for _, o := range b.nodes {
		o.kick() // there is something to expire
	}
}

// expire ends the fields of nodes whose time is over, and returns how long there is nothing to do.
func (b *Bus) expire() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := time.Hour
	for name, n := range b.nodes {
		if n.gone.IsZero() {
			continue
		}
		if left := time.Until(n.gone); left > 0 {
			rest = min(rest, left)
			continue
		}
		delete(b.nodes, name)
		for _, o := range b.nodes {
			o.post(func(s presence.Sink) { s.Gone(name) })
		}
	}
	return rest
}

func (n *Node) take() []func(presence.Sink) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	calls := n.inbox
	n.inbox = nil
	return calls
}

// post has the node's Run make a call of its Sink. The bus is locked.
func (n *Node) post(call func(presence.Sink)) {
	if !n.ended {
		n.inbox = append(n.inbox, call)
		n.kick()
	}
}

func (n *Node) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Put implements presence.Store.
func (n *Node) Put(room message.Room, changes []presence.Field, own presence.Totals) {
	b := n.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.left || n.ended {
		return
	}
	if n.fields[room] == nil {
		n.fields[room] = make(map[string]presence.State)
	}
	n.totals[room] = own
	named := make([]presence.Field, len(changes))
	for i, f := range changes {
		f.Node = n.name
		named[i] = f
		if f.Status == presence.Offline {
			delete(n.fields[room], f.User)
		} else {
			n.fields[room][f.User] = f.State
		}
		if room == message.Global {
			b.seen[f.User] = max(b.seen[f.User], f.Active)
			n.spread(message.UserRoom(f.User), []presence.Field{f})
		}
	}
	if room != message.Global {
		n.spread(room, named)
	}
}

// spread tells those who follow the room.
func (n *Node) spread(room message.Room, fields []presence.Field) {
	for _, o := range n.bus.nodes {
		if o != n && o.follows[room] {
			o.post(func(s presence.Sink) { s.Changed(room, fields) })
		}
	}
}

// Follow implements presence.Store.
func (n *Node) Follow(room message.Room) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	if !n.ended && !n.follows[room] {
		n.follows[room] = true
		n.roster(room)
	}
}

// roster posts the room as it is.
func (n *Node) roster(room message.Room) {
	fields := n.others(room)
	n.post(func(s presence.Sink) { s.Roster(room, fields) })
}

// others are the fields of a room that are not the node's. The bus is locked.
func (n *Node) others(room message.Room) []presence.Field {
	user, ofUser := room.User()
	if ofUser {
		room = message.Global
	}
	var fields []presence.Field
	for _, o := range n.bus.nodes {
		if o == n {
			continue
		}
		for u, s := range o.fields[room] {
			if !ofUser || u == user {
				fields = append(fields, presence.Field{Node: o.name, User: u, State: s})
			}
		}
	}
	return fields
}

// Unfollow implements presence.Store.
func (n *Node) Unfollow(room message.Room) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	delete(n.follows, room)
}

// Read implements presence.Store.
func (n *Node) Read(ctx context.Context, room message.Room) ([]presence.Field, error) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	return n.others(room), ctx.Err()
}

// Count implements presence.Store.
func (n *Node) Count(ctx context.Context, rooms []message.Room) ([]presence.Totals, error) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	totals := make([]presence.Totals, len(rooms))
	for i, room := range rooms {
		for _, o := range n.bus.nodes {
			if o != n {
				t := o.totals[room]
				totals[i].Online += t.Online
				totals[i].Away += t.Away
				totals[i].Sessions += t.Sessions
			}
		}
	}
	return totals, ctx.Err()
}

// Users implements presence.Store.
func (n *Node) Users(ctx context.Context, users []string) ([]presence.Seen, error) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	seen := make([]presence.Seen, len(users))
	for i, u := range users {
		for _, f := range n.others(message.UserRoom(u)) {
			seen[i].State = seen[i].With(f.State)
		}
		seen[i].Last = n.bus.seen[u]
	}
	return seen, ctx.Err()
}

// Rooms implements presence.Store.
func (n *Node) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	var rooms []message.Room
	for _, o := range n.bus.nodes {
		if o == n {
			continue
		}
		for room, t := range o.totals {
			if t.Users() > 0 && room > after && room.Ordinary() && strings.HasPrefix(string(room), prefix) {
				rooms = append(rooms, room)
			}
		}
	}
	slices.Sort(rooms)
	rooms = slices.Compact(rooms)
	return rooms[:min(limit, len(rooms))], ctx.Err()
}

// Claim implements presence.Store.
func (n *Node) Claim(ctx context.Context, own presence.Field, most int) (bool, error) {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if n.bus.stale {
		return int(own.Sessions) <= most, nil
	}
	sum := int(own.Sessions)
	for _, f := range n.others(message.UserRoom(own.User)) {
		sum += int(f.Sessions)
	}
	if sum > most {
		return false, nil
	}
	if !n.left && !n.ended {
		if n.fields[message.Global] == nil {
			n.fields[message.Global] = make(map[string]presence.State)
		}
		n.fields[message.Global][own.User] = own.State
	}
	return true, nil
}

// Stale implements presence.Store.
func (n *Node) Stale() bool {
	n.bus.mu.Lock()
	defer n.bus.mu.Unlock()
	return n.bus.stale
}

// Leave implements presence.Store.
func (n *Node) Leave() {
	b := n.bus
	b.mu.Lock()
	defer b.mu.Unlock()
	n.left = true
	n.gone = time.Now().Add(b.grace)
	for _, o := range b.nodes {
		o.kick()
	}
}
