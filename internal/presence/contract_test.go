package presence_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeepsTheContract(t *testing.T) {
	presencetest.Run(t, presencetest.Factory{
		Names:  []string{"m1"},
		Bubble: true,
		New: func(testing.TB, int) []presence.Store {
			return []presence.Store{presence.NewMemory(presence.MemoryConfig{})}
		},
	})
}
