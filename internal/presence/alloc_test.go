//go:build !race

package presence_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// The race detector allocates by itself.
func TestListingAllocatesNothingWhileNothingChanges(t *testing.T) {
	p := presence.New(presence.Config{}, memory(), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	for i := range 100 {
		p.Open(fmt.Sprint(i), nil)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Room(t.Context(), message.Global) }); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
	s := p.Open("a", nil)
	s.Joined("r")
	if n := testing.AllocsPerRun(100, func() {
		s.Active()
		p.Count("r")
		p.Mode("r")
	}); n > 0 {
		t.Errorf("%v allocations a sign of life", n)
	}
}
