// Package node composes one node's core without listeners: broker, hub, publisher and any number of edges, from the small
// Configs of each. server puts listeners around it, an embedding program its own.
//
// It owns the order of start and end: the broker is ready before the hub runs, the hub before an edge lets anybody in; in
// the end sessions go first, then the hub, then the broker.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/publish"
)

// Config of a Node. Zero values of the parts are their defaults.
type Config struct {
	Hub        hub.Config
	Memory     broker.MemoryConfig
	Publish    publish.Config
	Presence   presence.Config
	NoPresence bool // members are not told who is there
	// Number tells this node's ids from others'; 0: NewNumber's.
	Number uint16
	// Hooks are those of edges that have none of their own; Run serves them. nil: none.
	Hooks *hooks.Chain
	// DrainWindow is the time over which Drain spreads the sessions' ends; default 15 s.
	DrainWindow time.Duration
	// Host and Version tell operators what runs where.
	Host, Version string
}

const defaultDrainWindow = 15 * time.Second

// Node is one process's share of the rooms.
type Node struct {
	cfg      Config
	name     string
	minter   *message.Minter
	bus      *bus
	store    *store
	presence *presence.Presence
	hub      *hub.Hub
	publish  *publish.Publisher
	edges    edges
	ready    chan struct{}
	started  time.Time

	control     *control.Asker
	answer      func(context.Context, broker.Request) broker.Reply // to what other nodes ask
	revocations *revocations
}

// bus and store are what Use exchanges: the parts that were made before it have them already.
type (
	bus   struct{ broker.Broker }
	store struct{ presence.Store }
)

// New composes a node over the embedded broker. It starts nothing, and nobody can come in before NewEdge.
func New(cfg Config, logger *slog.Logger) *Node {
	if cfg.DrainWindow == 0 {
		cfg.DrainWindow = defaultDrainWindow
	}
	if cfg.Number == 0 {
		cfg.Number = NewNumber()
	}
	n := &Node{cfg: cfg, name: NameOf(cfg.Number), minter: message.NewMinter(cfg.Number), ready: make(chan struct{}), started: time.Now()}
	if cfg.Memory.NodeID == "" {
		cfg.Memory.NodeID = n.name
	}
	if cfg.Memory.Logger == nil {
		cfg.Memory.Logger = logger
	}
	n.bus, n.store = &bus{broker.NewMemory(cfg.Memory)}, &store{presence.NewMemory(presence.MemoryConfig{})}
	n.presence = presence.New(cfg.Presence, n.store, n.announce, logger)
	if !cfg.NoPresence {
		cfg.Hub.Count = n.count
	}
	n.hub = hub.New(cfg.Hub, n.bus, n.minter, logger)
	n.publish = publish.New(cfg.Publish, n.hub, n.bus, n.minter, logger)
	n.control = control.NewAsker(n.bus, answers{n}.Info)
	n.answer = control.Serve(answers{n}, logger)
	n.bus.Serve(n.answer)
	n.revocations = &revocations{bus: n.bus, end: n.edges.endRevoked, log: logger.With("component", "node"), news: make(chan struct{}, 1)}
	return n
}

// Revoked has the node read the revocations, unless it knows those of this version. It does not wait.
func (n *Node) Revoked(version uint64) { n.revocations.changed(version) }

// NewNumber draws a node's number. It is random: a quick restart must not repeat identities that members saw.
func NewNumber() uint16 { return 1 + uint16(rand.Uint32N(1<<16-1)) }

// NameOf is the name of the node with this number.
func NameOf(number uint16) string { return strconv.FormatUint(uint64(number), 36) }

// Name is the node's name, as in ids, logs and `welcome`.
func (n *Node) Name() string { return n.name }

// Minter makes the low halves of ids: all that are made on this node.
func (n *Node) Minter() *message.Minter { return n.minter }

// Use puts another broker and store of presence in the embedded ones' place. It is called before Run, while nobody publishes.
func (n *Node) Use(b broker.Broker, s presence.Store) {
	n.bus.Broker, n.store.Store = b, s
	b.Serve(n.answer)
}

// Publisher is the way in.
func (n *Node) Publisher() *publish.Publisher { return n.publish }

// Broker is the bus.
func (n *Node) Broker() broker.Broker { return n.bus }

// Hub delivers.
func (n *Node) Hub() *hub.Hub { return n.hub }

// Presence knows who is where.
func (n *Node) Presence() *presence.Presence { return n.presence }

// Ready is closed when sessions are let in.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run serves until ctx ends or a part fails, and returns when all parts have ended. Call Drain before ctx ends, or sessions
// are cut. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// Each part outlives the one before it: the broker ends after the hub, the hub after the edge.
	base := context.WithoutCancel(ctx)
	brokerCtx, endBroker := context.WithCancel(base)
	hubCtx, endHub := context.WithCancel(base)
	defer endBroker()
	defer endHub()

	g.Go(func() error { return part("presence", n.presence.Run(brokerCtx)) })
	hooksCtx, endHooks := context.WithCancel(base)
	told := make(chan struct{})
	g.Go(func() error {
		defer close(told)
		return part("hooks", n.cfg.Hooks.Run(hooksCtx, n.elsewhere))
	})
	up := make(chan struct{})
	g.Go(func() error { return part("broker", n.bus.Run(brokerCtx, n.hub, func() { close(up) })) })
	g.Go(func() error {
		defer func() { // the sessions have ended: their ends are told while it can be asked who else is there
			endHooks()
			<-told
			endBroker()
		}()
		select {
		case <-up:
		case <-ctx.Done():
			return nil
		}
		n.revocations.first(ctx)
		ectx, endEdge := context.WithCancel(ctx)
		hg, hctx := errgroup.WithContext(hubCtx)
		hg.Go(func() error {
			defer endEdge() // sessions do not outlive their hub
			return part("hub", n.hub.Run(hctx))
		})
		hg.Go(func() error { n.revocations.run(ectx); return nil })
		hg.Go(func() error {
			defer endHub()
			return part("edge", n.edges.run(ectx, func() { close(n.ready) }))
		})
		return hg.Wait()
	})
	return g.Wait()
}

func part(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Drain lets nobody in any more, and ends all sessions over the window; what is left when ctx ends is cut. On other nodes this
// node's users stand as they stood until the grace is over: who comes back there has never left.
func (n *Node) Drain(ctx context.Context) {
	n.edges.drain(ctx, n.cfg.DrainWindow)
	n.presence.Leave()
}
