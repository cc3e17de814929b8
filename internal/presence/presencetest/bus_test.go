package presencetest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// busFactory makes Buses whose nodes are as wrap changes them.
func busFactory(wrap func(presence.Store) presence.Store) Factory {
	names := []string{"a", "b", "c"}
	return Factory{
		Names:  names,
		Bubble: true,
		New: func(_ testing.TB, n int) []presence.Store {
			bus := NewBus(8*time.Second, 6*time.Second)
			stores := make([]presence.Store, n)
			for i := range stores {
				stores[i] = wrap(bus.Node(names[i]))
			}
			return stores
		},
	}
}

func TestBusKeepsTheContract(t *testing.T) {
	Run(t, busFactory(func(s presence.Store) presence.Store { return s }))
}
