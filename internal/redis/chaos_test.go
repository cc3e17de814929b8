package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
)

// recorder is a Sink that keeps what it is told and checks the order.
type recorder struct {
	t     *testing.T
	name  string
	block func(room message.Room) // called by Append, outside the lock
	lossy bool                    // Redis loses something: what an entry names as before it may be gone, or be known by another position

	mu     sync.Mutex
	rooms  map[message.Room]*record
	events []string // degraded and restored
}

type record struct {
	lives, gaps, belated, degraded int
	last, cut                      message.Position
	behind                         message.Position  // the last gap: what lies there names what lay in it
	why                            message.GapReason // of the last gap
	entries                        []message.Entry
	known                          map[message.Low]bool
}

func (s *recorder) room(name message.Room) *record {
	r := s.rooms[name]
	if r == nil {
		r = &record{known: make(map[message.Low]bool)}
		s.rooms[name] = r
	}
	return r
}

func (s *recorder) Append(e message.Entry) {
	if e.Flags&message.Shown != 0 {
		return
	}
	if s.block != nil {
		s.block(e.Message.Room)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room(e.Message.Room)
	id := e.Message.ID
	if r.known[id.Low] {
		s.t.Errorf("%s: %v comes twice", s.name, id)
	}
	r.known[id.Low] = true
	switch {
	case e.Flags&message.Ephemeral != 0:
		return
	case e.Flags&message.Belated != 0:
		r.belated++
	case e.Flags == 0 && id.Position <= r.last:
		s.t.Errorf("%s: position %d of %q comes after %d", s.name, id.Position, e.Message.Room, r.last)
	case e.Flags == 0 && e.Prev != r.last && r.last != 0 && (r.degraded == 0 || e.Prev < r.last) && id.Position != r.behind && !s.lossy: // what was shown already does not come again
		s.t.Errorf("%s: position %d of %q names %d before it, %d was", s.name, id.Position, e.Message.Room, e.Prev, r.last)
	}
	if e.Flags&message.Degraded != 0 {
		r.degraded++
	} else {
		r.last = max(r.last, id.Position)
	}
	r.entries = append(r.entries, e)
}

func (s *recorder) Live(room message.Room, tip message.Position, _ bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room(room)
	r.lives++
	r.last = tip
}

func (s *recorder) Gap(room message.Room, _, before message.Position, why message.GapReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room(room)
	r.gaps++
	r.why = why
	r.last, r.behind = max(r.last, before-1), before
}

func (s *recorder) Deleted(room message.Room, upTo message.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room(room)
	r.last, r.cut = max(r.last, upTo), upTo
}

func (s *recorder) Degraded(room message.Room) { s.event("degraded " + string(room)) }
func (s *recorder) Restored(room message.Room) { s.event("restored " + string(room)) }

func (s *recorder) event(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, what)
}

// look returns what is recorded of a room.
func (s *recorder) look(name message.Room) record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := *s.room(name)
	r.entries, r.known = slices.Clone(r.entries), maps.Clone(r.known)
	return r
}

// node is a node of a bus under test.
type node struct {
	*redis.Broker
	t      *testing.T
	sink   *recorder
	minter *message.Minter
	stop   func()
}

// newNode runs a node until the test ends.
func newNode(t *testing.T, number int, cfg redis.Config) *node {
	t.Helper()
	cfg.NodeID = fmt.Sprintf("r%d", number)
	cfg.Minter = message.NewMinter(uint16(number))
	n := &node{t: t, minter: cfg.Minter, Broker: redis.New(cfg), sink: &recorder{t: t, name: cfg.NodeID, rooms: make(map[message.Room]*record)}}
	return n
}

// run runs the node and returns when it is ready.
func (n *node) run() *node {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.Run(ctx, n.sink, func() { close(ready) }); err != nil {
			n.t.Errorf("Run = %v", err)
		}
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	n.t.Cleanup(n.stop)
	select {
	case <-ready:
	case <-time.After(patience):
		n.t.Fatalf("%s is not ready within %v", n.sink.name, patience)
	}
	return n
}

const patience = 20 * time.Second

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// live subscribes rooms and waits until they are live.
func (n *node) live(rooms ...message.Room) {
	n.t.Helper()
	for _, room := range rooms {
		n.Subscribe(room)
	}
	until(n.t, "all rooms are live", func() bool {
		return !slices.ContainsFunc(rooms, func(room message.Room) bool { return n.sink.look(room).lives == 0 })
	})
}

// say publishes a message and returns the identity it got.
func (n *node) say(room message.Room, text string) (message.Low, broker.Receipt, error) {
	m := n.message(room, text)
	r, err := n.Publish(n.t.Context(), broker.Publication{Message: m})
	return r.ID.Low, r, err
}

func (n *node) message(room message.Room, text string) *message.Message {
	return &message.Message{
		ID: message.ID{Low: n.minter.Low(room.Tag(), false)}, Type: message.TypeChat, Room: room, From: n.sink.name,
		Data: fmt.Appendf(nil, "%q", text), Timestamp: time.Now().UnixMilli(),
	}
}

// load publishes from all nodes in all rooms until it is stopped.
type load struct {
	wg    sync.WaitGroup
	quit  chan struct{}
	mu    sync.Mutex
	acked map[message.Room][]message.Low
	ids   map[message.Low]message.ID // of those that were stored when they were acknowledged
	fails int
}

// startLoad has each node publish in each room, every pace one message.
func startLoad(rooms []message.Room, pace time.Duration, nodes ...*node) *load {
	l := &load{quit: make(chan struct{}), acked: make(map[message.Room][]message.Low), ids: make(map[message.Low]message.ID)}
	for _, n := range nodes {
		for _, room := range rooms {
			l.wg.Go(func() { l.publish(n, room, pace) })
		}
	}
	return l
}

func (l *load) publish(n *node, room message.Room, pace time.Duration) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.quit:
			return
		case <-tick.C:
		}
		low, r, err := n.say(room, fmt.Sprintf("%s/%d", n.sink.name, i))
		l.mu.Lock()
		if err == nil {
			l.acked[room] = append(l.acked[room], low)
			if !r.Degraded {
				l.ids[low] = r.ID
			}
		} else {
			l.fails++
		}
		l.mu.Unlock()
	}
}

func (l *load) stop() int {
	close(l.quit)
	l.wg.Wait()
	n := 0
	for _, lows := range l.acked {
		n += len(lows)
	}
	return n
}

// settled checks that on each node exactly what the stream has was delivered, in its order, and that nothing that was
// acknowledged is missing.
func (l *load) settled(t *testing.T, nodes ...*node) {
	t.Helper()
	for room, acked := range l.acked {
		var want []message.ID
		p, err := nodes[0].History(t.Context(), message.Query{Room: room})
		if err != nil {
			t.Fatal(err)
		}
		stored := make(map[message.Low]bool)
		for _, e := range p.Entries {
			if stored[e.Message.ID.Low] {
				t.Errorf("room %q holds %v twice", room, e.Message.ID)
			}
			stored[e.Message.ID.Low] = true
			want = append(want, e.Message.ID)
		}
		for _, low := range acked {
			if !stored[low] {
				t.Errorf("room %q: %x was acknowledged and is not stored", room, low)
			}
		}
		for _, n := range nodes {
			until(t, "all that is stored is delivered", func() bool { return len(n.sink.look(room).entries) >= len(want) })
			r := n.sink.look(room)
			got := make([]message.ID, 0, len(want))
			for _, e := range r.entries {
				got = append(got, e.Message.ID)
			}
			if !slices.Equal(got, want) || r.gaps > 0 || r.belated > 0 {
				t.Errorf("room %q on %s: %d delivered, %d stored, in the same order: %v; %d gaps, %d belated", room, n.sink.name, len(got), len(want), slices.Equal(got, want), r.gaps, r.belated)
			}
		}
	}
}

func roomNames(n int) []message.Room {
	rooms := make([]message.Room, n)
	for i := range rooms {
		rooms[i] = message.Room(fmt.Sprintf("room-%d", i))
	}
	return rooms
}

// pace calls f so often, with so much time in between.
func pace(times int, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for range times {
		<-tick.C
		f()
	}
}

// proxied is a proxy before a server.
func proxied(t *testing.T, upstream string) *toxiproxy.Proxy {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "redis", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// blackHole lets nothing through any more; the function it returns cuts what was connected, and lets what comes after through.
func blackHole(t *testing.T, p *toxiproxy.Proxy) (end func()) {
	t.Helper()
	var names []string
	for _, stream := range []string{"upstream", "downstream"} {
		name := "hole-" + stream
		names = append(names, name)
		toxic := fmt.Sprintf(`{"name":%q,"type":"timeout","stream":%q,"toxicity":1,"attributes":{"timeout":0}}`, name, stream)
		if _, err := p.Toxics.AddToxicJson(bytes.NewBufferString(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		for _, name := range names {
			if err := p.Toxics.RemoveToxic(context.WithoutCancel(t.Context()), name); err != nil {
				t.Error(err)
			}
		}
	}
}
