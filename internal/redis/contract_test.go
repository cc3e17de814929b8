package redis_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/broker/brokertest"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// The library closes connections to nodes that have left a cluster after five seconds, and looks at a cluster again after
// one, whoever has ended meanwhile; and a proxy that is cut may leave a link.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*clusterClient)._refresh.func2"),
		goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*NoopToxic).Pipe"))
}

// options are those of a node of a bus on the server.
func options(t testing.TB, addr, prefix string) redis.Options {
	return redis.Options{
		Client: rueidis.ClientOption{InitAddress: []string{addr}}, Prefix: prefix,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// It runs alone: one of the cases looks for goroutines that are left.
func TestTheBusOverRedisKeepsTheContract(t *testing.T) {
	server := redistest.Start(t)
	var buses atomic.Int64
	brokertest.Run(t, brokertest.Factory{
		Nodes:       2,
		ShortestAge: 150 * time.Millisecond,
		ShortestTTL: time.Second,
		Overkeep:    200, // one script in sixteen trims by number, and then in lots
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
					Options: options(t, server.Addr, prefix), NodeID: name, Minter: message.NewMinter(uint16(100 + i)),
					Retention: s.Retention, Patterns: patterns, IdempotencyTTL: s.IdempotencyTTL,
				})}
			}
			return nodes
		},
	})
}
