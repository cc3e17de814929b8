// Package presence knows who is where: it merges sessions into users, users over nodes, and tells every change once.
//
// A Presence is a node's. Sessions tell it when they come, join, leave and fall silent; it says how its own users stand to a
// Store, which carries that to other nodes and brings theirs, and emits what members of a room are to be told. Everything is
// state, not messages: within a tick (Config.Coalesce) a place's changes come as their sum, and what is told adds up to what
// is so.
//
// It never touches sockets or logs, and has no goroutine or timer per user or session.
package presence

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/message"
)

// ErrClosed is returned once Run has ended.
var ErrClosed = errors.New("presence closed")

// Config configures a Presence; zero fields take their defaults.
type Config struct {
	Grace    time.Duration // how long a user stays whose last session closed; default 8 s
	Debounce time.Duration // how long a status must hold before it is told; default 2 s
	Coalesce time.Duration // the tick: changes within it come as their sum; default 100 ms

	CountsAbove int           // a room with more users tells numbers instead of changes; default 1,000
	CountsBelow int           // with fewer it tells changes again; default nine tenths of CountsAbove
	CountsEvery time.Duration // how often numbers are told at most; default 5 s

	Recent int           // changes kept for watchers; one that is further behind gets a new snapshot. Default 8,192
	Linger time.Duration // how long a watched place is followed after its last watcher, who may resume; default 30 s
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Grace, 8 * time.Second},
		{&c.Debounce, 2 * time.Second},
		{&c.Coalesce, 100 * time.Millisecond},
		{&c.CountsEvery, 5 * time.Second},
		{&c.Linger, 30 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.CountsAbove <= 0 {
		c.CountsAbove = 1000
	}
	if c.CountsBelow <= 0 {
		c.CountsBelow = c.CountsAbove - c.CountsAbove/10
	}
	if c.Recent <= 0 {
		c.Recent = 8192
	}
}

// Mode is how a room's members are told of it.
type Mode uint8

// The modes. The zero value is Events.
const (
	Events Mode = iota // each change
	Counts             // numbers only
)

// String is the mode as frames name it.
func (m Mode) String() string {
	if m == Counts {
		return "counts"
	}
	return "events"
}

// Change is what a room's members are told of a user.
type Change struct {
	User   string
	Status Status // Offline: he has left
	Since  int64  // when he came, or left; Unix ms
	Info   []byte // JSON; nil: none
}

// Update is what a room's members are told at once. With Changes they apply to what the members know. Without, the room
// has changed to Counts, or its Totals have moved; or it is back at Events, and who is there must be asked anew.
type Update struct {
	Mode    Mode
	Changes []Change // of different users; what they are rendered into is 34 KiB at most
	Totals  Totals   // in Counts
}

// Presence is a node's presence. All its methods may be called concurrently; Run once.
type Presence struct {
	cfg   Config
	store Store
	emit  func(room message.Room, u Update)
	log   *slog.Logger

	start time.Time     // deadlines are durations since, which no step of the clock moves
	boot  string        // tells this node's resume tokens from others'
	wake  chan struct{} // Run has something to do
	ran   atomic.Bool
	done  chan struct{} // closed when Run has ended

	building sync.Mutex // one roster at a time is built; taken before mu

	mu      sync.Mutex // guards what follows, and all users, sessions, rooms and members. Held for little work at a time
	users   map[string]*user
	rooms   map[message.Room]*room
	members map[place]*member
	claims  map[string]int32 // of users: sessions that are being claimed
	watched int              // users' rooms there are

	global     Totals // of this node
	everyone   cache
	dirtyUsers []*user
	dirtyRooms []*room
	flushAt    time.Duration // 0: nothing to tell
	refreshing []*user
	wishes     []wish
	deadlines  deadlines
	recent     []record      // the last changes of watched places: number n lies at n % cfg.Recent
	recorded   uint64        // how many there ever were
	news       chan struct{} // closed with the next change of a watched place; nil: nobody waits
}

// wish is what is to be said to the Store about following a room.
type wish struct {
	room   message.Room
	follow bool
}

// New makes a Presence; sessions may come at once, but nothing is told before Run. emit is called by Run's goroutine, one
// call at a time, in order, without any lock held; it must not block. It owns the Update.
func New(cfg Config, store Store, emit func(room message.Room, u Update), logger *slog.Logger) *Presence {
	cfg.setDefaults()
	return &Presence{
		cfg: cfg, store: store, emit: emit, log: logger.With("component", "presence"),
		start: time.Now(), boot: rand.Text(), wake: make(chan struct{}, 1), done: make(chan struct{}),
		users: make(map[string]*user), rooms: make(map[message.Room]*room), members: make(map[place]*member), claims: make(map[string]int32),
	}
}

// Run runs the Store, and tells what changes, until ctx ends. Then it returns nil, or what ended the Store.
func (p *Presence) Run(ctx context.Context) error {
	if p.ran.Swap(true) {
		return errors.New("a Presence runs only once")
	}
	defer close(p.done)
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	g.Go(func() error { return p.store.Run(ctx, sink{p}, func() { close(ready) }) })
	g.Go(func() error {
		select {
		case <-ready:
			p.loop(ctx)
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// Leave is a drain's last act: for other nodes this node's users stand until the grace is over.
func (p *Presence) Leave() { p.store.Leave() }

// now is the time that deadlines are in.
func (p *Presence) now() time.Duration { return time.Since(p.start) }

// kick wakes Run.
func (p *Presence) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
