// Package presencetest holds every presence.Store to its contract: Run is called by the tests of each implementation, with a
// Factory that makes its buses, and all of them pass the same cases. Bus is an implementation for tests of several nodes.
//
// It asks for nothing that the contract does not promise: what reaches a Sink may come later than the call that caused it,
// so everything is waited for, with a deadline. Under each case lies a Sink that polices: any call that breaches the
// contract fails the case, whatever the case itself looks at.
package presencetest

import (
	"testing"
	"testing/synctest"

	"github.com/slack5/realtime/internal/presence"
)

// Factory makes buses and says what they can do.
type Factory struct {
	// New makes the ends of n nodes on one bus that nothing else uses. Run is called by the suite; what has to be closed
	// besides is t's to clean up. The grace must be long enough for a few calls to be made within it.
	New func(t testing.TB, n int) []presence.Store

	// Names are those of the nodes, as fields bear them. As many nodes can be on a bus; with 1 the cases for several are
	// skipped.
	Names []string

	// Bubble: the cases run in bubbles of testing/synctest, so the bus must not leave the process.
	Bubble bool
}

// contract is one promise and its proof.
type contract struct {
	name  string
	nodes int
	run   func(t testing.TB, f Factory)
}

// Run runs the suite.
func Run(t *testing.T, f Factory) {
	for _, c := range contracts {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case len(f.Names) < c.nodes:
				t.Skipf("the factory declares that its bus has %d nodes, this takes %d", len(f.Names), c.nodes)
			case f.Bubble:
				synctest.Test(t, func(t *testing.T) { c.run(t, f) })
			default:
				c.run(t, f)
			}
		})
	}
}
