// Package brokertest holds every broker.Broker to its contract: Run is called by the tests of each implementation, with a
// Factory that makes its buses, and all of them pass the same cases.
//
// It asks for nothing that the contract does not promise: what reaches a Sink may come later than the call that caused it,
// so everything is waited for, with a deadline. Under each case lies a Sink that polices: any call that breaches the
// contract fails the case, whatever the case itself looks at.
//
// It knows no implementation. What one can do and another cannot is a field of Factory, so that what is not tested is
// said.
package brokertest

import (
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
)

// Factory makes buses and says what they can do.
type Factory struct {
	// New makes the ends of n nodes on one bus that nothing else uses. Run is called by the suite; what has to be closed
	// besides is t's to clean up.
	New func(t testing.TB, n int, s Settings) []Node

	// Nodes is how many a bus can have: 1, or 2 and more, for which there are cases of their own.
	Nodes int
	// ShortestAge and ShortestTTL are the smallest Retention.Age and IdempotencyTTL that are kept faithfully. The suite
	// waits for them to pass.
	ShortestAge, ShortestTTL time.Duration
	// Overkeep is how many entries a room may still hold above its Retention.Messages, if it is trimmed in lots.
	Overkeep int

	patience time.Duration // how long anything is waited for; the suite's own tests have less than others
}

// Node is one end of a bus.
type Node struct {
	broker.Broker
	Name string // as replies to Ask name it
}

// Settings are those of a bus; what is zero is the default's.
type Settings struct {
	Retention      broker.Retention
	Patterns       map[string]broker.Retention // keys of message.NewPatterns
	IdempotencyTTL time.Duration
}

// contract is one promise and its proof.
type contract struct {
	name string
	run  func(t testing.TB, f Factory)
}

// Run runs the suite.
func Run(t *testing.T, f Factory) {
	for _, part := range [][]contract{publishing, keys, rooms, history, retention, control, ending} {
		for _, c := range part {
			t.Run(c.name, func(t *testing.T) { c.run(t, f) })
		}
	}
	for _, c := range twoNodes {
		t.Run(c.name, func(t *testing.T) {
			if f.Nodes < 2 {
				t.Skip("the factory declares that its bus has one node")
			}
			c.run(t, f)
		})
	}
}
