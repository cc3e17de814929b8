package presence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

var kinds = [...]string{"is", "joined", "left", "changed"}

// next returns what Next brings within a second, as text, and the last event's token.
func next(t *testing.T, w *presence.Watch) (said []string, token string) {
	t.Helper()
	synctest.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	events, err := w.Next(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next: %v", err)
	}
	for _, e := range events {
		text := string(e.Room)
		if e.First {
			text += " first"
		}
		for _, u := range e.Users {
			text += fmt.Sprintf(" %s %s %s", u.ID, kinds[e.Kind], u.Status)
		}
		if e.Last {
			text += " last"
		}
		said, token = append(said, text), e.Token
	}
	return said, token
}

// brings checks what Next brings, and returns the token behind it.
func brings(t *testing.T, w *presence.Watch, want ...string) string {
	t.Helper()
	got, token := next(t, w)
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		t.Errorf("Next: want (-), got (+):\n%s", diff)
	}
	return token
}

func TestAWatcherGetsASnapshotAndThenEachChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		a := h.Open("a", nil)
		a.Joined("r")
		time.Sleep(time.Second)
		w := h.Watch(presence.Target{Rooms: []message.Room{"r", "empty"}}, "")
		defer w.Close()
		b := h.Open("b", nil)
		b.Joined("r")
		brings(t, w, "empty first")
		brings(t, w, "r a is online last") // b was not told of yet
		brings(t, w, "r b joined online")
		b.Away(true)
		time.Sleep(3 * time.Second)
		brings(t, w, "r b changed away")
		b.Joined("empty")
		b.Close()
		a.Left("r", false)
		time.Sleep(tick)
		got, _ := next(t, w)
		slices.Sort(got)
		if diff := cmp.Diff([]string{"empty b joined away", "r a left offline"}, got); diff != "" {
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		brings(t, w)
		time.Sleep(10 * time.Second)
		if got, _ := next(t, w); len(got) != 2 || !strings.HasSuffix(got[0], "b left offline") {
			t.Errorf("after the grace: %q", got)
		}
	})
}

func TestWatchedUsersAreToldOfWhereverTheyAre(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		a, c := h.Open("a", nil), h.Open("c", nil)
		c.Close() // in the grace
		h.Open("other", nil).Joined("r")
		w := h.Watch(presence.Target{Users: []string{"a", "b", "c"}}, "")
		defer w.Close()
		brings(t, w, " first a is online c is online last")
		b := h.Open("b", nil)
		time.Sleep(tick)
		brings(t, w, " b joined online")
		a2 := h.Open("a", nil)
		a.Close()
		a2.Joined("r")
		brings(t, w)
		a2.Away(true)
		b.Close()
		time.Sleep(3 * time.Second)
		brings(t, w, " a changed away")
		time.Sleep(5*time.Second + 2*tick)
		got, _ := next(t, w)
		if want := []string{" c left offline", " b left offline"}; !cmp.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestASnapshotComesInPartsOfBoundedSize(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		var ids []string
		for i := range 1200 {
			id := fmt.Sprintf("u%04d", i)
			ids = append(ids, id)
			h.Open(id, nil).Joined("r")
		}
		time.Sleep(time.Second)
		for _, target := range []presence.Target{{Rooms: []message.Room{"r", "s"}}, {Users: ids}} {
			w := h.Watch(target, "")
			seen := make(map[string]bool)
			for parts := 0; ; parts++ {
				events, err := w.Next(t.Context())
				if err != nil || len(events) != 1 {
					t.Fatalf("Next = %d events, %v", len(events), err)
				}
				e := events[0]
				if e.Kind != presence.Snapshot || e.First != (parts == 0) || len(e.Users) > 500 || e.Last != (e.Token != "") {
					t.Errorf("part %d: kind %d, first %v, last %v, token %q, %d users", parts, e.Kind, e.First, e.Last, e.Token, len(e.Users))
				}
				for _, u := range e.Users {
					seen[u.ID] = true
				}
				if e.Last {
					break
				}
			}
			if len(seen) != 1200 {
				t.Errorf("the snapshot had %d users, want 1200", len(seen))
			}
			w.Close()
		}
	})
}

func TestAWatchIsResumedWhereItWasCut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		time.Sleep(time.Second)
		target := presence.Target{Rooms: []message.Room{"r", "s"}}
		w := h.Watch(target, "")
		brings(t, w, "r first stays is online")
		token := brings(t, w, "s last")
		w.Close()
		if _, err := w.Next(t.Context()); !errors.Is(err, presence.ErrClosed) {
			t.Errorf("Next of a closed Watch = %v", err)
		}
		w.Close()

		h.Open("a", nil).Joined("s") // nobody else is there: it is followed for a while nevertheless
		time.Sleep(tick)
		w = h.Watch(target, token)
		token = brings(t, w, "s a joined online")
		w.Close()

		time.Sleep(20 * time.Second)
		h.Open("b", nil).Joined("r")
		time.Sleep(tick)
		w = h.Watch(presence.Target{Rooms: []message.Room{"s", "r"}}, token) // the same target
		token = brings(t, w, "r b joined online")
		w.Close()

		for name, target := range map[string]presence.Target{
			"another target": {Rooms: []message.Room{"r"}},
			"users":          {Users: []string{"r", "s"}},
		} {
			w := h.Watch(target, token)
			if got, _ := next(t, w); len(got) == 0 || !strings.Contains(got[0], "first") {
				t.Errorf("the token for %s brings %q, want a snapshot", name, got)
			}
			w.Close()
		}
		for _, token := range []string{"x", token + "0", token[1:], token + "!", strings.Repeat(".", 5)} {
			w := h.Watch(target, token)
			if got, _ := next(t, w); len(got) != 1 || !strings.Contains(got[0], "first") {
				t.Errorf("token %q brings %q, want a snapshot", token, got)
			}
			w.Close()
		}

		time.Sleep(31 * time.Second) // changes are not recorded any more
		h.Open("c", nil).Joined("r")
		time.Sleep(tick)
		w = h.Watch(target, token)
		brings(t, w, "r first stays is online b is online c is online")
		again := h.Watch(target, token) // they are recorded again, but not those since the token
		brings(t, again, "r first stays is online b is online c is online")
		again.Close()
		w.Close()
	})
}

func TestAWatcherThatFellBehindGetsASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{Recent: 10}, memory())
		target := presence.Target{Rooms: []message.Room{"r"}}
		w := h.Watch(target, "")
		defer w.Close()
		token := brings(t, w, "r first last")
		for i := range 10 {
			h.Open(fmt.Sprint("u", i), nil).Joined("r")
		}
		time.Sleep(tick)
		if got, _ := next(t, w); len(got) != 10 {
			t.Errorf("ten changes behind: %q", got)
		}
		for i := range 11 {
			h.Open(fmt.Sprint("v", i), nil).Joined("r")
		}
		time.Sleep(tick)
		synctest.Wait()
		again := h.Watch(target, token)
		defer again.Close()
		for _, w := range []*presence.Watch{w, again} {
			if got, _ := next(t, w); len(got) != 1 || !strings.HasPrefix(got[0], "r first") || strings.Count(got[0], "online") != 21 {
				t.Errorf("eleven changes behind: %q", got)
			}
		}
		h.Open("last", nil).Joined("r")
		time.Sleep(tick)
		brings(t, w, "r last joined online")
	})
}

func TestWhatChangesDuringASnapshotIsToldOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("a")
		time.Sleep(time.Second)
		w := h.Watch(presence.Target{Rooms: []message.Room{"a", "b"}}, "")
		defer w.Close()
		brings(t, w, "a first stays is online")
		s := h.Open("s", nil)
		s.Joined("a")
		s.Joined("b")
		time.Sleep(tick)
		synctest.Wait()
		// In b it is part of the snapshot, in a it comes behind; between the two no token would be right.
		if token := brings(t, w, "b s is online last"); token != "" {
			t.Errorf("the last part has a token, though changes before it are to come")
		}
		if got, token := next(t, w); !cmp.Equal(got, []string{"a s joined online"}) {
			t.Errorf("behind the snapshot: %q, token %q", got, token)
		}
		s.Left("b", false)
		time.Sleep(tick)
		if brings(t, w, "b s left offline") == "" {
			t.Error("no token though a position says it all")
		}
	})
}

func TestASnapshotIsWhatWasTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		s := h.Open("a", nil)
		s.Joined("r")
		time.Sleep(time.Second)
		s.Away(true)
		time.Sleep(2*time.Second + tick/2) // it will be told with the next tick
		w := h.Watch(presence.Target{Rooms: []message.Room{"r"}}, "")
		defer w.Close()
		brings(t, w, "r first a is online last")
		s.Away(false)
		s.Joined("q") // he is online at once: nothing has changed
		brings(t, w)
	})
}

func TestAWatchOfAUserIsForgottenWhateverHeDoesMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		s := h.Open("u", nil)
		w := h.Watch(presence.Target{Users: []string{"u"}}, "")
		time.Sleep(time.Second)
		w.Close()
		time.Sleep(25 * time.Second)
		s.Close() // its grace outlasts the watch's linger
		time.Sleep(6 * time.Second)
		if _, rooms, members, _ := h.Held(); rooms+members > 0 {
			t.Errorf("%d rooms and %d members are left", rooms, members)
		}
		time.Sleep(time.Minute)
		if users, _, _, deadlines := h.Held(); users+deadlines > 0 {
			t.Errorf("%d users and %d deadlines are left", users, deadlines)
		}
	})
}

func TestNextEndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := presence.New(presence.Config{}, memory(), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = p.Run(ctx) })
		w := p.Watch(presence.Target{Rooms: []message.Room{"r"}}, "")
		brings(t, w, "r first last")
		run.Go(func() {
			if _, err := w.Next(t.Context()); !errors.Is(err, presence.ErrClosed) {
				t.Errorf("Next = %v, want ErrClosed", err)
			}
		})
		synctest.Wait()
		cancel()
		run.Wait()
		w.Close()
	})
}
