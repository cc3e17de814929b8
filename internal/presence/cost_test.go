package presence_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// heap is how much of it is live.
func heap() int {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestAnIdleSessionCostsLittle: all of it counts, also the ids of users and rooms.
func TestAnIdleSessionCostsLittle(t *testing.T) {
	const sessions = 15_000
	for name, c := range map[string]struct {
		rooms, limit int
	}{
		"in rooms of a thousand":    {15, 500},
		"each in a room of its own": {sessions, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				h := newHarness(t, presence.Config{}, memory())
				open := make([]*presence.Session, 0, sessions)
				before := heap()
				for i := range sessions {
					s := h.Open(fmt.Sprintf("user-%08d", i), nil)
					s.Joined(message.Room(fmt.Sprintf("room-%d", i%c.rooms)))
					open = append(open, s)
				}
				time.Sleep(time.Minute)
				h.forget()
				cost := (heap() - before) / sessions
				t.Logf("%d bytes of live heap a session", cost)
				if cost > c.limit {
					t.Errorf("a session costs %d bytes of live heap, at most %d are allowed", cost, c.limit)
				}
				runtime.KeepAlive(open)
			})
		})
	}
}

// TestAThousandUsersAreListedFast: ten thousand readers a second in a room with 500 changes a second, for a second. Not how
// long that takes is looked at, but how often the list was made for it.
func TestAThousandUsersAreListedFast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		var ss []*presence.Session
		for i := range 1000 {
			s := h.Open(fmt.Sprintf("u%04d", i), nil)
			s.Joined("r")
			ss = append(ss, s)
		}
		time.Sleep(time.Second)
		built := make(map[*presence.Roster]bool)
		for i := range 500 {
			if s := ss[i/2]; i%2 == 0 {
				s.Left("r", false)
			} else {
				s.Joined("r")
			}
			for range 20 {
				r, err := h.Room(t.Context(), "r")
				if err != nil {
					t.Fatal(err)
				}
				built[r] = true
			}
			time.Sleep(2 * time.Millisecond)
		}
		if len(built) > 2*10+1 {
			t.Errorf("the roster was built %d times in ten ticks", len(built))
		}
	})
}

func BenchmarkActive(b *testing.B) {
	p := presence.New(presence.Config{}, memory(), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	s := p.Open("a", nil)
	for b.Loop() {
		s.Active()
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	p, stop := running(b)
	defer stop()
	for i := range 1000 {
		p.Open(fmt.Sprint(i), nil).Joined("r")
	}
	s := p.Open("a", nil)
	b.ReportAllocs()
	for b.Loop() {
		s.Joined("r")
		s.Left("r", false)
	}
}

// BenchmarkRoom reads a room of a thousand users while it changes without pause.
func BenchmarkRoom(b *testing.B) {
	p, stop := running(b)
	defer stop()
	var ss []*presence.Session
	for i := range 1000 {
		s := p.Open(fmt.Sprintf("u%04d", i), nil)
		s.Joined("r")
		ss = append(ss, s)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%20 == 0 { // 500 changes to 10,000 reads
			s := ss[rand.IntN(len(ss))]
			s.Left("r", false)
			s.Joined("r")
		}
		if _, err := p.Room(b.Context(), "r"); err != nil {
			b.Fatal(err)
		}
	}
}

// running is a Presence that runs.
func running(b *testing.B) (p *presence.Presence, stop func()) {
	b.Helper()
	p = presence.New(presence.Config{}, memory(), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = p.Run(ctx) })
	return p, func() {
		cancel()
		run.Wait()
	}
}
