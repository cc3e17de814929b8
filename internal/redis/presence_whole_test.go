package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// whole is a whole presence over Redis, and what it has told the members of rooms.
type whole struct {
	*presence.Presence
	stop func()

	mu   sync.Mutex
	told []string
	news chan struct{}
}

func runWhole(t *testing.T, s *redistest.Server, name string) *whole {
	t.Helper()
	w := &whole{news: make(chan struct{}, 1)}
	w.Presence = presence.New(presence.Config{Grace: 100 * time.Millisecond, Debounce: 10 * time.Millisecond, Coalesce: 20 * time.Millisecond},
		newPresence(t, s, "", quick(name)), func(room message.Room, u presence.Update) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, c := range u.Changes {
				w.told = append(w.told, fmt.Sprintf("%s %s %v", room, c.User, c.Status))
			}
			select {
			case w.news <- struct{}{}:
			default:
			}
		}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var runs sync.WaitGroup
	runs.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	w.stop = func() {
		cancel()
		runs.Wait()
	}
	t.Cleanup(w.stop)
	return w
}

// says waits until exactly this was told, in any order.
func (w *whole) says(t *testing.T, want ...string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	deadline := time.After(15 * time.Second)
	for {
		w.mu.Lock()
		got := slices.Sorted(slices.Values(w.told))
		w.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-w.news:
		case <-deadline:
			t.Fatalf("told %q, want %q", got, want)
		}
	}
}

func TestMembersAreToldOfUsersOnOtherNodesOnceWhateverRedisDoes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := runWhole(t, s, "a"), runWhole(t, s, "b")
	b.Open("v", nil).Joined("r")
	b.says(t, "r v online")
	told := []string{"r v online"}
	joins := func(user string) {
		t.Helper()
		a.Open(user, []byte(`{"name":"U"}`)).Joined("r")
		told = append(told, "r "+user+" online")
		b.says(t, told...)
	}
	roster := func(users int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			r, err := b.Room(t.Context(), "r")
			if err == nil && len(r.Users) == users && !r.Stale {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("Room = %+v, %v, want %d users", r, err, users)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	joins("u")
	roster(2)
	s.FlushAll()
	s.KillConns("pubsub")
	joins("w")
	roster(3)
	s.Kill()
	<-time.After(2 * time.Second) // longer than a lease
	s.Restart()
	joins("x")
	roster(4)
	a.stop()
	b.says(t, append(told, "r u offline", "r w offline", "r x offline")...)
	roster(1)
}
