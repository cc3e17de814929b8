package redis

import (
	"cmp"
	"context"
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

	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Config configures a Broker; zero fields take their defaults.
type Config struct {
	Options
	// Port is the way to Redis; nil: to the one that Options name. Over another one neither Rooms nor Revocations answer.
	Port Port
	// NodeID is as replies to Ask name this node: its number in base 36, as Number draws it; "": a random one.
	NodeID string
	// Incarnation is the node's name in all it writes, at most 64 bytes without ":" and "~"; the NodeID stands before its
	// first dot. "": one of this run alone.
	Incarnation string
	Lease       time.Duration // how long what the node has written stands without a sign of life of it; default 6 s
	Beat        time.Duration // how often it gives one, and looks at the others'; default 2 s
	// Revoked is called with each new version of the revocations, within Beat of the change. It does not wait.
	Revoked func(version uint64)

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

	Tracer trace.Tracer    // of spans of what Redis is asked; nil: none
	Minter *message.Minter // makes the ids of what other programs publish; nil: one of its own
	Rand   mathrand.Source // what is left to chance in the order of things; nil: the runtime's
}

func (c *Config) setDefaults() {
	c.Options.setDefaults()
	c.Retention = fill(c.Retention, broker.DefaultRetention)
	c.IdempotencyTTL = cmp.Or(c.IdempotencyTTL, broker.DefaultIdempotencyTTL)
	c.Grace = cmp.Or(c.Grace, 300*time.Millisecond)
	c.ProbeAfter = cmp.Or(c.ProbeAfter, 5*time.Second)
	if c.Port == nil {
		c.Port = newServer(c.Options, c.ProbeAfter)
	}
	c.Backlog = cmp.Or(c.Backlog, 8192)
	c.MaxOutbox = cmp.Or(c.MaxOutbox, 256<<20)
	c.MaxQueued = cmp.Or(c.MaxQueued, 64<<20)
	c.Lease = cmp.Or(c.Lease, 6*time.Second)
	c.Beat = cmp.Or(c.Beat, 2*time.Second)
	switch {
	case c.Incarnation != "":
		c.NodeID = nodeOf(c.Incarnation)
	case c.NodeID == "":
		c.NodeID = numberName(randomNumber())
	}
	if c.Incarnation == "" {
		c.Incarnation = newIncarnation(c.NodeID, time.Now())
	}
	if c.Minter == nil {
		number, err := strconv.ParseUint(c.NodeID, 36, 16)
		if err != nil { // it is no number's name
			number = uint64(randomNumber())
		}
		c.Minter = message.NewMinter(uint16(number))
	}
	if c.Rand == nil {
		c.Rand = runtimeRand{}
	}
}

func (c *Config) check() error {
	switch {
	case len(c.Incarnation) > 64 || strings.ContainsAny(c.Incarnation, ":"+draining):
		return errors.New(`redis: the name of a node has at most 64 bytes and neither ":" nor "~"`)
	case c.Beat > c.Lease/2:
		return fmt.Errorf("redis: a beat each %v is too seldom for a lease of %v: it must be at most half of it", c.Beat, c.Lease)
	}
	if _, own := c.Port.(*server); own {
		return c.Options.check()
	}
	return nil
}

// runtimeRand is the runtime's own source.
type runtimeRand struct{}

func (runtimeRand) Uint64() uint64 { return mathrand.Uint64() }

func fill(keep, other broker.Retention) broker.Retention {
	return broker.Retention{Messages: cmp.Or(keep.Messages, other.Messages), Age: cmp.Or(keep.Age, other.Age)}
}

const (
	streamSpare = 120 * time.Second // a stream outlives its youngest entry's age by this
	guardFor    = 5 * time.Minute   // after a redial scripts are told what positions there were
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
	stats                counters
	forks                atomic.Int64 // signs that Redis lost something
	restored             atomic.Int64 // messages that this node has put back
	junk, refused, broke limited
	undone               limited         // what is not missed: it is tried again, or told to who asked
	root                 context.Context // of publishes, which end by themselves; it is Run's, but outlives it
	running              context.Context // of what runs as long as Run
	loops                sync.WaitGroup  // what does
	born                 atomic.Uint64   // since when the data in Redis exists
	doubts, sure         atomic.Int64    // how often another server may have come, and so often when it was asked that last
	guard                atomic.Int64    // until when, as a time since the start
	tasks                sync.WaitGroup
	queues               queues
	outbox               outbox
	away                 atomic.Bool           // as the outbox says: something is
	gone                 atomic.Pointer[slots] // and what that is; written under the outbox's lock
	lost                 chan struct{}         // away has begun
	journal              journal
	barrier              barrier
	kicked               chan struct{}                     // the journal is to be compared
	nodes                atomic.Pointer[map[string]string] // those that were there when Redis was last asked: inc → name

	lease    lease
	presence *Presence     // of the same node; nil: none
	hurry    chan struct{} // the heart shall beat
	beating  chan struct{} // has one while there is a beat: it is waited for like Redis, a lock would not be
	revoked  uint64        // the version last told; the beat's
	holding  sync.Mutex
	holders  int // what needs the way to Redis
	chance   sync.Mutex

	workers []*worker
	heals   heals
	later   laterList
	touched touched

	mu       sync.RWMutex // guards rooms
	rooms    map[string]*room
	order    []*room       // the same
	swept    int           // of them, those before were compared last
	done     chan struct{} // closed when nothing is accepted any more
	open     atomic.Bool
	control  chan string // requests and replies that have come
	pendings pendings
	asked    atomic.Uint64
}

var _ broker.Broker = (*Broker)(nil)

// New makes a bus that dials nothing and accepts nothing until Run.
func New(cfg Config) *Broker {
	cfg.setDefaults()
	now := time.Now()
	k := keys(cfg.Prefix)
	b := &Broker{
		cfg: cfg, keys: k, log: cfg.Logger.With("component", "redis"),
		wire: &wire{port: cfg.Port, keys: k, call: cfg.CallTimeout, reads: cfg.ReadTimeout},
		inc:  cfg.Incarnation, hurry: make(chan struct{}, 1), beating: make(chan struct{}, 1),
		start: now, clock: &clock{start: now}, rooms: make(map[string]*room), done: make(chan struct{}),
		outbox: outbox{rooms: make(map[message.Room][]*parked), keys: make(map[string]broker.Receipt)}, lost: make(chan struct{}, 1),
		journal: journal{rooms: make(map[message.Room][]*written)}, kicked: make(chan struct{}, 1),
		barrier: barrier{up: make(map[<-chan struct{}]slots)},
		queues:  queues{rooms: make(map[message.Room]*queue)}, later: newLaterList(),
		control: make(chan string, 1024), pendings: pendings{asks: make(map[string]*pending)},
	}
	b.wire.unanswered = b.clock.forget
	b.lease = lease{wire: b.wire, inc: b.inc, lasts: cfg.Lease}
	for i := range max(1, min(4, runtime.NumCPU()/4)) {
		c := newConn(b, k.probe(b.inc, i))
		c.want(c.probe, byBroker)
		b.conns = append(b.conns, c)
	}
	b.place(k.control()).want(k.control(), byBroker)
	b.place(k.node(b.inc)).want(k.node(b.inc), byBroker)
	return b
}

// place is the connection that a channel is subscribed on.
func (b *Broker) place(ch string) *conn { return b.conns[spread(ch)%uint32(len(b.conns))] }

// chanceOf is a number below n, by chance.
func (b *Broker) chanceOf(n uint64) uint64 {
	b.chance.Lock()
	defer b.chance.Unlock()
	return b.cfg.Rand.Uint64() % n
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
	b.stats.reachable(b.elapsed())
	b.hold()
	defer b.release(b.root)
	err := b.connect(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case refused(err):
		return refusal(err)
	case err != nil:
		b.lose(b.wire.part(b.keys.control()), err)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	b.running = running
	b.launch(running)
	fatal := make(chan error, 1)
	b.loops.Go(func() { fatal <- b.watch(running) })
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
	b.loops.Wait()
	if n := b.outbox.count(); n > 0 {
		b.log.Error("messages of an outage are lost: the node ends before redis is back", "count", n)
	}
	return err
}

// connect dials, if Redis was not reached yet, and gives a sign of life.
func (b *Broker) connect(ctx context.Context) error {
	if err := b.wire.open(ctx, b.dialled); err != nil {
		if b.presence != nil {
			b.presence.missed(ctx, false, err)
		}
		return err
	}
	_, err := b.beat(ctx)
	return err
}

// dialled notes that a command connection is a new one, or will be: perhaps to another server, whose clock may be behind,
// and which may lack what the old one had. Scripts are told for a while what positions there were.
func (b *Broker) dialled() {
	b.guard.Store(int64(b.elapsed() + guardFor))
	b.doubts.Add(1)
	b.clock.forget()
	b.kick()
	if b.presence != nil && b.wire.cluster() != nil { // which of its own connections lead elsewhere now it does not see
		b.presence.doubtAll()
	}
}

// launch starts everything that runs until the context ends.
func (b *Broker) launch(ctx context.Context) {
	loops := &b.loops
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
	loops.Go(func() { b.later.run(ctx) })
	loops.Go(func() { b.heart(ctx) })
	loops.Go(func() { b.pulses(ctx) })
	loops.Go(func() { b.controls(ctx) })
	loops.Go(func() { b.sweep(ctx) })
}

// controlReady waits until questions and replies reach this node.
func (b *Broker) controlReady(ctx context.Context) bool {
	holds := func(ch string) bool { return b.isAway(ch) || b.place(ch).holds(ch) }
	for !(holds(b.keys.control()) && holds(b.keys.node(b.inc))) {
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
	r := &room{name: name, ch: ch, b: b, since: b.Now(), worker: b.workers[spread(ch)%uint32(len(b.workers))], place: len(b.order)}
	b.rooms[ch] = r
	b.order = append(b.order, r)
	b.place(ch).want(ch, byRoom)
	if b.isAway(ch) {
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
		last := len(b.order) - 1
		b.order[r.place] = b.order[last]
		b.order[r.place].place = r.place
		b.order[last] = nil
		b.order = b.order[:last]
		r.stop()
		b.place(ch).leave(ch, byRoom)
	}
}

// find returns the room of a channel, if it is subscribed.
func (b *Broker) find(ch string) *room {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.rooms[ch]
}

// attach brings rooms whose subscription is confirmed up to date, and returns the channels of those whose tips could not be
// read.
func (b *Broker) attach(ctx context.Context, channels []string) (left []string) {
	for _, some := range b.wire.divide(channels) {
		if b.isPartAway(some[0]) || !b.attachPart(ctx, some) {
			left = append(left, some...)
		}
	}
	return left
}

func (b *Broker) attachPart(ctx context.Context, channels []string) bool {
	rooms := make([]*room, 0, len(channels))
	lasts := make([]message.Position, 0, len(channels))
	names := channels[:0:0]
	for _, ch := range channels {
		if r := b.find(ch); r != nil {
			rooms, lasts, names = append(rooms, r), append(lasts, r.delivered()), append(names, ch)
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
		r.attach(tips[i], lasts[i])
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
		[]string{ch, b.wire.verb(), seconds(tipTTL(b.retention(name)))})
	if err != nil {
		return b.failed(ctx, "delete", err)
	}
	if t, err := b.wire.tips(ctx, []string{ch}); err == nil { // else the stream's own mark keeps it from coming back
		b.journal.cut(name, t[0].cut)
	}
	return nil
}
