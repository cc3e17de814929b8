package redis_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker/brokertest"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestTheContractsHoldOverACluster(t *testing.T) { // alone: the suite looks for goroutines that are left
	c := redistest.StartCluster(t)
	addr := c.Primaries[1].Addr
	t.Run("bus", func(t *testing.T) {
		var buses atomic.Int64
		brokertest.Run(t, brokertest.Factory{
			Nodes: 2, ShortestAge: 150 * time.Millisecond, ShortestTTL: time.Second, Overkeep: 200,
			New: func(t testing.TB, n int, s brokertest.Settings) []brokertest.Node {
				patterns, err := message.NewPatterns(s.Patterns)
				if err != nil {
					t.Fatal(err)
				}
				prefix := fmt.Sprintf("bus%d:", buses.Add(1))
				nodes := make([]brokertest.Node, n)
				for i := range nodes {
					name := fmt.Sprintf("r%d", i+1)
					nodes[i] = brokertest.Node{Name: name, Broker: redis.New(redis.Config{
						Options: options(t, addr, prefix), NodeID: name, Minter: message.NewMinter(uint16(100 + i)),
						Retention: s.Retention, Patterns: patterns, IdempotencyTTL: s.IdempotencyTTL,
					})}
				}
				return nodes
			},
		})
	})
	t.Run("presence", func(t *testing.T) {
		names, buses := []string{"n1", "n2", "n3"}, 0
		presencetest.Run(t, presencetest.Factory{
			Names: names,
			New: func(t testing.TB, n int) []presence.Store {
				buses++
				stores := make([]presence.Store, n)
				for i := range stores {
					stores[i] = reaching{t, newPresence(t, c.Primaries[0], fmt.Sprint("who", buses, ":"), quick(names[i]))}
				}
				return stores
			},
		})
	})
	t.Run("a connection that is silent is dialled again", func(t *testing.T) { startAgain(t, addr) })
	t.Run("a user needs few rights", func(t *testing.T) {
		for _, s := range append(c.Primaries[:], c.Replicas[:]...) {
			asUser(t, s, "mine:")
		}
		talks(t, asUser(t, c.Primaries[0], "mine:"))
	})
	t.Run("Number", func(t *testing.T) {
		if _, err := redis.Number(t.Context(), options(t, addr, "")); err != nil {
			t.Error(err)
		}
	})
}

// reaching is a store that is ready only when Redis was reached: until then it counts its own node alone.
type reaching struct {
	t testing.TB
	*store
}

func (r reaching) Run(ctx context.Context, sink presence.Sink, ready func()) error {
	return r.store.Run(ctx, sink, func() {
		until(r.t, "redis is reached", func() bool { return ctx.Err() != nil || !r.Stale() })
		ready()
	})
}

func TestAClusterThatDoesNotTellItsSlotsIsRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	s.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	o := asUser(t, s, "")
	s.Do("ACL", "SETUSER", "node", "-cluster")
	err := redis.New(redis.Config{Options: o}).Run(t.Context(), deaf{}, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "+cluster|slots") {
		t.Errorf("Run = %v, want that it tells which right is missing", err)
	}
	talks(t, asUser(t, redistest.Start(t), "")) // a single server has no slots to tell
}

func TestAClusterWithoutShardedChannelsIsRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes", "--rename-command", "SPUBLISH", "")
	s.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	err := redis.New(redis.Config{Options: options(t, s.Addr, "")}).Run(t.Context(), deaf{}, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "sharded pub/sub") || strings.Contains(err.Error(), "\n") {
		t.Errorf("Run = %v, want one line on sharded pub/sub", err)
	}
}

// mute lets through what a server answers, but no message, once it is switched on.
type mute struct {
	net.Conn
	on *atomic.Bool
}

func (c mute) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.on.Load() || !bytes.Contains(p[:n], []byte("smessage")) {
			return n, err
		}
	}
}

// startAgain checks that connections which bring nothing any more are replaced.
func startAgain(t *testing.T, addr string) {
	silent, log := &atomic.Pointer[atomic.Bool]{}, &logged{}
	silent.Store(&atomic.Bool{})
	o := options(t, addr, "silent:")
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	o.Client.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return mute{conn, silent.Load()}, nil
	}
	n := newNode(t, 1, redis.Config{Options: o, ProbeAfter: 300 * time.Millisecond}).run()
	rooms := append(append(roomsOn(0, 1), roomsOn(1, 1)...), roomsOn(2, 1)...)
	n.live(rooms...)
	before := silent.Swap(&atomic.Bool{}) // what is dialled from now on speaks
	before.Store(true)
	until(t, "it is seen that nothing comes", func() bool { return log.has("not even what was sent to it") })
	other := newNode(t, 2, redis.Config{Options: options(t, addr, "silent:")}).run()
	for _, room := range rooms {
		if _, _, err := other.say(room, "hi"); err != nil {
			t.Error(err)
		}
		until(t, "it is delivered", func() bool { return len(n.sink.look(room).entries) == 1 })
	}
}
