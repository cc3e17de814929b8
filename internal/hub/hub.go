// Package hub delivers: it owns the rooms of this node, their logs, their members and the shards that write to them.
//
// A room is an append-only log of ready frames and a member is a position in it. A broker appends to the log (the Hub is
// its Sink); each shard, one goroutine, writes what lies between a member's position and the head with one non-blocking
// call. Live delivery, replay after a reconnect, slow sessions and healing are all this one thing.
//
// The hub never dials, never blocks in Append, keeps no queue per session but a bounded one of its own frames, and never
// iterates members outside their shard. It calls its Feed holding no lock, and History only from fillers. edge, publish
// and rpc use it; node composes it.
package hub

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/message"
)

// Errors of the hub.
var (
	// ErrClosed: the hub, or the session, has ended.
	ErrClosed = errors.New("hub closed")
	// ErrOverloaded: the room's members cannot keep up; nothing was published. Try again later.
	ErrOverloaded = errors.New("room overloaded")
)

// Config of a Hub. The zero value is the protocol's defaults.
type Config struct {
	Shards        int           // goroutines that write; default GOMAXPROCS - 1, at least 1: a raw system call keeps its processor
	LogBytes      int64         // all rooms' logs together; default 256 MiB
	RoomBytes     int64         // one room's log while nobody is behind, an eighth of the most it ever holds; default 1 MiB
	OwnFrameBytes int           // a session's own frames not yet written; above it the session is slow; default 256 KiB
	WriteTimeout  time.Duration // a session that takes no byte for so long is slow; default 10 s
	BehindTimeout time.Duration // one that stays behind a moving log for so long is slow; default 60 s
	CloseTimeout  time.Duration // for the last frame to be written; default 5 s
	JoinTimeout   time.Duration // for a room to become live, and for history to be read; default 5 s
	Linger        time.Duration // an empty room stays subscribed; default 45 s
	ResumeLimit   int           // messages a resume may bring; default 5,000
	// Count tells who is in a room, for `subscribed`: users and sessions, and whether they are too many to be told one by
	// one. Shards call it; it must not wait. nil: not told.
	Count func(message.Room) (users, sessions int, many bool)
	// Observe is called once per traversal of a room with the age of its oldest new entry, and the span of a traced message
	// that the traversal carried, if it did. nil: nobody asks.
	Observe func(trace.SpanContext, time.Duration)
	// Tracer makes one span of each traced message that has members here, from its Append to the end of the last shard's
	// traversal that carried it. nil: none.
	Tracer trace.Tracer
}

func (c *Config) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Shards == 0 {
		c.Shards = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if c.LogBytes == 0 {
		c.LogBytes = 256 << 20
	}
	if c.RoomBytes == 0 {
		c.RoomBytes = 1 << 20
	}
	if c.OwnFrameBytes == 0 {
		c.OwnFrameBytes = 256 << 10
	}
	if c.ResumeLimit == 0 {
		c.ResumeLimit = 5000
	}
	set(&c.WriteTimeout, 10*time.Second)
	set(&c.BehindTimeout, 60*time.Second)
	set(&c.CloseTimeout, 5*time.Second)
	set(&c.JoinTimeout, 5*time.Second)
	set(&c.Linger, 45*time.Second)
}

// Feed is what the hub asks of a broker. Calls other than History must not wait.
type Feed interface {
	Subscribe(message.Room)
	Unsubscribe(message.Room)
	Now() message.Position
	History(context.Context, message.Query) (message.Page, error)
}

// Writer is a session's socket. Only the session's shard calls it.
type Writer interface {
	// TryWrite never blocks and keeps nothing of b. n < len(b) means full: the writer calls Session.Writable when there is
	// room again. An error means that the socket is dead: the writer sees to it that Session.Gone is called.
	TryWrite(b []byte) (n int, err error)
	// Touch loads what TryWrite will look at, so that it is in the processor's cache, and returns something of it.
	Touch() uint64
	// Resume: joins stand, or a handler's replies are written: read on.
	Resume()
	// Shut is called once, behind the last byte or when that could not be written in time. The writer ends its direction,
	// waits a bounded time for the peer's end and then has Session.Gone called. code is the close code of a session that
	// the hub has closed by itself (4000, 1013); 0: Session.Close was called.
	Shut(code int)
	// Release answers Session.Gone: the last call. After it the descriptor's number is free.
	Release()
}

// Leaver is a Writer that wants to know where its session stood at its end.
type Leaver interface {
	// Left is called once for each room that the session was a member of when it ended, before Release: what was delivered of
	// the room lies at or before at.
	Left(room message.Room, at message.Position)
}

// Hub is a broker.Sink. All methods may be called concurrently.
type Hub struct {
	cfg    Config
	feed   Feed
	minter *message.Minter
	log    *slog.Logger
	shards []*shard
	next   atomic.Uint32 // shard of the next session
	rooms  [stripes]stripe
	stats  counters

	born  atomic.Uint64 // the broker's time when the hub began, a message.Position
	used  atomic.Int64  // bytes of all logs
	fill  fillers       // waiting rooms and their pool
	sweep chan struct{} // the budget is spent, or rooms linger
	empty lingering
}

// stripes keeps room look-ups of parallel publishers apart.
const stripes = 64

type stripe struct {
	mu    sync.RWMutex
	rooms map[message.Room]*room
}

// New makes a hub that does nothing until Run.
func New(cfg Config, feed Feed, minter *message.Minter, logger *slog.Logger) *Hub {
	cfg.setDefaults()
	h := &Hub{cfg: cfg, feed: feed, minter: minter, log: logger.With("component", "hub"), sweep: make(chan struct{}, 1)}
	h.fill.wake = make(chan struct{}, fillerPool)
	for i := range h.rooms {
		h.rooms[i].rooms = make(map[message.Room]*room)
	}
	for i := range cfg.Shards {
		h.shards = append(h.shards, newShard(h, i))
	}
	return h
}

// Run serves until ctx ends. It returns when every goroutine of the hub has ended; sessions still open are not closed,
// their owner has seen to that.
func (h *Hub) Run(ctx context.Context) error {
	h.born.Store(uint64(h.feed.Now()))
	var wg sync.WaitGroup
	for _, sh := range h.shards {
		wg.Go(func() { sh.run(ctx) })
	}
	for range fillerPool {
		wg.Go(func() { h.runFiller(ctx) })
	}
	wg.Go(func() { h.runSweeper(ctx) })
	h.acquire(message.Global) // every session is in it: it never lingers
	wg.Wait()
	return nil
}

func (h *Hub) stripe(name message.Room) *stripe {
	return &h.rooms[name.Tag()%stripes]
}

// lookup returns the room if this node has it.
func (h *Hub) lookup(name message.Room) *room {
	st := h.stripe(name)
	st.mu.RLock()
	r := st.rooms[name]
	st.mu.RUnlock()
	return r
}

// Has tells whether this node has the room: someone is a member of it, or was a moment ago.
func (h *Hub) Has(name message.Room) bool { return h.lookup(name) != nil }

// acquire returns the room, subscribed or about to be, with one more reference. Release it with release.
func (h *Hub) acquire(name message.Room) *room {
	st := h.stripe(name)
	st.mu.Lock()
	r := st.rooms[name]
	if r == nil {
		r = &room{name: name, tag: name.Tag(), state: roomNew}
		st.rooms[name] = r
	}
	r.refs++
	subscribe := r.state == roomNew
	if subscribe {
		r.state = roomSubscribed
	}
	st.mu.Unlock()
	if subscribe {
		h.subscribe(r)
	}
	return r
}

// subscribe notes the broker's time before it asks: what the room's log may begin with if the room has no history.
func (h *Hub) subscribe(r *room) {
	now := h.feed.Now()
	r.mu.Lock()
	switch {
	case r.body != nil:
		r.asked = now
	case !r.live:
		r.base = now
	}
	r.mu.Unlock()
	h.feed.Subscribe(r.name)
}

// release gives a reference back; a room without any lingers, then it is unsubscribed.
func (h *Hub) release(r *room) {
	st := h.stripe(r.name)
	st.mu.Lock()
	r.refs--
	idle := r.refs == 0
	if idle {
		r.emptied++
	}
	times := r.emptied
	st.mu.Unlock()
	if idle {
		h.empty.add(emptied{r, times, time.Now().Add(h.cfg.Linger)})
	}
}
