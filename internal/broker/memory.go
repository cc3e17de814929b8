package broker

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// MemoryConfig configures a Memory; the zero value is the protocol's defaults.
type MemoryConfig struct {
	NodeID string // as replies to Ask name this node

	// Retention is that of rooms which no pattern names. Fields that are zero take those of DefaultRetention. A negative
	// Messages keeps no history at all.
	Retention Retention
	// Patterns is the retention by room pattern; fields that are zero take those of Retention.
	Patterns message.Patterns[Retention]

	IdempotencyTTL time.Duration // how long keys are remembered; default DefaultIdempotencyTTL
	// MaxBytes bounds all rooms' history: above it the largest rooms lose their oldest entries. Rooms without any are
	// remembered in an eighth of it. Default 512 MiB.
	MaxBytes int64
	MaxKeys  int64 // keys remembered at once; above it what bears a new key is ErrOverloaded. Default 1,000,000

	Logger *slog.Logger // nil: silent
}

func (c *MemoryConfig) setDefaults() {
	c.Retention = c.Retention.or(DefaultRetention)
	if c.IdempotencyTTL == 0 {
		c.IdempotencyTTL = DefaultIdempotencyTTL
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 512 << 20
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 1_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("component", "broker")
}

// or fills what is zero.
func (keep Retention) or(other Retention) Retention {
	if keep.Messages == 0 {
		keep.Messages = other.Messages
	}
	if keep.Age == 0 {
		keep.Age = other.Age
	}
	return keep
}

const (
	memoryStripes = 64
	// A tick of the janitor sweeps some of the stripes: idle rooms are seen every eight seconds, and never all at once.
	sweepEvery   = time.Second
	sweepStripes = 8
	// minEmpty is how many empty rooms a stripe remembers at least, however small MaxBytes is.
	minEmpty = 64
	// vouchFor is how long past its retention a room that holds nothing is remembered: so long a resume is told truly
	// whether it missed anything.
	vouchFor = time.Hour
)

// Memory is the bus of a single node: rooms live in its memory and end with it. It is safe for concurrent use. Publish,
// Subscribe and Delete call the Sink themselves, under the room's lock.
//
// Before Run has called ready and after Run's context has ended everything is refused with ErrClosed.
type Memory struct {
	cfg   MemoryConfig
	serve func(context.Context, Request) Reply
	start time.Time        // keys expire by the time since, which no step of the clock moves
	born  message.Position // before it nothing is known of any room
	clock memoryClock
	ran   atomic.Bool
	sink  atomic.Pointer[Sink] // nil before Run and after it

	seed    maphash.Seed
	stripes [memoryStripes]memoryStripe

	bytes     atomic.Int64  // charged for all rooms with entries
	maxEmpty  int           // empty rooms of a stripe that are remembered
	forgotten atomic.Uint64 // the highest tip that was forgotten before its time
	keys      atomic.Int64  // remembered in all rooms
	nudge     chan struct{}
	shrinking sync.Mutex // one at a time; taken before any stripe's lock
	warned    time.Time  // of the bound on bytes; guarded by shrinking

	mu      sync.Mutex                // guards what follows
	revoked map[Revocation]Revocation // by target alone
	version uint64
	ended   bool
	done    chan struct{}  // closed when it has ended
	asks    sync.WaitGroup // not entered once ended is set
}

var _ Broker = (*Memory)(nil)

// memoryStripe is a part of the rooms. Its lock is taken before a room's, never under one.
type memoryStripe struct {
	mu    sync.RWMutex
	rooms map[message.Room]*memoryRoom
	// subscribed are rooms that have no other record yet: of most users' own rooms nobody ever says anything.
	subscribed map[message.Room]struct{}
}

// NewMemory makes a bus that accepts nothing until Run.
func NewMemory(cfg MemoryConfig) *Memory {
	cfg.setDefaults()
	b := &Memory{
		cfg: cfg, start: time.Now(), seed: maphash.MakeSeed(),
		nudge: make(chan struct{}, 1), done: make(chan struct{}),
		revoked: make(map[Revocation]Revocation),
	}
	b.born = b.Now()
	b.maxEmpty = max(minEmpty, int(cfg.MaxBytes/8/roomCost/memoryStripes))
	for i := range b.stripes {
		b.stripes[i].rooms = make(map[message.Room]*memoryRoom)
		b.stripes[i].subscribed = make(map[message.Room]struct{})
	}
	return b
}

// Run implements Broker. A Memory runs once.
func (b *Memory) Run(ctx context.Context, s Sink, ready func()) error {
	if b.ran.Swap(true) {
		return errors.New("broker: a Memory runs only once")
	}
	b.sink.Store(&s)
	defer b.stop()
	ready()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for turn := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-b.nudge:
			b.shrink()
		case <-tick.C:
			for range sweepStripes {
				b.sweep(&b.stripes[turn%memoryStripes])
				turn++
			}
			b.forgetRevoked()
		}
	}
}

// stop returns when no call of the sink and no question is under way; none begins after it.
func (b *Memory) stop() {
	b.sink.Store(nil)
	for i := range b.stripes {
		for _, r := range b.stripes[i].list() {
			r.mu.Lock()   // whoever saw the sink is through, also under the stripe's lock
			r.mu.Unlock() //nolint:staticcheck // it is waited for, nothing is done
		}
	}
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	close(b.done)
	b.asks.Wait()
}

// open tells whether a call may begin.
func (b *Memory) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.sink.Load() == nil {
		return ErrClosed
	}
	return nil
}

func (b *Memory) stripe(name message.Room) *memoryStripe {
	return &b.stripes[maphash.String(b.seed, string(name))%memoryStripes]
}

// find returns the room, locked, or nil if nothing is known of it.
func (b *Memory) find(name message.Room) *memoryRoom {
	st := b.stripe(name)
	st.mu.RLock()
	r := st.rooms[name]
	st.mu.RUnlock()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	if r.dead {
		r.mu.Unlock()
		return nil
	}
	return r
}

// room returns the room, locked, made if need be.
func (b *Memory) room(name message.Room) *memoryRoom {
	for {
		if r := b.find(name); r != nil {
			return r
		}
		st := b.stripe(name)
		st.mu.Lock()
		if st.rooms[name] == nil {
			_, subscribed := st.subscribed[name]
			delete(st.subscribed, name)
			st.rooms[name] = &memoryRoom{name: name, retention: b.retention(name), subscribed: subscribed}
		}
		st.mu.Unlock()
	}
}

func (b *Memory) retention(name message.Room) Retention {
	keep, _ := b.cfg.Patterns.Lookup(name)
	return keep.or(b.cfg.Retention)
}

func (st *memoryStripe) list() []*memoryRoom {
	st.mu.RLock()
	defer st.mu.RUnlock()
	rs := make([]*memoryRoom, 0, len(st.rooms))
	for _, r := range st.rooms {
		rs = append(rs, r)
	}
	return rs
}

// memoryClock is the node's clock for positions: it stands still when the system's is set back, so that Now stays below
// what comes after it.
type memoryClock struct{ last atomic.Int64 }

// read returns Unix milliseconds, never fewer than before.
func (c *memoryClock) read(now time.Time) int64 {
	ms := now.UnixMilli()
	for {
		last := c.last.Load()
		if ms <= last {
			return last
		}
		if c.last.CompareAndSwap(last, ms) {
			return ms
		}
	}
}
