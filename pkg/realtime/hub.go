package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/publish"
)

const (
	// publishTimeout bounds what the caller's context does not.
	publishTimeout = 5 * time.Second
	// closeTimeout is what the last sessions of a drain get to go.
	closeTimeout       = 5 * time.Second
	defaultDrainWindow = 15 * time.Second
)

// HubConfig are a hub's limits. The zero value works.
type HubConfig struct {
	HistorySize int           // messages that a room keeps for those who come back; 0: 10,000, below 0: none
	HistoryTTL  time.Duration // and how long; 0: 15 min
	// PresenceGrace is how long a user whose last session has ended is still there: he may be back at once; 0: 8 s.
	PresenceGrace time.Duration
	// DrainWindow is the time over which Run closes the sessions at its end, so that they do not all come back elsewhere at
	// once; 0: 15 s, below 0: all at once. Set it below what your platform grants a program to stop.
	DrainWindow time.Duration
	// RejectWhenDegraded refuses publishes while Redis is away, with ErrUnavailable: without it they reach the hub's own sessions
	// at once and the others later. Sessions that send are told unavailable.
	RejectWhenDegraded bool
}

// Hub holds the rooms of a process and delivers to their members.
type Hub struct {
	node  *node.Node
	log   *slog.Logger
	cfg   HubConfig // with what its zero values stand for
	start start

	ran   atomic.Bool
	ended chan struct{} // Run has returned
	err   error         // with this; read it after ended

	unheard atomic.Uint64 // broadcasts that failed
}

// NewHub makes a hub; cfg may be left out, and of several the first counts. It starts nothing: until Run handlers answer 503.
// It is alone unless NewRedisBroadcaster moves it to Redis. A nil logger is silent.
func NewHub(logger *slog.Logger, cfg ...HubConfig) *Hub {
	var c HubConfig
	if len(cfg) > 0 {
		c = cfg[0]
	}
	switch {
	case c.DrainWindow == 0:
		c.DrainWindow = defaultDrainWindow
	case c.DrainWindow < 0:
		c.DrainWindow = 1
	}
	c.HistoryTTL, c.PresenceGrace = max(c.HistoryTTL, 0), max(c.PresenceGrace, 0)
	logger = orSilent(logger)
	return &Hub{
		node: node.New(node.Config{
			Memory:      broker.MemoryConfig{Retention: c.retention()},
			Presence:    presence.Config{Grace: c.PresenceGrace},
			DrainWindow: c.DrainWindow,
		}, logger),
		log: logger.With("component", "realtime"), cfg: c, start: start{now: make(chan struct{})}, ended: make(chan struct{}),
	}
}

func orSilent(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return logger
}

// Run serves until ctx ends or something fails. Then it lets nobody in any more, tells each session to reconnect and closes
// it with 1012, spread over the DrainWindow, and returns: nil, or what failed. It returns at once if nobody is connected, and
// waits for callbacks that still run.
//
// A hub that is alone begins with the first session or message: until then NewRedisBroadcaster may move it. One that was moved
// begins when the Broadcaster's Run is called too.
//
// Wait for it before main returns, or the sessions are cut. A hub runs once.
func (h *Hub) Run(ctx context.Context) error {
	if h.ran.Swap(true) {
		return errors.New("realtime: Run was called before: a hub runs once, make another")
	}
	defer close(h.ended)
	select {
	case <-h.start.now:
		if h.err = h.start.err; h.err == nil {
			h.err = h.serve(ctx, h.start.redis)
		}
	case <-ctx.Done():
	}
	return h.err
}

// serve runs the node, and drains it in the end. b is nil for a hub that is alone.
func (h *Hub) serve(ctx context.Context, b *redisBroadcaster) error {
	// Sessions outlive ctx: its end only begins the drain.
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	g, stop := errgroup.WithContext(ctx)
	g.Go(func() error { return h.node.Run(base) })
	if b != nil {
		g.Go(func() error { return b.watch(stop) })
		g.Go(func() error {
			select {
			case <-b.left:
				leave()
			case <-stop.Done():
			}
			return nil
		})
	}
	g.Go(func() error {
		<-stop.Done()
		drain, cancel := context.WithTimeout(base, h.cfg.DrainWindow+closeTimeout)
		defer cancel()
		h.node.Drain(drain)
		end()
		return nil
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("realtime: %w", err)
	}
	return nil
}

// Broadcast is Publish for where nobody waits for the outcome: an error is logged, with the number of those so far. It may
// take 5 s.
func (h *Hub) Broadcast(msg *Message) {
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout) //nolint:forbidigo // it is a root: the caller has no context to give
	defer cancel()
	if err := h.Publish(ctx, msg); err != nil {
		h.log.Warn("broadcast failed", "err", err, "failures", h.unheard.Add(1))
	}
}

// Publish sends a message to the members of its Room, or to everyone if it names none. When it returns nil, the message is in
// the room's history, or will be when Redis is back (presence and error never are: they go to who is connected now), and msg has
// its ID and Timestamp; a Timestamp that was set is kept. The message's other parts are copied. Messages that are published one after the other arrive
// in that order.
//
// It takes at most 5 s: a hub that is about to run is waited for, so that `go hub.Run(ctx)` may stand right before, and a
// room whose members lag holds its publishers up for a second at most. Errors: ErrInvalid, ErrTooLarge, ErrOverloaded,
// ErrUnavailable, ErrNotRunning, or ctx's, after which it is unknown whether the message was published. On an error msg is unchanged.
func (h *Hub) Publish(ctx context.Context, msg *Message) error {
	m, err := msg.convert()
	if err != nil {
		return err
	}
	if m.Room == "" {
		m.Room = message.Global
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := h.await(ctx); err != nil {
		return err
	}
	r, err := h.node.Publisher().Do(ctx, publish.Request{Message: m, Origin: publish.Embedded})
	if err != nil {
		return explain(err)
	}
	msg.ID, msg.Timestamp = r.ID.String(), time.UnixMilli(r.Timestamp).UTC()
	return nil
}

// await waits for Run to be ready. From then on the hub stays on the bus it is on.
func (h *Hub) await(ctx context.Context) error {
	h.start.used()
	select {
	case <-h.node.Ready():
		return nil
	case <-h.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotRunning, ctx.Err())
	}
}

// arrive holds a handshake up while a hub begins for it. Otherwise it does not wait.
func (h *Hub) arrive(ctx context.Context) {
	select {
	case <-h.node.Ready():
		return
	default:
	}
	if h.ran.Load() && h.start.used() {
		ctx, cancel := context.WithTimeout(ctx, publishTimeout)
		defer cancel()
		_ = h.await(ctx) // the edge says why nobody is let in
	}
}

// ConnectionCount is how many sessions this process has now, those of all handlers of the hub.
func (h *Hub) ConnectionCount() int { return h.node.Stats().Sessions }

// Presence tells who is in a room, or, with room "", who is connected, on all hubs: each user once, ordered by user id. An anonymous
// session is a user of its own. Errors: ErrInvalid for a room's name, ErrNotRunning, or ctx's.
func (h *Hub) Presence(ctx context.Context, room string) ([]PresenceData, error) {
	name := message.Global
	if room != "" {
		var err error
		if name, err = message.ParseRoom(room); err != nil {
			return nil, explain(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := h.await(ctx); err != nil {
		return nil, err
	}
	roster, err := h.node.Presence().Room(ctx, name)
	if err != nil {
		return nil, explain(err)
	}
	users := make([]PresenceData, len(roster.Users))
	for i, u := range roster.Users {
		users[i] = PresenceData{Status: PresenceStatus(u.Status.String()), UserID: u.ID}
	}
	return users, nil
}
