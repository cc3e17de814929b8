package presence_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
)

func TestAUserHasAtMostTheSessionsHeMayHave(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("u", nil) // one whose token says no limit counts too
		second, within := h.Claim(t.Context(), "u", []byte(`{"n":2}`), 2, false)
		if second == nil || !within {
			t.Fatal("the second of two is refused")
		}
		if third, within := h.Claim(t.Context(), "u", nil, 2, false); third != nil || within {
			t.Error("a third of two is opened")
		}
		third, within := h.Claim(t.Context(), "u", nil, 2, true)
		if third == nil || within {
			t.Error("with force a third is not opened, or is said to be within")
		}
		if other, within := h.Claim(t.Context(), "other", nil, 1, false); other == nil || !within {
			t.Error("another user is refused")
		}
		third.Close()
		second.Close()
		if again, within := h.Claim(t.Context(), "u", nil, 2, false); again == nil || !within {
			t.Error("a place that was given back is not free")
		}
	})
}

func TestClaimsAtOneMomentTakeNoMoreThanThereIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		for round := range 50 {
			user := fmt.Sprint("u", round)
			var opened atomic.Int32
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if s, _ := h.Claim(t.Context(), user, nil, 3, false); s != nil {
						opened.Add(1)
					}
				})
			}
			all.Wait()
			if n := opened.Load(); n < 1 || n > 3 {
				t.Fatalf("%d sessions are open, the limit is 3", n)
			}
		}
	})
}

func TestAUsersSessionsCountOverNodes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bus, a, b := pair(t)
		one, _ := a.Claim(t.Context(), "u", []byte(`{"n":1}`), 1, false)
		if one == nil {
			t.Fatal("the first is refused")
		}
		if s, within := b.Claim(t.Context(), "u", nil, 1, false); s != nil || within { // at once: nothing was told yet
			t.Error("a second on another node is opened")
		}
		time.Sleep(time.Second)
		if users, _, err := b.Users(t.Context(), []string{"u"}); err != nil || users[0].Sessions != 1 || users[0].Status != presence.Online {
			t.Errorf("the other node sees %+v, %v", users, err)
		}
		one.Close()
		time.Sleep(time.Second) // the grace runs, but he has no session
		two, within := b.Claim(t.Context(), "u", nil, 1, false)
		if two == nil || !within {
			t.Error("a session in its grace still counts")
		}
		bus.SetStale(true)
		if s, _ := a.Claim(t.Context(), "u", nil, 1, false); s == nil {
			t.Error("while the bus is away others' sessions count")
		}
	})
}

// undecided is a store whose claims are taken, but nobody hears of it.
type undecided struct {
	presence.Store
	claimed atomic.Int32
}

func (u *undecided) Claim(ctx context.Context, own presence.Field, _ int) (bool, error) {
	u.claimed.Add(1)
	if _, err := u.Store.Claim(ctx, own, 1000); err != nil {
		return false, err
	}
	return false, errors.New("no answer")
}

func TestAClaimWithoutAnswerIsDecidedByTheNodeAndLeavesNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bus := presencetest.NewBus(8*time.Second, 6*time.Second)
		a := newHarness(t, presence.Config{}, &undecided{Store: bus.Node("a")})
		b := newHarness(t, presence.Config{}, bus.Node("b"))
		seen := func(want int) {
			t.Helper()
			time.Sleep(time.Second)
			users, _, err := b.Users(t.Context(), []string{"u"})
			if err != nil || users[0].Sessions != want {
				t.Errorf("the other node sees %+v, %v, want %d sessions", users, err, want)
			}
		}
		if s, within := a.Claim(t.Context(), "u", nil, 0, false); s != nil || within {
			t.Error("a session of a user who may have none is opened")
		}
		seen(0)
		if s, within := a.Claim(t.Context(), "u", nil, 1, false); s == nil || !within {
			t.Error("by the node's own count there was room")
		}
		seen(1)
		if s, _ := a.Claim(t.Context(), "u", nil, 1, false); s != nil {
			t.Error("by the node's own count there was none")
		}
		seen(1)
	})
}
