package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// patience is how long anything is waited for.
const patience = 10 * time.Second

// node is an end of a bus under test, with its Sink.
type node struct {
	Node
	t      testing.TB
	sink   *police
	minter *message.Minter
	cancel context.CancelFunc
	runs   sync.WaitGroup
	ended  chan struct{} // closed when Run has returned
	once   sync.Once

	patience time.Duration
}

// prepare makes a bus that does not run yet.
func prepare(t testing.TB, f Factory, n int, s Settings) []*node {
	t.Helper()
	made := f.New(t, n, s)
	if len(made) != n {
		t.Fatalf("the factory made %d nodes, want %d", len(made), n)
	}
	nodes := make([]*node, n)
	for i := range made {
		nodes[i] = &node{Node: made[i], t: t, sink: newPolice(t.Errorf), minter: message.NewMinter(uint16(i + 1)), ended: make(chan struct{}), patience: cmp.Or(f.patience, patience)}
	}
	return nodes
}

// start makes a bus of one node and runs it.
func start(t testing.TB, f Factory, s Settings) *node {
	t.Helper()
	n := prepare(t, f, 1, s)[0]
	n.run()
	return n
}

// startTwo makes a bus of two nodes and runs them.
func startTwo(t testing.TB, f Factory, s Settings) (a, b *node) {
	t.Helper()
	n := prepare(t, f, 2, s)
	n[0].run()
	n[1].run()
	return n[0], n[1]
}

// run runs the node until the test ends, and returns when it is ready.
func (n *node) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	n.cancel = cancel
	ready := make(chan struct{})
	n.runs.Go(func() {
		defer close(n.ended)
		if err := n.Run(ctx, n.sink, func() { close(ready) }); err != nil {
			n.t.Errorf("Run of %s = %v, want nil", n.Name, err)
		}
		n.sink.end()
	})
	n.t.Cleanup(n.stop)
	n.await(ready, "Run calls ready")
}

// stop ends Run.
func (n *node) stop() {
	n.once.Do(func() {
		n.cancel()
		n.await(n.ended, "Run returns after its context has ended")
		n.runs.Wait()
	})
}

func (n *node) await(ch <-chan struct{}, what string) {
	n.t.Helper()
	select {
	case <-ch:
	case <-time.After(n.patience):
		n.t.Fatalf("%s: %s: not within %v", n.Name, what, n.patience)
	}
}

// until waits for a condition.
func (n *node) until(what string, done func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(n.patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: not within %v", what, n.patience)
		}
		<-tick.C
	}
}

// say makes a message whose data is a text.
func (n *node) say(room message.Room, format string, args ...any) *message.Message {
	data, err := jsontext.AppendQuote(nil, fmt.Sprintf(format, args...))
	if err != nil {
		n.t.Errorf("a text of the suite's own is no UTF-8: %v", err)
	}
	return &message.Message{
		ID: message.ID{Low: n.minter.Low(room.Tag(), false)}, Type: message.TypeChat, Room: room, From: "ann",
		Data: data, Timestamp: time.Now().UnixMilli(),
	}
}

// hint makes an ephemeral message.
func (n *node) hint(room message.Room, format string, args ...any) *message.Message {
	m := n.say(room, format, args...)
	m.ID.Low, m.Ephemeral = n.minter.Low(room.Tag(), true), true
	return m
}

// publish publishes.
func (n *node) publish(m *message.Message) broker.Receipt {
	n.t.Helper()
	return n.publishKey(m, "", "")
}

// publishKey publishes with a caller and a key.
func (n *node) publishKey(m *message.Message, caller, key string) broker.Receipt {
	n.t.Helper()
	if err := m.Check(message.DefaultMaxDataBytes); err != nil {
		n.t.Fatalf("the suite's own message: %v", err)
	}
	r, err := n.Publish(n.t.Context(), broker.Publication{Message: m, Caller: caller, Key: key})
	if err != nil {
		n.t.Fatalf("Publish to %q = %v, want nil", m.Room, err)
	}
	if r.Degraded || r.ID.IsZero() || r.ID.Position == 0 {
		n.t.Fatalf("Publish to %q = %+v, want a receipt with an id, not degraded", m.Room, r)
	}
	return r
}

// fill publishes count messages with data "0", "1" and so on, and returns their receipts.
func (n *node) fill(room message.Room, count int) []broker.Receipt {
	n.t.Helper()
	rs := make([]broker.Receipt, count)
	for i := range rs {
		rs[i] = n.publish(n.say(room, "%d", i))
	}
	return rs
}

// subscribe subscribes a room and waits until it is live.
func (n *node) subscribe(room message.Room) {
	n.t.Helper()
	before := len(n.sink.lives(room))
	n.Subscribe(room)
	n.until(fmt.Sprintf("room %q is live", room), func() bool { return len(n.sink.lives(room)) > before })
}

// delivered waits until at least count entries of the room have come, and returns all there are.
func (n *node) delivered(room message.Room, count int) (es []message.Entry) {
	n.t.Helper()
	n.until(fmt.Sprintf("%d entries of room %q reach %s", count, room, n.Name), func() bool {
		es = n.sink.entries(room)
		return len(es) >= count
	})
	return es
}

// page asks for history.
func (n *node) page(q message.Query) message.Page {
	n.t.Helper()
	p, err := n.History(n.t.Context(), q)
	if err != nil {
		n.t.Fatalf("History(%+v) = %v, want nil", q, err)
	}
	return p
}

// kept is all that history has of a room.
func (n *node) kept(room message.Room) []message.Entry {
	n.t.Helper()
	return n.page(message.Query{Room: room, Limit: 100_000}).Entries
}

// texts are what say was given; data of another kind stands as it is.
func texts(es []message.Entry) (s []string) {
	for _, e := range es {
		text, err := jsontext.AppendUnquote(nil, e.Message.Data)
		if err != nil {
			text = e.Message.Data
		}
		s = append(s, string(text))
	}
	return s
}

// chained checks that the entries are in order and each names the one before it; the first one, prev.
func chained(t testing.TB, es []message.Entry, prev message.Position) {
	t.Helper()
	for i, e := range es {
		if e.Prev != prev || e.Message.ID.Position <= prev {
			t.Fatalf("entry %d of %d: position %d, prev %d; the one before has %d", i, len(es), e.Message.ID.Position, e.Prev, prev)
		}
		prev = e.Message.ID.Position
	}
}

// parallel runs f(0) to f(n-1) at once and waits for all.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-gate
			f(i)
		})
	}
	close(gate)
	wg.Wait()
}

// hammer has publishers publish count messages each, at once, from the nodes in turn; the data is "publisher/number".
func hammer(t testing.TB, room message.Room, publishers, count int, nodes ...*node) {
	t.Helper()
	parallel(publishers, func(p int) {
		n := nodes[p%len(nodes)]
		last := message.Position(0)
		for i := range count {
			r, err := n.Publish(t.Context(), broker.Publication{Message: n.say(room, "%d/%d", p, i)})
			if err != nil {
				t.Errorf("Publish = %v, want nil", err)
				return
			}
			if r.ID.Position <= last {
				t.Errorf("publisher %d: message %d has position %d, the one before it had %d", p, i, r.ID.Position, last)
			}
			last = r.ID.Position
		}
	})
}

// isErr checks an error.
func isErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}
