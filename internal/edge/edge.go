// Package edge is where sessions connect: an http.Handler that accepts WebSockets, checks who may come in, and owns each
// session's socket from then on: reading, keepalive, closing, and the answers to what sessions send.
//
// After the handshake nothing of net/http, of the WebSocket library or of Go's network poller stays with a session. On
// Linux a plain TCP connection is a bare descriptor: one goroutine reads all of them (poller_linux.go), the hub's shards
// write and close them. TLS connections and other systems take the portable path (portable.go): a reader goroutine, and a
// writer goroutine while there is something to write. Both feed the same parser and are held to the same tests.
//
// What a session sends is handled by at most one goroutine at a time, in order, and the socket is not read meanwhile. The
// edge never iterates a room and keeps no queue: delivery is the hub's. It never redirects, never trusts a name or an id
// from a frame, and never sends or logs what it could not validate. node (and tests) compose it; several may live in one
// process.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/wire"
)

// ErrRevoked is a token's that was good, and is so no longer.
var ErrRevoked = errors.New("token revoked")

// Config of an Edge. The zero value of each field but Anonymous and Verify, of which one must be set, works.
type Config struct {
	Path string // where the handler is mounted; what follows is the room. "/ws"
	Node string // this node's name, told in welcome

	MaxSessions   int // sessions at once; 503 above. 10,000
	MaxRooms      int // rooms of one session. 128
	MaxFrameBytes int // a message from a session; 1009 above. 64 KiB

	Limits    Limits
	UserNodes func(user string) int // on how many nodes a user has sessions: they share his rates. It must not wait. nil: on this one

	// Origins are pages that may connect, besides those of the edge's own address: scheme://host[:port] exactly, or
	// scheme://*.host[:port] for all names below host.
	Origins []string
	// Hosts are the names under which requests may come, or *.host for all below it; beside them addresses and localhost may
	// always be named. They count as the edge's own address. None: a request may name any, and none is its own.
	Hosts           []string
	LoopbackOrigins bool // pages from localhost, any port, may connect: for development

	// TrustedProxies are addresses and networks whose X-Forwarded-For tells from where a request comes.
	TrustedProxies []string

	Verify func(token string) (auth.Identity, error) // nil: no token is valid. Errors: auth.ErrExpired, any other: a bad one
	// Refresh keeps what Verify judges by fresh until its context ends, and calls tried once it has it or could not get it:
	// sessions are let in from then on. nil: there is nothing to do.
	Refresh func(ctx context.Context, tried func())
	// Revoked tells whether a token that is valid does not count any more; issued is zero if it does not say. It must not
	// wait. nil: none is revoked. Call EndRevoked when its answers have changed.
	Revoked      func(user, tokenID string, issued time.Time) bool
	NoQueryToken bool         // a token in the URL is not looked at: proxies log URLs
	Anonymous    bool         // sessions without a token are let in, their user is the session
	Grants       *auth.Grants // of anonymous sessions; nil: everything in all rooms

	Presence  *presence.Presence // nil: nobody is told who is there
	AwayAfter time.Duration      // a session that sends nothing is away after it; below 0: never. 5 min

	// What holds users to the sessions that their tokens allow. Claims counts them, also where Presence is nil; nil: nobody
	// does. Of a user who has more, Trim closes the oldest; or the newest is refused.
	Claims         *presence.Presence
	Trim           func(ctx context.Context, user string, most int) error
	RefuseSessions bool

	// Callbacks for the program around; nil: none. They run on the session's handler goroutine, one at a time: a slow one
	// holds up its session only.
	Opened func(*Conn) // when the joins of the URL stand, before any message of the session
	Closed func(*Conn) // once for each Opened

	// Hooks are asked at the points of a session's life, on its handler's goroutine, that for connecting on its handshake's;
	// nil: nobody is asked.
	Hooks       *hooks.Chain
	HookHeaders []string // of the handshake, that the hook for connecting gets

	Types map[message.Type]TypeConfig // what sessions may send besides chat

	// History reads kept messages for `history`; nil: such frames are refused. It may block until its context ends.
	History func(context.Context, message.Query) (message.Page, error)

	PingInterval    time.Duration // without sign of life a ping is sent. 25 s
	PongTimeout     time.Duration // and without one after it the session is closed, 4001. 10 s
	AssemblyTimeout time.Duration // a message must arrive whole within it, 4001. 10 s
	CloseTimeout    time.Duration // the peer must end the connection within it after our close. 5 s

	portable bool                      // tests: no fast path
	ledger   *ledger                   // tests: checks who uses which descriptor
	instead  func(*session, delivered) // tests: takes what sessions send, binary too; nothing of the protocol above RFC 6455 is spoken
}

// TypeConfig says how messages of a type that sessions may send are treated.
type TypeConfig struct {
	Ephemeral bool // not kept in history
}

// A Publisher takes messages that sessions send. It may keep m, which is not changed afterwards. Errors: *message.Error,
// hub.ErrOverloaded, the broker's, the context's.
type Publisher interface {
	Publish(ctx context.Context, m *message.Message, caller, key string) (broker.Receipt, error)
}

// Edge serves sessions. Its methods may be called concurrently.
type Edge struct {
	cfg     Config
	origins *origins
	hub     *hub.Hub
	publish Publisher
	minter  *message.Minter
	log     *slog.Logger
	wheel   *wheel
	proxies *proxies
	limits  *limits
	frames  wire.Limits
	poller  *poller         // set by Run before the state is serving; nil: only the portable path
	base    context.Context // likewise: what handlers live on, not the request's context, which ends with the handshake

	state      atomic.Int32
	sessions   atomic.Int64  // let in and not released
	awayMu     sync.Mutex    // guards session.away
	generation atomic.Uint32 // of descriptors: tells a number's owners apart
	ended      chan struct{} // something for Drain to look at: a session was released
	work       sync.WaitGroup
	metrics    metrics
}

const (
	starting = int32(iota)
	serving
	draining
)

// New makes an Edge that lets nobody in before Run. It opens and starts nothing.
func New(cfg Config, h *hub.Hub, p Publisher, minter *message.Minter, logger *slog.Logger) (*Edge, error) {
	if cfg.Verify == nil && !cfg.Anonymous {
		return nil, errors.New("edge: without Verify sessions are anonymous, and Anonymous is not set")
	}
	cfg.setDefaults()
	for t := range cfg.Types {
		if err := t.Check(); err != nil {
			return nil, fmt.Errorf("edge: type %q: %w", t, err)
		}
		if t.BackendOnly() {
			return nil, fmt.Errorf("edge: type %q is not for sessions to send", t)
		}
	}
	if cfg.Grants == nil {
		all, err := auth.CompileGrants(map[string]string{"*": "rwph"})
		if err != nil {
			return nil, err
		}
		cfg.Grants = all
	}
	log := logger.With("component", "edge")
	o, err := newOrigins(&cfg, log)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	proxies, err := newProxies(cfg.TrustedProxies, log)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	return &Edge{
		cfg: cfg, origins: o, hub: h, publish: p, minter: minter, log: log,
		wheel: newWheel(&cfg), frames: wire.Limits{MessageBytes: cfg.MaxFrameBytes, Fragments: cfg.Limits.Fragments, Binary: cfg.instead != nil},
		proxies: proxies, limits: newLimits(&cfg), ended: make(chan struct{}, 1),
	}, nil
}

func (c *Config) setDefaults() {
	if c.Path == "" {
		c.Path = "/ws"
	}
	c.Path = "/" + strings.Trim(c.Path, "/")
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orInt(&c.MaxSessions, 10_000)
	orInt(&c.MaxRooms, 128)
	orInt(&c.MaxFrameBytes, 64<<10)
	c.Limits.setDefaults()
	or := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&c.PingInterval, 25*time.Second)
	or(&c.PongTimeout, 10*time.Second)
	or(&c.AssemblyTimeout, 10*time.Second)
	or(&c.CloseTimeout, 5*time.Second)
	if c.AwayAfter == 0 {
		c.AwayAfter = 5 * time.Minute
	}
}

// Run serves sessions until ctx ends, then cuts those that are left and returns when all goroutines of the edge have.
// ready is called once, when sessions are let in. The hub must be running, and must go on until Run returns. Run may be
// called once.
func (e *Edge) Run(ctx context.Context, ready func()) error {
	p, err := newPoller(e)
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	base, cancel := context.WithCancel(ctx)
	e.poller, e.base = p, base
	stop := make(chan struct{})
	e.work.Go(func() { e.wheel.run(stop) })
	if p != nil {
		e.work.Go(p.run)
	}
	if e.cfg.Refresh != nil {
		tried := make(chan struct{})
		e.work.Go(func() { e.cfg.Refresh(base, func() { close(tried) }) })
		select {
		case <-tried:
		case <-ctx.Done():
		}
	}
	if e.state.CompareAndSwap(starting, serving) {
		ready()
	}
	<-ctx.Done()
	e.state.Store(draining)
	e.cutAll()
	cancel()
	close(stop)
	if p != nil {
		p.post(note{kind: noteStop})
	}
	e.work.Wait()
	return nil
}
