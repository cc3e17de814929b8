package sim

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
)

// node is a node: a broker and a hub, and its network to the server.
type node struct {
	name   string
	link   *Link
	broker *redis.Broker
	hub    *hub.Hub
	minter *message.Minter
	ready  chan struct{}
}

// world is one schedule under way.
type world struct {
	t       testing.TB
	plan    *plan
	start   time.Time
	model   *Model
	nodes   []*node
	peers   []*peer
	ctx     context.Context // of publishes
	running sync.WaitGroup

	mu   sync.Mutex
	said []said
	sent []*sent
	low  map[message.Low]*sent
	told map[string]int // what peers were told of, by event or reason
}

// sent is a message that was published.
type sent struct {
	at        time.Duration
	by        string // who has published it: node and room
	room      message.Room
	number    int
	low       message.Low // without P
	ephemeral bool
	deleted   bool // history was deleted when it may have been in it
	done      bool
	receipt   broker.Receipt
	err       error
}

const unstored = message.Low(1 << 61) // the bit P

// identity is what a message is known by, whether it was shown before it was stored or not.
func identity(low message.Low) message.Low { return low &^ unstored }

func (w *world) elapsed() time.Duration { return time.Since(w.start) }

// said is what has happened; it is written down only for who has to understand it.
type said struct {
	at     time.Duration
	format string
	args   []any
}

// say notes what happens.
func (w *world) say(format string, args ...any) {
	at := w.elapsed()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, said{at, format, args})
}

// story is all that has happened.
func (w *world) story() string {
	var b strings.Builder
	for _, s := range w.said {
		fmt.Fprintf(&b, "%10s %s\n", s.at.Round(time.Microsecond), strings.TrimSpace(fmt.Sprintf(s.format, s.args...)))
	}
	return b.String()
}

// logs is a node's logger in words of the schedule.
type logs struct {
	slog.Handler
	w    *world
	name string
}

// Enabled and the others implement slog.Handler.
func (l logs) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l logs) Handle(_ context.Context, r slog.Record) error {
	args := []any{l.name, r.Message}
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, a)
		return true
	})
	l.w.say("%s: %s "+strings.Repeat(" %v", len(args)-2), args...)
	return nil
}

func (l logs) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l logs) WithGroup(string) slog.Handler      { return l }

// run runs a plan in a bubble and returns what has happened.
func run(t testing.TB, p *plan) *world {
	w := &world{t: t, plan: p, low: make(map[message.Low]*sent), told: make(map[string]int)}
	inBubble(t, func() {
		// A position has 13 digits of milliseconds, as from 2001 to 2286; a bubble begins before.
		time.Sleep(27 * 365 * 24 * time.Hour)
		w.begin()
	})
	return w
}

func inBubble(t testing.TB, f func()) {
	tt, _ := t.(*testing.T)
	synctest.Test(tt, func(*testing.T) { f() })
}

// begin runs it all, inside the bubble.
func (w *world) begin() {
	w.start = time.Now()
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	var server, nodes sync.WaitGroup
	w.model = New(w.plan.seed)
	w.ctx = base
	serving, stop := context.WithCancel(base)
	server.Go(func() { w.model.Run(serving) })
	living, kill := context.WithCancel(base)
	for i := range w.plan.nodes {
		w.nodes = append(w.nodes, w.newNode(i))
	}
	for _, n := range w.nodes {
		n.run(living, &nodes, w)
	}
	for _, n := range w.nodes {
		<-n.ready
	}
	w.play()
	for _, p := range w.peers {
		p.cut(true)
	}
	kill()
	nodes.Wait()
	stop()
	server.Wait()
}

func (w *world) newNode(i int) *node {
	n := &node{name: fmt.Sprintf("n%d", i+1), link: w.model.Link(), minter: message.NewMinter(uint16(i + 1)), ready: make(chan struct{})}
	logger := slog.New(logs{w: w, name: n.name})
	n.broker = redis.New(redis.Config{
		Options: redis.Options{Logger: logger}, Port: n.link, Rand: w.plan.rand(uint64(50 + i)),
		Incarnation: fmt.Sprintf("%d.boot.sim", i+1), Minter: n.minter, ProbeAfter: w.plan.probe, Retention: w.plan.keep,
	})
	n.hub = hub.New(hub.Config{Shards: 1, Linger: w.plan.linger, RoomBytes: w.plan.logBytes}, n.broker, n.minter, logger)
	return n
}

func (n *node) run(ctx context.Context, wg *sync.WaitGroup, w *world) {
	ready := make(chan struct{})
	wg.Go(func() {
		if err := n.broker.Run(ctx, n.hub, func() { close(ready) }); err != nil {
			w.t.Errorf("%s: Run = %v", n.name, err)
		}
	})
	wg.Go(func() {
		<-ready
		close(n.ready)
		_ = n.hub.Run(ctx) // it has no errors
	})
}

// publish publishes one message and notes what became of it.
func (w *world) publish(n *node, by string, room message.Room, number int, ephemeral bool) {
	s := &sent{at: w.elapsed(), by: by, room: room, number: number, low: n.minter.Low(room.Tag(), false), ephemeral: ephemeral}
	w.mu.Lock()
	w.sent = append(w.sent, s)
	w.low[s.low] = s
	w.mu.Unlock()
	m := &message.Message{
		ID: message.ID{Low: s.low}, Type: message.TypeChat, Room: room, From: by, Data: fmt.Appendf(nil, "%d", number),
		Timestamp: time.Now().UnixMilli(), Ephemeral: ephemeral,
	}
	if ephemeral {
		m.ID.Low |= unstored
	}
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	receipt, err := n.broker.Publish(ctx, broker.Publication{Message: m})
	w.mu.Lock()
	s.done, s.receipt, s.err = true, receipt, err
	w.mu.Unlock()
	w.say("%s publishes %s/%d: %s %v degraded %v", n.name, by, number, where(receipt.ID), err, receipt.Degraded)
}

// delete deletes a room's history. What was published before, it may have deleted; so may one that failed.
func (w *world) delete(n *node, room message.Room) {
	err := n.broker.Delete(w.ctx, room)
	w.say("history of %s was deleted: %v", room, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sent {
		s.deleted = s.deleted || s.room == room
	}
}

// where is an id in short.
func where(id message.ID) fmt.Stringer { return shortID(id) }

type shortID message.ID

func (id shortID) String() string {
	return fmt.Sprintf("%d-%d/%x", id.Position.Millis()%1_000_000, id.Position.Seq(), uint64(id.Low)&0xffff_ffff)
}

// publisher publishes in a room, one message after the other.
func (w *world) publisher(n *node, room message.Room, times []time.Duration, rnd *rand.Rand) {
	by := n.name + "." + string(room)
	for i, at := range times {
		if !w.until(at) {
			return
		}
		w.publish(n, by, room, i+1, rnd.IntN(8) == 0)
	}
}

// until waits for a time of the schedule.
func (w *world) until(at time.Duration) bool {
	t := time.NewTimer(at - w.elapsed())
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// stored reads all that history has of a room, over a node.
func (w *world) stored(n *node, room message.Room) (es []message.Entry, cut message.Position, err error) {
	from := message.Position(0)
	for {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		p, err := n.broker.History(ctx, message.Query{Room: room, From: from, Limit: 500})
		cancel()
		if err != nil {
			return nil, 0, err
		}
		es = append(es, p.Entries...)
		cut = cmp.Or(cut, p.Cut)
		if !p.More {
			return es, cut, nil
		}
		from = es[len(es)-1].Message.ID.Position
	}
}

// taken tells whether a message was acknowledged.
func (s *sent) taken() bool { return s.done && s.err == nil }
