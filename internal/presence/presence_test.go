package presence_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
)

const tick = 100 * time.Millisecond

// harness is a Presence that runs, and what it has emitted.
type harness struct {
	*presence.Presence
	t    *testing.T
	stop context.CancelFunc
	runs sync.WaitGroup

	mu   sync.Mutex
	said []string // what was emitted, as text
}

// inBubble runs a test in a bubble.
func inBubble(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, run)
}

// newHarness runs a Presence over the store until the test ends.
func newHarness(t *testing.T, cfg presence.Config, store presence.Store) *harness {
	h := &harness{t: t}
	h.Presence = presence.New(cfg, store, func(room message.Room, u presence.Update) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.said = append(h.said, textOf(room, u))
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	h.stop = cancel
	h.runs.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		h.runs.Wait()
	})
	synctest.Wait()
	return h
}

func textOf(room message.Room, u presence.Update) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", room)
	switch {
	case u.Mode == presence.Counts:
		fmt.Fprintf(&b, " counts %d/%d/%d", u.Totals.Online, u.Totals.Away, u.Totals.Sessions)
	case len(u.Changes) == 0:
		b.WriteString(" events")
	}
	for _, c := range u.Changes {
		fmt.Fprintf(&b, " %s %s%s", c.User, c.Status, c.Info)
	}
	return b.String()
}

// says checks what was emitted since it was called last.
func (h *harness) says(want ...string) {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	byRoom := func(a, b string) int { return cmp.Compare(a[:strings.Index(a, ":")], b[:strings.Index(b, ":")]) }
	slices.SortStableFunc(h.said, byRoom) // between rooms there is no order
	slices.SortStableFunc(want, byRoom)
	if diff := gocmp.Diff(append([]string{}, want...), append([]string{}, h.said...)); diff != "" {
		h.t.Errorf("at %v: want (-), said (+):\n%s", time.Now().Format("05.000"), diff)
	}
	h.said = nil
}

// forget forgets what was emitted so far.
func (h *harness) forget() {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = nil
}

// changes returns what was emitted since it was called last about the users of one room, sorted.
func (h *harness) changes() []string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	var changes []string
	for _, said := range h.said {
		for c := range slices.Chunk(strings.Fields(said)[1:], 2) {
			changes = append(changes, strings.Join(c, " "))
		}
	}
	h.said = nil
	slices.Sort(changes)
	return changes
}

// lists returns who is in a room.
func (h *harness) lists(room message.Room) string {
	h.t.Helper()
	r, err := h.Room(h.t.Context(), room)
	if err != nil {
		h.t.Fatalf("Room(%q): %v", room, err)
	}
	var names []string
	for _, u := range r.Users {
		names = append(names, u.ID+" "+u.Status.String())
	}
	return strings.Join(names, ", ")
}

func memory() presence.Store { return presence.NewMemory(presence.MemoryConfig{}) }

func TestAMemberIsToldOfHimselfAndOfTheOthersWithinATick(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		a := h.Open("a", []byte(`{"name":"A"}`))
		a.Joined("r")
		if got := h.lists("r"); got != "a online" {
			t.Errorf("at once the room has %q", got)
		}
		if users, sessions := h.Count("r"); users != 1 || sessions != 1 {
			t.Errorf("at once Count = %d, %d, want 1, 1", users, sessions)
		}
		time.Sleep(tick)
		h.says(`r: a online{"name":"A"}`)
		h.Open("b", nil).Joined("r")
		h.Open("c", nil).Joined("r")
		time.Sleep(tick)
		h.says("r: b online c online")
		a.Joined(message.Global)
		a.Joined(message.UserRoom("a"))
		a.Joined("r")
		time.Sleep(time.Minute)
		h.says()
	})
}

func TestASecondSessionOfAUserIsNoChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		one, two := h.Open("a", nil), h.Open("a", nil)
		one.Joined("r")
		two.Joined("r")
		time.Sleep(tick)
		h.says("r: stays online a online")
		one.Close()
		time.Sleep(time.Minute)
		h.says()
		if users, sessions := h.Count("r"); users != 2 || sessions != 2 {
			t.Errorf("Count = %d, %d, want 2, 2", users, sessions)
		}
		two.Left("r", false)
		time.Sleep(tick)
		h.says("r: a offline")
	})
}

func TestWhoClosesStaysForTheGraceAndWhoLeavesDoesNot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		a, b := h.Open("a", nil), h.Open("b", nil)
		a.Joined("r")
		b.Joined("r")
		time.Sleep(tick)
		h.says("r: stays online a online b online")

		a.Left("r", true)
		a.Close()
		b.Left("r", false)
		time.Sleep(tick)
		h.says("r: b offline")
		if _, sessions := h.Count("r"); sessions != 1 || h.lists("r") != "a online, stays online" {
			t.Errorf("in the grace there are %q with %d sessions", h.lists("r"), sessions)
		}
		time.Sleep(8*time.Second - tick)
		h.says()
		time.Sleep(tick)
		h.says("r: a offline")
		if _, _, members, _ := h.Held(); members != 1 {
			t.Errorf("%d members are held, want 1", members)
		}
	})
}

func TestWhoIsBackWithinTheGraceNeverLeft(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		s := h.Open("a", nil)
		s.Joined("r")
		time.Sleep(tick)
		before, _ := h.Room(t.Context(), "r")
		for range 5 { // each time shortly before the grace is over
			s.Close()
			time.Sleep(7900 * time.Millisecond)
			s = h.Open("a", nil)
			s.Joined("r")
		}
		time.Sleep(time.Minute)
		h.says("r: stays online a online")
		after, _ := h.Room(t.Context(), "r")
		if before.Users[0].Since != after.Users[0].Since {
			t.Errorf("since was %d and is %d", before.Users[0].Since, after.Users[0].Since)
		}
		s.Close()
		time.Sleep(8*time.Second + tick)
		h.says("r: a offline")
	})
}

func TestAStatusIsToldWhenItHasHeldForTwoSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		one, two := h.Open("a", nil), h.Open("a", nil)
		one.Joined("r")
		two.Joined("q")
		time.Sleep(tick)
		h.says("r: a online", "q: a online")

		one.Away(true)
		time.Sleep(time.Minute)
		h.says() // the other is not away
		two.Away(true)
		time.Sleep(1900 * time.Millisecond)
		two.Away(false)
		time.Sleep(time.Minute)
		h.says()

		two.Away(true)
		time.Sleep(2*time.Second + tick - 1)
		h.says()
		time.Sleep(time.Nanosecond)
		h.says("r: a away", "q: a away")

		one.Away(false)
		time.Sleep(time.Second)
		two.Away(false) // online is what he was to become anyway
		time.Sleep(time.Second + tick)
		h.says("r: a online", "q: a online")

		one.Away(true)
		two.Away(true)
		time.Sleep(time.Minute)
		h.says("r: a away", "q: a away")
		one.Away(false)
		time.Sleep(time.Second)
		h.Open("a", nil) // neither puts it off nor brings it forward
		time.Sleep(time.Second + tick)
		h.says("r: a online", "q: a online")
	})
}

func TestAStatusIsToldInTimeThoughAGraceWasToEndLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("a", nil).Close()
		time.Sleep(time.Second)
		s := h.Open("a", nil)
		s.Joined("r")
		s.Away(true)
		time.Sleep(2*time.Second + tick)
		h.says("r: a online", "r: a away")
	})
}

func TestWhoAppearsIsShownAsHeIsNow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		s := h.Open("a", nil)
		s.Joined("r")
		s.Away(true)
		time.Sleep(time.Minute)
		h.says("r: a online", "r: a away")
		s.Away(false)
		s.Joined("q")
		time.Sleep(tick)
		h.says("q: a online", "r: a online")
	})
}

func TestInfoIsThatOfTheNewestSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		one := h.Open("a", []byte(`1`))
		one.Joined("r")
		time.Sleep(tick)
		h.says("r: a online1")
		two := h.Open("a", []byte(`2`))
		time.Sleep(tick)
		h.says("r: a online2")
		one.Info([]byte(`3`))
		time.Sleep(tick)
		h.says()
		two.Close()
		time.Sleep(tick)
		h.says("r: a online3")
		one.Info(nil)
		time.Sleep(tick)
		h.says("r: a online")
	})
}

func TestWhatCancelsOutWithinATickIsNotTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		s := h.Open("a", nil)
		time.Sleep(tick)
		h.says("r: stays online")
		s.Joined("r")
		s.Left("r", false)
		time.Sleep(tick)
		h.says()
		s.Joined("r")
		time.Sleep(tick)
		h.says("r: a online")
		s.Left("r", false)
		s.Joined("r")
		time.Sleep(tick)
		h.says()
	})
}

func TestWhatWasShownInARosterIsToldAlthoughItCancelsOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		h.Open("stays", nil).Joined("r")
		s := h.Open("a", nil)
		time.Sleep(tick)
		h.says("r: stays online")
		s.Joined("r")
		if got := h.lists("r"); got != "a online, stays online" {
			t.Errorf("the room has %q", got)
		}
		s.Left("r", false)
		time.Sleep(tick)
		h.says("r: a offline")
	})
}

func TestARosterIsNeverOlderThanWhatWasTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		const many = 200
		for i := range many { // so that a roster may be kept for a while
			h.Open(fmt.Sprintf("u%03d", i), nil).Joined("r")
		}
		s := h.Open("z", nil)
		time.Sleep(time.Second)
		s.Joined("r")
		time.Sleep(tick - 1)
		first, _ := h.Room(t.Context(), "r") // kept from now on
		s.Left("r", false)
		kept, _ := h.Room(t.Context(), "r")
		if first != kept {
			t.Error("a large room's roster was built twice within a tick")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait() // told: z has left
		if now, _ := h.Room(t.Context(), "r"); len(now.Users) != many {
			t.Errorf("the roster has %d users, members were told of %d", len(now.Users), many)
		}
		s.Joined("r")
		time.Sleep(tick)
		synctest.Wait()
		a, _ := h.Room(t.Context(), "r")
		time.Sleep(time.Minute)
		b, _ := h.Room(t.Context(), "r")
		if a != b {
			t.Error("a roster was built anew though nothing had changed")
		}
	})
}

func TestLargeRoomsTellNumbers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{CountsAbove: 10, CountsBelow: 9}, memory())
		var ss []*presence.Session
		join := func() {
			s := h.Open(fmt.Sprintf("u%02d", len(ss)), nil)
			s.Joined("r")
			ss = append(ss, s)
		}
		leave := func() {
			ss[len(ss)-1].Left("r", false)
			ss = ss[:len(ss)-1]
		}
		for range 10 {
			join()
		}
		time.Sleep(tick)
		h.forget()
		if h.Mode("r") != presence.Events {
			t.Error("ten users are not above ten")
		}
		join()
		time.Sleep(tick)
		h.says("r: counts 11/0/11")
		if h.Mode("r") != presence.Counts {
			t.Error("told counts, but Mode is another")
		}
		join()
		time.Sleep(4900 * time.Millisecond)
		h.says()
		join()
		time.Sleep(tick)
		h.says("r: counts 13/0/13")
		time.Sleep(time.Minute)
		h.says() // nothing moved
		leave()
		time.Sleep(tick)
		h.says("r: counts 12/0/12")
		leave()
		leave()
		leave()
		time.Sleep(time.Minute)
		h.says("r: counts 9/0/9") // still, so that it does not flap
		leave()
		time.Sleep(tick)
		h.says("r: events")
		join()
		time.Sleep(tick)
		h.says("r: u08 online")
		for range 2 { // the old deadline for numbers does not keep new ones back
			for range 3 {
				join()
			}
			time.Sleep(tick)
			h.says("r: counts 12/0/12")
			for range 4 {
				leave()
			}
			time.Sleep(tick)
			h.says("r: events")
			join()
			time.Sleep(tick)
			h.says("r: u08 online")
		}
	})
}

func TestAnUpdateIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ id, info string }{
		"much info": {"", `"` + strings.Repeat("x", 1000) + `"`},
		"long ids":  {strings.Repeat(`"`, 120), ""},
		"many":      {"", ""},
	} {
		changes, largest := 0, 0
		inBubble(t, func(t *testing.T) {
			p := presence.New(presence.Config{}, memory(), func(_ message.Room, u presence.Update) {
				var data []frame.PresenceChange
				for _, c := range u.Changes {
					data = append(data, frame.PresenceChange{UserID: c.User, Status: c.Status.String(), Since: c.Since, Info: c.Info})
				}
				changes += len(u.Changes)
				largest = max(largest, len(frame.AppendPresence(nil, data)))
			}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { _ = p.Run(ctx) })
			for i := range 900 {
				p.Open(fmt.Sprint(c.id, i), []byte(c.info)).Joined("r")
			}
			time.Sleep(tick)
			synctest.Wait()
			cancel()
			run.Wait()
		})
		if changes != 900 || largest > 34<<10 {
			t.Errorf("%s: %d changes in updates of up to %d bytes, want 900 and at most 34 KiB", name, changes, largest)
		}
	}
}

func TestUsersTellsWhereSomeoneIsAndWhenHeWasSeen(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		s := h.Open("a", nil)
		s.Joined("r")
		s.Joined("q")
		h.Open("a", nil).Close()
		time.Sleep(time.Minute)
		s.Active()
		at := time.Now().UnixMilli()
		ask := func() presence.UserStatus {
			t.Helper()
			us, fresh, err := h.Users(t.Context(), []string{"nobody", "a"})
			if err != nil || len(us) != 2 || fresh != (presence.Freshness{}) {
				t.Fatalf("Users = %v, %v, %v", us, fresh, err)
			}
			if diff := gocmp.Diff(presence.UserStatus{ID: "nobody"}, us[0]); diff != "" {
				t.Errorf("nobody: %s", diff)
			}
			return us[1]
		}
		want := presence.UserStatus{ID: "a", Status: presence.Online, LastSeen: at, Sessions: 1}
		if diff := gocmp.Diff(want, ask()); diff != "" {
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		if got, want := h.RoomsOf([]string{"nobody", "a"}), [][]message.Room{nil, {"q", "r"}}; !gocmp.Equal(got, want) {
			t.Errorf("rooms of nobody and a: %q, want %q", got, want)
		}
		for i := range 200 {
			s.Joined(message.Room(fmt.Sprint("n", i)))
		}
		if n := len(h.RoomsOf([]string{"a"})[0]); n != presence.MaxRooms {
			t.Errorf("%d rooms of 202 are listed, want %d", n, presence.MaxRooms)
		}
		s.Close()
		time.Sleep(time.Minute)
		if diff := gocmp.Diff(presence.UserStatus{ID: "a", LastSeen: at}, ask()); diff != "" {
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		time.Sleep(7 * 24 * time.Hour)
		if diff := gocmp.Diff(presence.UserStatus{ID: "a"}, ask()); diff != "" {
			t.Errorf("after seven days: want (-), got (+):\n%s", diff)
		}
	})
}

func TestRoomsAreListedByName(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, memory())
		s := h.Open("a", nil)
		for _, r := range []message.Room{"b.2", "a", "b.1", "c", "b.3"} {
			s.Joined(r)
		}
		w := h.Watch(presence.Target{Rooms: []message.Room{"b.0"}, Users: nil}, "")
		defer w.Close()
		for _, c := range []struct {
			prefix string
			after  message.Room
			limit  int
			want   []message.Room
		}{
			{"", "", 10, []message.Room{"a", "b.1", "b.2", "b.3", "c"}},
			{"b.", "", 10, []message.Room{"b.1", "b.2", "b.3"}},
			{"b.", "b.1", 1, []message.Room{"b.2"}},
			{"x", "", 10, []message.Room{}},
		} {
			got, err := h.Rooms(t.Context(), c.prefix, c.after, c.limit)
			if diff := gocmp.Diff(c.want, append([]message.Room{}, got...)); err != nil || diff != "" {
				t.Errorf("Rooms(%q, %q, %d), %v: want (-), got (+):\n%s", c.prefix, c.after, c.limit, err, diff)
			}
		}
	})
}

func TestStatesMergeAlikeInEachOrder(t *testing.T) {
	states := []presence.State{
		{},
		{Active: 9},
		{Status: presence.Away, Sessions: 1, Since: 5, Active: 6, Newest: 5, Info: []byte(`1`)},
		{Status: presence.Online, Sessions: 2, Since: 7, Active: 8, Newest: 7, Info: []byte(`2`)},
		{Status: presence.Online, Sessions: 0, Since: 3, Active: 4, Newest: 7, Info: []byte(`3`)},
	}
	for _, a := range states {
		for _, b := range states {
			if a.Status == presence.Offline && b.Status == presence.Offline {
				continue
			}
			if diff := gocmp.Diff(a.With(b), b.With(a)); diff != "" {
				t.Errorf("%+v and %+v: one way (-), the other (+):\n%s", a, b, diff)
			}
		}
	}
	want := presence.State{Status: presence.Online, Sessions: 3, Since: 3, Active: 8, Newest: 7, Info: []byte(`3`)}
	if diff := gocmp.Diff(want, states[2].With(states[3]).With(states[4])); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestSessionsMayBeUsedFromEverywhereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := presencetest.NewBus(8*time.Second, 6*time.Second)
		a, b := newHarness(t, presence.Config{CountsAbove: 5}, bus.Node("a")), newHarness(t, presence.Config{CountsAbove: 5}, bus.Node("b"))
		var wg sync.WaitGroup
		for g := range 8 {
			h := []*harness{a, b}[g%2]
			wg.Go(func() {
				for i := range 200 {
					s := h.Open(fmt.Sprint("u", g/2), nil)
					var both sync.WaitGroup
					both.Go(func() {
						for _, room := range []message.Room{"r", "q"} {
							s.Joined(room)
							s.Left(room, i%2 == 0)
							s.Joined(room)
						}
						h.Count("r")
						_, _ = h.Room(t.Context(), "r")
					})
					both.Go(func() {
						s.Away(i%3 == 0)
						s.Active()
						s.Info([]byte(`1`))
					})
					both.Wait()
					s.Close()
					s.Left("r", true)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		for _, h := range []*harness{a, b} {
			if users, rooms, members, deadlines := h.Held(); users+rooms+members+deadlines > 0 {
				t.Errorf("%d users, %d rooms, %d members, %d deadlines are left", users, rooms, members, deadlines)
			}
		}
	})
}

func TestRunEndsWithTheErrorOfItsStore(t *testing.T) {
	m := memory()
	synctest.Test(t, func(t *testing.T) { newHarness(t, presence.Config{}, m) })
	p := presence.New(presence.Config{}, m, func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "only once") {
		t.Errorf("Run over a Store that has run = %v", err)
	}
}
