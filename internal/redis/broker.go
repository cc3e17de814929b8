package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Config configures a Broker; zero fields take their defaults.
type Config struct {
	Options
	// Port is the way to Redis; nil: to the one that Options name. Over another one neither Rooms nor Revocations answer.
	Port   Port
	NodeID string // as replies to Ask name this node

	// Retention is that of rooms which no pattern names. Fields that are zero take those of broker.DefaultRetention. A
	// negative Messages keeps no history at all.
	Retention broker.Retention
	// Patterns is the retention by room pattern; fields that are zero take those of Retention.
	Patterns message.Patterns[broker.Retention]

	IdempotencyTTL time.Duration // how long keys are remembered, in whole seconds; default broker.DefaultIdempotencyTTL
	// Grace is how long a publish is tried again while Redis does not answer; default 300 ms.
	Grace time.Duration
	// ProbeAfter is how long a subscription connection may bring nothing before it is tried with a message to itself, and
	// how long that may take; default 5 s.
	ProbeAfter time.Duration
	Backlog    int // pushes that wait to be put in order, per worker; what is above it is read from the stream. Default 8,192
	// Reject names the rooms in which nothing is taken while Redis is away, by pattern. In the others messages reach this
	// node's sessions at once and are stored when it is back.
	Reject    message.Patterns[bool]
	MaxOutbox int64 // bytes of messages kept while Redis is away; above it ErrOverloaded. Default 256 MiB
	MaxQueued int64 // bytes of messages that wait to be published, in all rooms; above it ErrOverloaded. Default 64 MiB

	Minter *message.Minter // makes the ids of what other programs publish; nil: one of its own
}

func (c *Config) setDefaults() {
	c.Options.setDefaults()
	if c.Port == nil {
		c.Port = newServer(c.Options)
	}
	c.Retention = fill(c.Retention, broker.DefaultRetention)
	c.IdempotencyTTL = cmp.Or(c.IdempotencyTTL, broker.DefaultIdempotencyTTL)
	c.Grace = cmp.Or(c.Grace, 300*time.Millisecond)
	c.ProbeAfter = cmp.Or(c.ProbeAfter, 5*time.Second)
	c.Backlog = cmp.Or(c.Backlog, 8192)
	c.MaxOutbox = cmp.Or(c.MaxOutbox, 256<<20)
	c.MaxQueued = cmp.Or(c.MaxQueued, 64<<20)
	if c.Minter == nil {
		c.Minter = message.NewMinter(uint16(mathrand.Uint32()))
	}
}

func fill(keep, other broker.Retention) broker.Retention {
	return broker.Retention{Messages: cmp.Or(keep.Messages, other.Messages), Age: cmp.Or(keep.Age, other.Age)}
}

const (
	streamSpare = 120 * time.Second // a stream outlives its youngest entry's age by this
	beatEvery   = 2 * time.Second
	lease       = 6 * time.Second
	guardFor    = 5 * time.Minute // after a redial scripts are told what positions there were
)

// Broker is a node's end of a bus over Redis. It is safe for concurrent use; Run once.
type Broker struct {
	cfg   Config
	keys  keys
	log   *slog.Logger
	inc   string // this incarnation of the node
	start time.Time
	clock *clock
	serve func(context.Context, broker.Request) broker.Reply
	sink  broker.Sink

	ran                  atomic.Bool
	wire                 *wire
	conns                []*conn
	forks                atomic.Int64 // signs that Redis lost something
	junk, refused, broke limited
	root                 context.Context // of publishes, which end by themselves; it is Run's, but outlives it
	born                 atomic.Uint64   // since when the data in Redis exists
	guard                atomic.Int64    // until when, as a time since the start
	tasks                sync.WaitGroup
	queues               queues
	outbox               outbox
	away                 atomic.Bool                       // as the outbox says
	lost                 chan struct{}                     // away has begun
	others               atomic.Pointer[map[string]string] // the nodes that were there when Redis was last asked

	workers []*worker
	heals   roomList
	later   laterList
	touched touched

	mu       sync.RWMutex // guards rooms
	rooms    map[string]*room
	done     chan struct{} // closed when nothing is accepted any more
	open     atomic.Bool
	control  chan string // requests and replies that have come
	pendings pendings
}

var _ broker.Broker = (*Broker)(nil)

// New makes a bus that dials nothing and accepts nothing until Run.
func New(cfg Config) *Broker {
	cfg.setDefaults()
	now := time.Now()
	k := keys(cfg.Prefix)
	return &Broker{
		cfg: cfg, keys: k, log: cfg.Logger.With("component", "redis"),
		wire:  &wire{port: cfg.Port, keys: k, verb: "PUBLISH", call: cfg.CallTimeout, reads: cfg.ReadTimeout},
		inc:   strconv.FormatInt(now.UnixMilli(), 36) + "." + strings.ToLower(rand.Text()[:4]),
		start: now, clock: &clock{start: now}, rooms: make(map[string]*room), done: make(chan struct{}),
		outbox: outbox{rooms: make(map[message.Room][]*parked), keys: make(map[string]broker.Receipt)}, lost: make(chan struct{}, 1),
		queues: queues{rooms: make(map[message.Room]*queue)}, heals: newRoomList(), later: newLaterList(),
		control: make(chan string, 1024), pendings: pendings{asks: make(map[string]*pending)},
	}
}

func (b *Broker) elapsed() time.Duration { return time.Since(b.start) }

func (b *Broker) retention(name message.Room) broker.Retention {
	keep, _ := b.cfg.Patterns.Lookup(name)
	return fill(keep, b.cfg.Retention)
}

// oldest is the position before which the room keeps nothing.
func (b *Broker) oldest(name message.Room) message.Position {
	return message.At(b.clock.millis(), 0).Before(b.retention(name).Age)
}

func tipTTL(keep broker.Retention) time.Duration { return max(24*time.Hour, keep.Age+time.Hour) }

// Run implements broker.Broker.
func (b *Broker) Run(ctx context.Context, s broker.Sink, ready func()) error {
	if b.ran.Swap(true) {
		return errors.New("redis: a Broker runs only once")
	}
	if err := b.cfg.check(); err != nil {
		return err
	}
	b.sink, b.root = s, context.WithoutCancel(ctx)
	err := b.connect(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case refused(err):
		return fmt.Errorf("redis refuses us: check user, password and rights: %w", err)
	case err != nil:
		b.goAway(err)
	}
	defer b.wire.close()
	running, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	b.launch(running, &loops)
	fatal := make(chan error, 1)
	loops.Go(func() { fatal <- b.watch(running) })
	if b.controlReady(running) {
		b.open.Store(true)
		ready()
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-fatal:
	}
	b.open.Store(false)
	b.queues.close()
	close(b.done)
	b.tasks.Wait()
	stop()
	loops.Wait()
	if n := b.outbox.count(); n > 0 {
		b.log.Error("messages of an outage are lost: the node ends before redis is back", "count", n)
	}
	b.leave(context.WithoutCancel(ctx))
	return err
}

// connect dials, if Redis was not reached yet, and gives a sign of life.
func (b *Broker) connect(ctx context.Context) error {
	if err := b.wire.open(ctx, b.dialled); err != nil {
		return err
	}
	return b.beat(ctx)
}

// dialled notes that the command connection is a new one: perhaps to another server, whose clock may be behind.
func (b *Broker) dialled() { b.guard.Store(int64(b.elapsed() + guardFor)) }

// launch starts everything that runs until the context ends.
func (b *Broker) launch(ctx context.Context, loops *sync.WaitGroup) {
	for i := range max(1, min(4, runtime.NumCPU()/4)) {
		c := newConn(b, b.keys.probe(b.inc, i))
		c.want(c.probe, true)
		b.conns = append(b.conns, c)
	}
	b.conns[0].want(b.keys.control(), true)
	b.conns[0].want(b.keys.node(b.inc), true)
	for range max(2, runtime.GOMAXPROCS(0)) {
		b.workers = append(b.workers, newWorker(b))
	}
	for _, c := range b.conns {
		loops.Go(func() { c.run(ctx) })
		loops.Go(func() { c.attachAll(ctx) })
	}
	for _, w := range b.workers {
		loops.Go(func() { w.run(ctx) })
	}
	for range healers {
		loops.Go(func() { b.healAll(ctx) })
	}
	loops.Go(func() { b.later.run(ctx) })
	loops.Go(func() { b.beats(ctx) })
	loops.Go(func() { b.controls(ctx) })
	loops.Go(func() { b.sweep(ctx) })
}

// controlReady waits until questions and replies reach this node.
func (b *Broker) controlReady(ctx context.Context) bool {
	for !b.away.Load() && !b.conns[0].holds(b.keys.control(), b.keys.node(b.inc)) {
		if !pause(ctx, subscribeTick) {
			return false
		}
	}
	return true
}

// usable tells whether a call may begin.
func (b *Broker) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !b.open.Load() {
		return broker.ErrClosed
	}
	return nil
}

// failed is the error of a call that Redis did not do.
func (b *Broker) failed(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !b.open.Load():
		return broker.ErrClosed
	}
	if _, ok := answered(err); ok {
		return fmt.Errorf("redis: %s: %w", what, err)
	}
	return fmt.Errorf("redis: %s: %w: %w", what, broker.ErrUnavailable, err)
}

// Now implements broker.Broker.
func (b *Broker) Now() message.Position { return b.clock.now() }

// Subscribe implements broker.Broker.
func (b *Broker) Subscribe(name message.Room) {
	if !b.open.Load() {
		return
	}
	ch := b.keys.channel(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rooms[ch] != nil {
		return
	}
	h := spread(ch)
	r := &room{name: name, ch: ch, b: b, conn: b.conns[h%uint32(len(b.conns))], worker: b.workers[h%uint32(len(b.workers))]}
	b.rooms[ch] = r
	r.conn.want(ch, true)
	if b.away.Load() {
		r.attachBlind()
	}
}

// Unsubscribe implements broker.Broker. No entry arrives after it has returned.
func (b *Broker) Unsubscribe(name message.Room) {
	ch := b.keys.channel(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.rooms[ch]; r != nil {
		delete(b.rooms, ch)
		r.stop()
		r.conn.want(ch, false)
	}
}

// find returns the room of a channel, if it is subscribed.
func (b *Broker) find(ch string) *room {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.rooms[ch]
}

// attach brings rooms whose subscription is confirmed up to date; false: their tips could not be read.
func (b *Broker) attach(ctx context.Context, channels []string) bool {
	rooms := make([]*room, 0, len(channels))
	names := channels[:0:0]
	for _, ch := range channels {
		if r := b.find(ch); r != nil {
			rooms, names = append(rooms, r), append(names, ch)
		}
	}
	if len(rooms) == 0 {
		return true
	}
	tips, err := b.wire.tips(ctx, names)
	if err != nil {
		return false
	}
	for i, r := range rooms {
		r.attach(tips[i].tip, tips[i].cut)
	}
	return true
}

// spread is FNV-1a-32.
func spread(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// Delete implements broker.Broker.
func (b *Broker) Delete(ctx context.Context, name message.Room) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	ch := b.keys.channel(name)
	err := b.wire.run(ctx, ScriptDelete, []string{b.keys.stream(ch), b.keys.tip(ch), b.keys.cut(ch)},
		[]string{ch, b.wire.verb, seconds(tipTTL(b.retention(name)))})
	if err != nil {
		return b.failed(ctx, "delete", err)
	}
	return nil
}
