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
}

// Hub holds the rooms of a process and delivers to their members.
type Hub struct {
	node   *node.Node
	log    *slog.Logger
	window time.Duration

	ran   atomic.Bool
	ended chan struct{} // Run has returned

	unheard atomic.Uint64 // broadcasts that failed
}

// NewHub makes a hub; cfg may be left out, and of several the first counts. It starts nothing: until Run handlers answer 503.
// A nil logger is silent.
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
	logger = orSilent(logger)
	return &Hub{
		node: node.New(node.Config{
			Memory:      broker.MemoryConfig{Retention: broker.Retention{Messages: c.HistorySize, Age: max(c.HistoryTTL, 0)}},
			Presence:    presence.Config{Grace: max(c.PresenceGrace, 0)},
			DrainWindow: c.DrainWindow,
		}, logger),
		log: logger.With("component", "realtime"), window: c.DrainWindow, ended: make(chan struct{}),
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
// Wait for it before main returns, or the sessions are cut. A hub runs once.
func (h *Hub) Run(ctx context.Context) error {
	if h.ran.Swap(true) {
		return errors.New("realtime: Run was called before: a hub runs once, make another")
	}
	defer close(h.ended)
	// Sessions outlive ctx: its end only begins the drain.
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, stop := errgroup.WithContext(ctx)
	g.Go(func() error { return h.node.Run(base) })
	g.Go(func() error {
		<-stop.Done()
		drain, cancel := context.WithTimeout(base, h.window+closeTimeout)
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
// the room's history (presence and error never are: they go to who is connected now), and msg has its ID and Timestamp; a
// Timestamp that was set is kept. The message's other parts are copied. Messages that are published one after the other arrive
// in that order.
//
// It takes at most 5 s: a hub that is about to run is waited for, so that `go hub.Run(ctx)` may stand right before, and a
// room whose members lag holds its publishers up for a second at most. Errors: ErrInvalid, ErrTooLarge, ErrOverloaded,
// ErrNotRunning, or ctx's, after which it is unknown whether the message was published. On an error msg is unchanged.
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

// await waits for Run to be ready.
func (h *Hub) await(ctx context.Context) error {
	select {
	case <-h.node.Ready():
		return nil
	case <-h.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotRunning, ctx.Err())
	}
}

// ConnectionCount is how many sessions this process has now, those of all handlers of the hub.
func (h *Hub) ConnectionCount() int { return h.node.Stats().Sessions }

// Presence tells who is in a room, or, with room "", who is connected: each user once, ordered by user id. An anonymous
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
