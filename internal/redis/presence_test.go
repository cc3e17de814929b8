package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// setup is the config of a node that has presence.
type setup struct {
	redis.PresenceConfig
	bus redis.Config
}

func usual(inc string) setup { return setup{bus: redis.Config{Incarnation: inc}} }

// quick lets nodes die soon.
func quick(inc string) setup {
	return setup{
		PresenceConfig: redis.PresenceConfig{Grace: time.Second},
		bus:            redis.Config{Incarnation: inc, Lease: 1500 * time.Millisecond, Beat: 400 * time.Millisecond},
	}
}

// store is a Presence that runs together with the bus of its node.
type store struct {
	*redis.Presence
	bus *redis.Broker
}

func (s *store) Run(ctx context.Context, sink presence.Sink, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.bus.Run(ctx, deaf{}, func() {}) })
	g.Go(func() error { return s.Presence.Run(ctx, sink, ready) })
	return g.Wait()
}

// deaf is the Sink of a bus that nobody listens to.
type deaf struct{}

func (deaf) Append(message.Entry)                                                    {}
func (deaf) Live(message.Room, message.Position, bool)                               {}
func (deaf) Gap(message.Room, message.Position, message.Position, message.GapReason) {}
func (deaf) Deleted(message.Room, message.Position)                                  {}
func (deaf) Degraded(message.Room)                                                   {}
func (deaf) Restored(message.Room)                                                   {}

func TestPresenceKeepsTheContract(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	names := []string{"n1", "n2", "n3"}
	buses := 0
	presencetest.Run(t, presencetest.Factory{
		Names: names,
		New: func(t testing.TB, n int) []presence.Store {
			buses++
			stores := make([]presence.Store, n)
			for i := range stores {
				stores[i] = newPresence(t, s, fmt.Sprint("bus", buses, ":"), quick(names[i]))
			}
			return stores
		},
	})
}

func newPresence(t testing.TB, s *redistest.Server, prefix string, cfg setup) *store {
	t.Helper()
	if cfg.bus.Client.InitAddress == nil {
		cfg.bus.Options = redis.Options{Client: rueidis.ClientOption{InitAddress: []string{s.Addr}}}
	}
	cfg.bus.Prefix = prefix
	bus := redis.New(cfg.bus)
	p, err := redis.NewPresence(bus, cfg.PresenceConfig)
	if err != nil {
		t.Fatal(err)
	}
	return &store{p, bus}
}
