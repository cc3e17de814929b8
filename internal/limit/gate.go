package limit

import (
	"sync"
	"time"
)

// Gate lets a crowd in at a bounded rate: who comes a little too early waits for his turn, the rest are sent away, each with
// the time at which the crowd before him should be through. It may be used concurrently.
type Gate struct {
	rate     Rate
	patience time.Duration

	mu   sync.Mutex
	in   int64 // when all who were let in have had their turn
	away int64 // when all who were sent away could have
}

// NewGate makes a gate behind which nobody waits longer than patience. With the zero Rate it is open.
func NewGate(r Rate, patience time.Duration) *Gate { return &Gate{rate: r, patience: patience} }

// maxAway is the longest time that anybody is sent away for.
const maxAway = 30 * time.Second

// Enter gives one a turn: after wait he is in. If ok is false he is not, and is to come again after wait.
func (g *Gate) Enter(now int64) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	then, wait := g.rate.spend(g.in, now, 1)
	if wait <= g.patience {
		g.in = then
		return wait, true
	}
	g.away = min(max(g.away, g.in)+g.rate.cost, now+int64(maxAway))
	return time.Duration(g.away - now), false
}
