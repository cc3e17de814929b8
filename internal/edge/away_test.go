package edge

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// What a session sends and what the wheel finds may meet at any point: who has spoken is not away.
func TestWhoSpeaksAsHeFallsSilentIsNotLeftAway(t *testing.T) {
	p := presence.New(presence.Config{}, presence.NewMemory(presence.MemoryConfig{}), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	cfg := Config{AwayAfter: time.Millisecond}
	cfg.setDefaults()
	e := &Edge{cfg: cfg, wheel: newWheel(&cfg)}
	other := &session{e: e, here: p.Open("bob", nil)}
	for range 5_000 {
		s := &session{e: e, here: p.Open("alice", nil)}
		s.spoke.Store(1)
		now := tick(1) + e.wheel.away
		e.wheel.clock.Store(uint32(now))
		var both sync.WaitGroup
		both.Go(func() { s.idle(now) })
		both.Go(s.active)
		for range 4 { // so that the two come to the lock in either order
			both.Go(func() { other.setAway(0, awaySaid) })
		}
		both.Wait()
		if s.away != 0 || s.silent.Load() {
			t.Fatalf("away for %d, silent %t", s.away, s.silent.Load())
		}
		s.here.Close()
	}
}
