//go:build !race

package broker

import (
	"testing"

	"github.com/slack5/realtime/internal/message"
)

// The race detector allocates by itself.
func TestPublishAllocatesTheCopyOfTheMessageAlone(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	b.Subscribe("general")
	ctx := t.Context()
	for name, m := range map[string]*message.Message{"stored": say("general", `"x"`), "ephemeral": {Room: "general", Ephemeral: true}} {
		for range 20_000 { // the ring has its size
			publish(t, b, m)
		}
		if got := testing.AllocsPerRun(5000, func() { _, _ = b.Publish(ctx, Publication{Message: m}) }); got > 1 {
			t.Errorf("%s: %v allocations, want 1", name, got)
		}
	}
}
