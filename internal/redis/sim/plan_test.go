package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
)

// plan is a schedule: everything that is decided before it runs.
type plan struct {
	seed     uint64
	nodes    int
	rooms    []message.Room
	probe    time.Duration
	linger   time.Duration
	logBytes int64
	keep     broker.Retention

	peers      []*peer
	at         []int // the node each peer begins at
	publishers []publisher
	acts       []act
	length     time.Duration

	lossy   bool // the server may lose what it has taken
	trims   bool // history is short
	deletes bool // history is deleted
	mute    bool // what is stored may not be pushed: only what comes later, or a sweep of all rooms, brings it
}

// publisher is who publishes in a room, over a node.
type publisher struct {
	node  int
	room  message.Room
	times []time.Duration
}

// act is something that befalls the world.
type act struct {
	at   time.Duration
	what string
	do   func(w *world)
}

// fault is something that goes wrong, and how long.
type fault struct {
	name  string
	most  time.Duration // it lasts up to so long; 0: it is done at once
	do    func(r *rand.Rand, n int) (begin, end func(w *world))
	lossy bool // the server may lose what it has taken
}

func over(l func(w *world, l *Link)) func(*rand.Rand, int) (func(*world), func(*world)) {
	return func(_ *rand.Rand, n int) (func(*world), func(*world)) {
		return func(w *world) { l(w, w.nodes[n].link) }, nil
	}
}

func server(begin, end func(m *Model)) func(*rand.Rand, int) (func(*world), func(*world)) {
	return func(*rand.Rand, int) (func(*world), func(*world)) {
		return func(w *world) { begin(w.model) }, func(w *world) { end(w.model) }
	}
}

// faults are all there are.
var faults = []fault{
	{name: "its subscriptions break", do: over(func(_ *world, l *Link) { l.Cut(false, true) })},
	{name: "its command connection breaks", do: over(func(_ *world, l *Link) { l.Cut(true, false) })},
	{name: "its connections break", do: over(func(_ *world, l *Link) { l.Cut(true, true) })},
	{name: "its next command is lost", do: over(func(_ *world, l *Link) { l.Lose(false) })},
	{name: "its next answer is lost", do: over(func(_ *world, l *Link) { l.Lose(true) })},
	{name: "its subscriptions fall silent", do: over(func(_ *world, l *Link) { l.Deafen() })},
	{name: "nothing comes through, then all", most: 1900 * time.Millisecond, do: paused(false)},
	{name: "nothing comes through, then it breaks", most: 3 * time.Second, do: paused(true)},
	{name: "its messages are late", most: time.Second, do: func(r *rand.Rand, n int) (func(*world), func(*world)) {
		late := time.Duration(r.Int64N(int64(400 * time.Millisecond)))
		return func(w *world) { w.nodes[n].link.Delay(0, late) }, func(w *world) { w.nodes[n].link.Delay(0, 0) }
	}},
	{name: "its commands are slow", most: time.Second, do: func(r *rand.Rand, n int) (func(*world), func(*world)) {
		slow := time.Duration(r.Int64N(int64(400 * time.Millisecond)))
		return func(w *world) { w.nodes[n].link.Delay(slow, 0) }, func(w *world) { w.nodes[n].link.Delay(0, 0) }
	}},
	{name: "the server is away", most: 2 * time.Second, do: server((*Model).Down, func(m *Model) { m.Up(false) })},
	{name: "the server stops", most: 1900 * time.Millisecond, do: stopped},
	{name: "the server has no memory", most: time.Second, do: answers("OOM command not allowed when used memory > 'maxmemory'.")},
	{name: "the server is loading", most: time.Second, do: answers("LOADING Redis is loading the dataset in memory")},
	{name: "the server may not write", most: time.Second, do: answers("READONLY You can't write against a read only replica.")},
	{name: "publishing is not allowed", most: 500 * time.Millisecond, do: server(func(m *Model) { m.Mute(true) }, func(m *Model) { m.Mute(false) })},
	{name: "the server's clock is set forward", do: func(r *rand.Rand, _ int) (func(*world), func(*world)) {
		d := time.Duration(r.Int64N(int64(3 * time.Second)))
		return func(w *world) { w.model.Step(d) }, nil
	}},
	{name: "the replica takes over and has all", most: time.Second, do: failover(0)},
	{name: "the replica takes over without the end", most: time.Second, do: failover(400 * time.Millisecond), lossy: true},
	{name: "the server starts again empty", most: time.Second, do: server((*Model).Down, func(m *Model) { m.Up(true) }), lossy: true},
	{name: "history is deleted", do: deleted},
}

func paused(cut bool) func(*rand.Rand, int) (func(*world), func(*world)) {
	return func(_ *rand.Rand, n int) (func(*world), func(*world)) {
		return func(w *world) { w.nodes[n].link.Pause() }, func(w *world) { w.nodes[n].link.Resume(cut) }
	}
}

func stopped(*rand.Rand, int) (begin, end func(*world)) {
	each := func(f func(l *Link)) func(*world) {
		return func(w *world) {
			for _, n := range w.nodes {
				f(n.link)
			}
		}
	}
	return each((*Link).Pause), each(func(l *Link) { l.Resume(false) })
}

func answers(text redis.ServerError) func(*rand.Rand, int) (func(*world), func(*world)) {
	return server(func(m *Model) { m.Answer(text) }, func(m *Model) { m.Answer("") })
}

// failover has the server gone, and then another one in its place, whose clock is another: but never so far behind that time
// has gone back when it answers, for what a node takes for the time before it has seen a position would be wrong.
func failover(lag time.Duration) func(*rand.Rand, int) (func(*world), func(*world)) {
	return func(r *rand.Rand, _ int) (func(*world), func(*world)) {
		share, ahead := r.Float64(), time.Duration(r.Int64N(int64(time.Second)))
		begun, some := time.Duration(0), time.Duration(0)
		if lag > 0 {
			some = time.Duration(r.Int64N(int64(lag)))
		}
		return func(w *world) {
				w.say("%d scripts are lost", w.model.Failover(some))
				w.model.Down()
				begun = w.elapsed()
			}, func(w *world) {
				if share < 0.7 {
					ahead = -time.Duration(share * float64(w.elapsed()-begun))
				}
				w.model.Step(ahead)
				w.model.Up(false)
			}
	}
}

func deleted(r *rand.Rand, n int) (begin, end func(*world)) {
	pick := r.IntN(8)
	return func(w *world) {
		room := w.plan.rooms[pick%len(w.plan.rooms)]
		w.running.Go(func() { w.delete(w.nodes[n], room) })
	}, nil
}

// newPlan draws a schedule. keeps: faults through which the server loses something are left out of it.
func newPlan(seed uint64, keeps bool) *plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := &plan{
		seed: seed, nodes: 2 + r.IntN(2), rooms: []message.Room{"a", "b"}[:1+r.IntN(2)],
		probe: 400 * time.Millisecond, linger: 45 * time.Second, logBytes: 1 << 20,
		length: 500*time.Millisecond + time.Duration(r.Int64N(int64(2*time.Second))),
	}
	if r.IntN(3) == 0 {
		p.linger = 300 * time.Millisecond
	}
	if r.IntN(3) == 0 {
		p.logBytes = 2 << 10
	}
	if r.IntN(8) == 0 {
		p.trims, p.keep.Messages = true, 10
	}
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(r.Int64N(int64(to-from))) }
	for n := range p.nodes {
		for _, room := range p.rooms {
			b := publisher{node: n, room: room}
			for at := between(0, 100*time.Millisecond); at < p.length; {
				b.times = append(b.times, at)
				if at += between(0, 150*time.Millisecond); r.IntN(4) == 0 {
					at -= between(0, 100*time.Millisecond) // a burst: as soon as the one before is answered
				}
			}
			p.publishers = append(p.publishers, b)
		}
		if n == 0 || r.IntN(2) == 0 {
			p.add(&peer{name: fmt.Sprintf("stays%d", n+1), rooms: p.rooms}, n)
		}
	}
	for i := range 1 + r.IntN(3) {
		q := &peer{name: fmt.Sprintf("moves%d", i+1), rooms: p.rooms[:1+r.IntN(len(p.rooms))]}
		p.add(q, r.IntN(p.nodes))
		p.move(q, r, between)
	}
	for range r.IntN(5) {
		p.fail(r, between, keeps)
	}
	slices.SortFunc(p.acts, func(a, b act) int { return cmp.Compare(a.at, b.at) })
	return p
}

func (p *plan) add(q *peer, n int) {
	q.last, q.stood, q.ends = make(map[message.Room]message.ID), make(map[message.Room]bool), make(map[int]time.Duration)
	p.peers, p.at = append(p.peers, q), append(p.at, n)
}

// move has a peer go from node to node, or stop reading for a while.
func (p *plan) move(q *peer, r *rand.Rand, between func(from, to time.Duration) time.Duration) {
	for at := between(0, 500*time.Millisecond); at < p.length; at += between(20*time.Millisecond, 600*time.Millisecond) {
		if r.IntN(4) == 0 {
			limit := r.IntN(600)
			p.acts = append(p.acts, act{at, q.name + " stalls", func(*world) {
				if q.sock != nil {
					q.sock.stall(limit)
				}
			}})
			at += between(0, 300*time.Millisecond)
			p.acts = append(p.acts, act{at, q.name + " reads on", func(*world) {
				if q.sock != nil {
					q.sock.unstall()
				}
			}})
			continue
		}
		p.acts = append(p.acts, act{at, q.name + " leaves", func(*world) { q.cut(false) }})
		at += between(0, 200*time.Millisecond)
		n := r.IntN(p.nodes)
		p.acts = append(p.acts, act{at, q.name + " comes back", func(w *world) { q.connect(w.nodes[n]) }})
	}
}

// fail adds a fault.
func (p *plan) fail(r *rand.Rand, between func(from, to time.Duration) time.Duration, keeps bool) {
	f, n := faults[r.IntN(len(faults))], r.IntN(p.nodes)
	begin, end := f.do(r, n)
	at := between(0, p.length)
	more := time.Duration(0)
	if f.most > 0 {
		more = between(time.Millisecond, f.most)
	}
	if keeps && f.lossy {
		return
	}
	p.lossy = p.lossy || f.lossy
	p.deletes = p.deletes || f.name == "history is deleted"
	p.mute = p.mute || f.name == "publishing is not allowed"
	name := f.name
	if strings.HasPrefix(name, "its") || strings.HasPrefix(name, "nothing") {
		name = fmt.Sprintf("n%d: %s", n+1, name)
	}
	p.acts = append(p.acts, act{at, name, begin})
	if end != nil {
		p.acts = append(p.acts, act{at + more, "no more: " + name, end})
	}
}
