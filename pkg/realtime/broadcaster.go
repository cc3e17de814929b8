package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
)

// Broadcaster connects a hub to the hubs of other processes. It is sealed: only this package implements it. A program that
// runs as a single process needs none, and keeps a nil Broadcaster.
type Broadcaster interface {
	// Publish is Hub.Publish of the hub it belongs to: there is one way in.
	Publish(ctx context.Context, msg *Message) error
	// Run connects the hub, which begins when both Runs were called. It returns when the hub has ended: with its error, which
	// may be that Redis refuses the password, or is none that can be used. The end of ctx ends the hub too, sessions first.
	Run(ctx context.Context) error

	// of is the hub that it has moved; nil: none.
	of() *Hub
}

// NewRedisBroadcaster moves hub to Redis: its rooms, with their history and who is there, are those of all programs and
// services on the same Redis. Call it before the hub's first session, message or question of who is there;
// later it moves nothing, which the log and Run's error say. A hub has one at most. It dials in Run.
//
// opt is a template: addresses, TLS, credentials, database and Sentinel are taken from it, as rueidis.ParseURL reads them, and how
// to dial. Connections, pipelining, retries and timeouts are the broadcaster's own. It takes what the service takes: Redis 6.2
// or newer.
//
// While Redis is away each hub goes on by itself: what is published reaches its own sessions, and the others when Redis is back.
// The log tells of it. With HubConfig.RejectWhenDegraded publishes are refused instead.
func NewRedisBroadcaster(opt rueidis.ClientOption, hub *Hub, logger *slog.Logger) Broadcaster {
	logger = orSilent(logger)
	b := &redisBroadcaster{
		hub: hub, log: logger.With("component", "realtime"), opts: redis.Options{Client: opt, Logger: logger}, left: make(chan struct{}),
	}
	if b.err = hub.moveTo(b); b.err != nil {
		b.log.Error("the hub is not on redis", "err", b.err)
	}
	return b
}

type redisBroadcaster struct {
	hub  *Hub
	log  *slog.Logger
	opts redis.Options
	err  error // why the hub was not moved
	ran  atomic.Bool

	found bool          // Redis was there when the hub began; read by it
	left  chan struct{} // closed: the hub shall end
}

func (b *redisBroadcaster) of() *Hub {
	if b.err != nil {
		return nil
	}
	return b.hub
}

func (b *redisBroadcaster) Publish(ctx context.Context, msg *Message) error {
	if b.err != nil {
		return b.err
	}
	return b.hub.Publish(ctx, msg)
}

func (b *redisBroadcaster) Run(ctx context.Context) error {
	switch {
	case b.err != nil:
		return b.err
	case b.ran.Swap(true):
		return errors.New("realtime: Run was called before: a Broadcaster runs once")
	}
	found, err := redis.Find(ctx, b.opts, 0)
	if err != nil {
		b.log.Error("the hub does not run", "err", err)
		err = fmt.Errorf("realtime: %w", err)
		b.hub.start.begin(err)
		return err
	}
	b.found = found
	b.hub.start.begin(nil)
	select {
	case <-b.hub.ended:
	case <-ctx.Done():
		close(b.left)
		if !b.hub.ran.Load() {
			return nil
		}
		<-b.hub.ended
	}
	return b.hub.err
}

// watch tells what Redis is, if it was not there when the hub began, and fails if it will not do.
func (b *redisBroadcaster) watch(ctx context.Context) error {
	if b.found {
		return nil
	}
	return redis.FindLater(ctx, b.opts)
}

// start is when a hub begins, and on which bus: on the embedded one as soon as somebody comes, unless it was moved to Redis
// before.
type start struct {
	mu    sync.Mutex
	redis *redisBroadcaster // nil: not moved
	begun bool
	now   chan struct{} // closed when it begins
	err   error         // why it cannot
}

// begin may be called several times: the first counts.
func (s *start) begin(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked(err)
}

// used has a hub begin that was not moved, and tells whether it is one: somebody has come.
func (s *start) used() (alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.redis != nil {
		return false
	}
	s.locked(nil)
	return true
}

func (s *start) locked(err error) {
	if !s.begun {
		s.begun, s.err = true, err
		close(s.now)
	}
}

// moveTo puts the hub on Redis. With options that cannot work it stays without any bus: alone it would seem to work.
func (h *Hub) moveTo(b *redisBroadcaster) error {
	s := &h.start
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.redis != nil:
		return errors.New("realtime: the hub has a Broadcaster already: it has one at most")
	case s.begun:
		return errors.New("realtime: the hub is in use already: call NewRedisBroadcaster before its first session or message")
	}
	s.redis = b
	reject, err := message.NewPatterns(map[string]bool{"*": h.cfg.RejectWhenDegraded})
	if err == nil {
		bus := redis.New(redis.Config{
			Options: b.opts, NodeID: h.node.Name(), Minter: h.node.Minter(), Revoked: h.node.Revoked, Reject: reject,
			Retention: h.cfg.retention(),
		})
		var store *redis.Presence
		if store, err = redis.NewPresence(bus, redis.PresenceConfig{Grace: h.cfg.PresenceGrace}); err == nil {
			h.node.Use(bus, store)
			return nil
		}
	}
	err = fmt.Errorf("realtime: %w", err)
	s.locked(err)
	return err
}

func (c HubConfig) retention() broker.Retention {
	return broker.Retention{Messages: c.HistorySize, Age: c.HistoryTTL}
}
