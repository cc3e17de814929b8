package broker_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/broker/brokertest"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryFactory makes Memory buses, each as wrap changes it.
func memoryFactory(wrap func(broker.Broker) broker.Broker) brokertest.Factory {
	return brokertest.Factory{
		Nodes:       1,
		ShortestAge: 150 * time.Millisecond,
		ShortestTTL: 150 * time.Millisecond,
		New: func(t testing.TB, _ int, s brokertest.Settings) []brokertest.Node {
			patterns, err := message.NewPatterns(s.Patterns)
			if err != nil {
				t.Fatal(err)
			}
			b := broker.NewMemory(broker.MemoryConfig{NodeID: "m1", Retention: s.Retention, Patterns: patterns, IdempotencyTTL: s.IdempotencyTTL})
			return []brokertest.Node{{Broker: wrap(b), Name: "m1"}}
		},
	}
}

func TestMemoryKeepsTheContract(t *testing.T) {
	brokertest.Run(t, memoryFactory(func(b broker.Broker) broker.Broker { return b }))
}
