package brokertest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// pair is a bus of two nodes in one process: two ends of one Memory. It is what the suite's cases for two nodes are tried
// on. Each end has rooms and a Sink of its own; the rest is the Memory's.
type pair struct {
	memory *broker.Memory
	ends   [2]*end
	runs   sync.WaitGroup // of the Memory
	once   sync.Once      // it is run by the end that runs first
	cancel context.CancelFunc
	ready  chan struct{}

	mu      sync.Mutex
	running int
}

// end is one node's end of a pair.
type end struct {
	*broker.Memory
	pair  *pair
	name  string
	serve func(context.Context, broker.Request) broker.Reply

	mu    sync.RWMutex // a call of the Sink is under way: read
	sink  broker.Sink  // nil: it does not run
	ended chan struct{}

	wanted map[message.Room]int // by pair.mu: calls of Live that are due
	live   map[message.Room]bool
}

func newPair(cfg broker.MemoryConfig) *pair {
	p := &pair{memory: broker.NewMemory(cfg), ready: make(chan struct{})}
	for i, name := range []string{"n1", "n2"} {
		p.ends[i] = &end{
			Memory: p.memory, pair: p, name: name, ended: make(chan struct{}),
			wanted: make(map[message.Room]int), live: make(map[message.Room]bool),
		}
	}
	return p
}

func (e *end) Run(ctx context.Context, s broker.Sink, ready func()) error {
	p := e.pair
	p.mu.Lock()
	p.running++
	p.mu.Unlock()
	p.once.Do(func() {
		base, cancel := context.WithCancel(context.WithoutCancel(ctx))
		p.cancel = cancel
		p.runs.Go(func() { _ = p.memory.Run(base, p, func() { close(p.ready) }) })
	})
	<-p.ready
	e.mu.Lock()
	e.sink = s
	e.mu.Unlock()
	ready()
	<-ctx.Done()
	e.mu.Lock()
	e.sink = nil
	e.mu.Unlock()
	close(e.ended)
	p.mu.Lock()
	p.running--
	last := p.running == 0
	p.mu.Unlock()
	if last {
		p.cancel()
		p.runs.Wait()
	}
	return nil
}

// with calls f with the Sink, unless the end has ended.
func (e *end) with(f func(broker.Sink)) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.sink != nil {
		f(e.sink)
	}
}

func (e *end) closed() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.sink == nil
}

func (e *end) Subscribe(room message.Room) {
	e.pair.mu.Lock()
	e.wanted[room]++
	e.pair.mu.Unlock()
	e.Memory.Subscribe(room)
}

func (e *end) Unsubscribe(room message.Room) {
	e.pair.mu.Lock()
	defer e.pair.mu.Unlock()
	delete(e.live, room)
}

func (e *end) Serve(f func(context.Context, broker.Request) broker.Reply) { e.serve = f }

func (e *end) Ask(ctx context.Context, r broker.Request) (replies []broker.Reply, unreached []string, err error) {
	if e.closed() {
		return nil, nil, broker.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-e.ended:
			cancel()
		case <-ctx.Done():
		}
	})
	for _, o := range e.pair.ends {
		if o.serve == nil {
			continue
		}
		reply := o.serve(ctx, r)
		reply.Node = o.name
		if ctx.Err() != nil {
			unreached = append(unreached, o.name)
		} else {
			replies = append(replies, reply)
		}
	}
	return replies, unreached, nil
}

func (e *end) Publish(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
	if e.closed() {
		return broker.Receipt{}, broker.ErrClosed
	}
	return e.Memory.Publish(ctx, p)
}

// each calls f for the ends that want the room. The Memory calls the pair's Sink methods under the room's lock.
func (p *pair) each(room message.Room, f func(broker.Sink)) {
	for _, e := range p.ends {
		p.mu.Lock()
		live := e.live[room]
		p.mu.Unlock()
		if live {
			e.with(f)
		}
	}
}

func (p *pair) Append(e message.Entry) { p.each(e.Message.Room, func(s broker.Sink) { s.Append(e) }) }

func (p *pair) Live(room message.Room, tip message.Position, degraded bool) {
	for _, e := range p.ends {
		p.mu.Lock()
		due := e.wanted[room]
		delete(e.wanted, room)
		e.live[room] = e.live[room] || due > 0
		p.mu.Unlock()
		if due > 0 {
			e.with(func(s broker.Sink) { s.Live(room, tip, degraded) })
		}
	}
}

func (p *pair) Deleted(room message.Room, upTo message.Position) {
	p.each(room, func(s broker.Sink) { s.Deleted(room, upTo) })
}
func (p *pair) Gap(message.Room, message.Position, message.Position, message.GapReason) {}
func (p *pair) Degraded(message.Room)                                                   {}
func (p *pair) Restored(message.Room)                                                   {}

// pairFactory makes pairs, each end as wrap changes it; change changes a pair's settings.
func pairFactory(change func(*broker.MemoryConfig), wrap func(broker.Broker) broker.Broker) Factory {
	return Factory{
		Nodes:       2,
		ShortestAge: 150 * time.Millisecond,
		ShortestTTL: 150 * time.Millisecond,
		New: func(t testing.TB, n int, s Settings) (nodes []Node) {
			patterns, err := message.NewPatterns(s.Patterns)
			if err != nil {
				t.Fatal(err)
			}
			cfg := broker.MemoryConfig{Retention: s.Retention, Patterns: patterns, IdempotencyTTL: s.IdempotencyTTL}
			change(&cfg)
			for _, e := range newPair(cfg).ends[:n] {
				nodes = append(nodes, Node{Broker: wrap(e), Name: e.name})
			}
			return slices.Clip(nodes)
		},
	}
}

func TestTheSuitePassesOverTwoNodes(t *testing.T) {
	Run(t, pairFactory(func(*broker.MemoryConfig) {}, func(b broker.Broker) broker.Broker { return b }))
}
