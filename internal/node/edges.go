package node

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/publish"
)

// edges are the ways into a node. They may be added at any time.
type edges struct {
	mu       sync.Mutex
	all      []*edge.Edge
	sessions int                           // how many they let in together
	serve    func(*edge.Edge) <-chan error // runs one more, tells when it lets sessions in; nil unless the edges run
	draining bool
}

// NewEdge adds a way in, an http.Handler with sessions of its own; the Config's Node, History and Hooks are the node's
// unless given, its Presence, Revoked, Claims and Trim always are.
// An edge made before Run lets sessions in once Ready is closed, one made while Run is under way when NewEdge returns. At
// any other time it answers 503.
func (n *Node) NewEdge(cfg edge.Config, logger *slog.Logger) (*edge.Edge, error) {
	if cfg.Node == "" {
		cfg.Node = n.name
	}
	if cfg.History == nil {
		cfg.History = func(ctx context.Context, q message.Query) (message.Page, error) {
			return n.bus.History(ctx, q) // that of the bus there is then: Use may come later
		}
	}
	if cfg.Hooks == nil {
		cfg.Hooks = n.cfg.Hooks
	}
	if !n.cfg.NoPresence {
		cfg.Presence = n.presence
	}
	cfg.Revoked, cfg.Claims, cfg.Trim = n.revocations.revoked, n.presence, n.trim
	e, err := edge.New(cfg, n.hub, sessions{n.publish}, n.minter, logger)
	if err == nil {
		err = n.edges.add(e, cfg.MaxSessions)
	}
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	return e, nil
}

// sessions publishes what sessions send.
type sessions struct{ *publish.Publisher }

func (s sessions) Publish(ctx context.Context, m *message.Message, caller, key string) (broker.Receipt, error) {
	return s.Do(ctx, publish.Request{Message: m, Caller: caller, Key: key, Origin: publish.Session})
}

// add returns when the edge lets sessions in, if the others do. That may take a while, in which nobody else waits.
func (es *edges) add(e *edge.Edge, sessions int) error {
	es.mu.Lock()
	var up <-chan error
	if es.serve != nil && !es.draining {
		up = es.serve(e)
	}
	es.all, es.sessions = append(es.all, e), es.sessions+sessions
	es.mu.Unlock()
	if up == nil {
		return nil
	}
	err := <-up
	if err != nil {
		es.mu.Lock()
		defer es.mu.Unlock()
		es.all, es.sessions = slices.DeleteFunc(slices.Clone(es.all), func(one *edge.Edge) bool { return one == e }), es.sessions-sessions
	}
	return err
}

// run serves until ctx ends. ready is called when the edges added so far let sessions in.
func (es *edges) run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	es.mu.Lock()
	var starting atomic.Int64
	starting.Store(int64(len(es.all)))
	for _, e := range es.all {
		g.Go(func() error {
			return e.Run(ctx, func() {
				if starting.Add(-1) == 0 {
					ready()
				}
			})
		})
	}
	if len(es.all) == 0 {
		ready()
	}
	es.serve = func(e *edge.Edge) <-chan error {
		up := make(chan error, 2)
		g.Go(func() error {
			up <- e.Run(ctx, func() { up <- nil }) // an error comes before it was ready: whoever adds it is told, the others go on
			return nil
		})
		return up
	}
	es.mu.Unlock()
	g.Go(func() error { // the group does not end while edges may come
		<-ctx.Done()
		es.mu.Lock()
		defer es.mu.Unlock()
		es.serve = nil
		return nil
	})
	return g.Wait()
}

// drain ends all sessions over the window; what is left when ctx ends is cut.
func (es *edges) drain(ctx context.Context, window time.Duration) {
	es.mu.Lock()
	es.draining = true
	all := es.all
	es.mu.Unlock()
	var wg sync.WaitGroup
	for _, e := range all {
		wg.Go(func() { e.Drain(ctx, window) })
	}
	wg.Wait()
}

// stats adds up the edges' counters; sessions is how many they let in together.
func (es *edges) stats() (sum edge.Stats, sessions int) {
	es.mu.Lock()
	all, sessions := es.all, es.sessions
	es.mu.Unlock()
	for i, e := range all {
		s := e.Stats()
		if i == 0 {
			sum = s
			continue
		}
		sum.Sessions += s.Sessions
		sum.Accepted += s.Accepted
		sum.Failed += s.Failed
		sum.Frames += s.Frames
		sum.Messages += s.Messages
		sum.NoTokens += s.NoTokens
		sum.BadTokens += s.BadTokens
		sum.Expired += s.Expired
		sum.UnknownKeys += s.UnknownKeys
		addTo(sum.RateLimited, s.RateLimited)
		addTo(sum.Refused, s.Refused)
		addTo(sum.Errors, s.Errors)
		addTo(sum.Closed, s.Closed)
	}
	return sum, sessions
}

// addTo adds counts of the same codes.
func addTo[K comparable](sum, more map[K]uint64) {
	for code, n := range more {
		sum[code] += n
	}
}
