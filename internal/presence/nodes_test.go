package presence_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
)

// pair runs two nodes on one bus.
func pair(t *testing.T) (bus *presencetest.Bus, a, b *harness) {
	bus = presencetest.NewBus(8*time.Second, 6*time.Second)
	return bus, newHarness(t, presence.Config{}, bus.Node("a")), newHarness(t, presence.Config{}, bus.Node("b"))
}

func TestAUserOnTwoNodesIsOneUser(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		a.Open("onA", nil).Joined("r")
		time.Sleep(time.Second)
		b.Open("onB", nil).Joined("r")
		time.Sleep(time.Second)
		a.says("r: onA online", "r: onB online")
		b.says("r: onB online")

		one := a.Open("u", nil)
		one.Joined("r")
		one.Away(true)
		time.Sleep(time.Minute)
		a.says("r: u online", "r: u away")
		b.says("r: u online", "r: u away")
		two := b.Open("u", nil)
		two.Joined("r")
		time.Sleep(time.Second)
		a.says("r: u online")
		b.says("r: u online")
		one.Close()
		time.Sleep(8 * time.Second)
		a.says()
		b.says()
		time.Sleep(time.Second)
		a.says("r: u online") // since another time
		b.says("r: u online")
		two.Left("r", false)
		time.Sleep(time.Second)
		a.says("r: u offline")
		b.says("r: u offline")
	})
}

func TestWhoIsThereAlreadyIsFoundAndNotTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		u := a.Open("u", nil)
		u.Joined("r")
		time.Sleep(time.Second)
		b.Open("v", nil).Joined("r")
		if got := b.lists("r"); got != "u online, v online" {
			t.Errorf("at once the room has %q", got)
		}
		time.Sleep(time.Second)
		b.says("r: v online")
		u.Left("r", false)
		time.Sleep(time.Second)
		b.says("r: u offline")
	})
}

func TestAnUnfollowedRoomIsReadFromTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		s := a.Open("u", nil)
		s.Joined("r")
		v := b.Open("v", nil)
		time.Sleep(time.Second)
		if got := b.lists("r"); got != "u online" {
			t.Errorf("the room has %q", got)
		}
		if got := b.lists(message.Global); got != "u online, v online" {
			t.Errorf("connected are %q", got)
		}
		totals, fresh, err := b.Counts(t.Context(), []message.Room{"none", "r", message.Global})
		want := []presence.Totals{{}, {Online: 1, Sessions: 1}, {Online: 2, Sessions: 2}}
		if err != nil || !fresh.Approximate || !slices.Equal(totals, want) {
			t.Errorf("Counts = %v, %v, %v, want %v", totals, fresh, err, want)
		}
		rooms, err := b.Rooms(t.Context(), "", "", 10)
		if err != nil || !slices.Equal(rooms, []message.Room{"r"}) {
			t.Errorf("Rooms = %q, %v", rooms, err)
		}
		v.Joined("r")
		time.Sleep(time.Second)
		rooms, err = b.Rooms(t.Context(), "", "", 10)
		if err != nil || !slices.Equal(rooms, []message.Room{"r"}) {
			t.Errorf("of a room on both nodes, Rooms = %q, %v", rooms, err)
		}
		users, _, err := b.Users(t.Context(), []string{"u"})
		if err != nil || users[0].Status != presence.Online || users[0].Sessions != 1 {
			t.Errorf("Users = %+v, %v", users, err)
		}
		s.Close()
	})
}

func TestUsersOfANodeThatDiedAreGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		a.Open("u", nil).Joined("r")
		a.Open("both", nil).Joined("r")
		b.Open("both", nil).Joined("r")
		b.Open("v", nil).Joined("r")
		w := b.Watch(presence.Target{Users: []string{"u", "both"}}, "")
		defer w.Close()
		time.Sleep(time.Second)
		brings(t, w, " first both is online u is online last")
		b.forget()
		a.stop()
		time.Sleep(6*time.Second + tick)
		b.says("r: u offline")
		brings(t, w, " u left offline")
		if got := b.lists("r"); got != "both online, v online" {
			t.Errorf("the room has %q", got)
		}
	})
}

func TestUsersOfADrainedNodeStandUntilTheGraceIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		for _, u := range []string{"u", "w"} {
			a.Open(u, nil).Joined("r")
		}
		b.Open("v", nil).Joined("r")
		time.Sleep(time.Second)
		b.forget()
		a.Leave()
		a.stop()
		time.Sleep(7 * time.Second)
		b.Open("u", nil).Joined("r") // back on the other node
		time.Sleep(900 * time.Millisecond)
		b.says()
		time.Sleep(time.Second)
		if got, want := b.changes(), []string{"u online", "w offline"}; !slices.Equal(got, want) { // u, since another time
			t.Errorf("told %q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		b.says()
	})
}

func TestWhatTheBusHasLostIsSaidAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bus, a, b := pair(t)
		for _, u := range []string{"u", "w"} {
			a.Open(u, nil).Joined("r")
		}
		time.Sleep(time.Second)
		bus.Lose()
		if got := b.lists("r") + b.lists(message.Global); got != "" {
			t.Fatalf("after everything was lost there is %q", got)
		}
		time.Sleep(time.Second)
		for _, room := range []message.Room{"r", message.Global} {
			if got := b.lists(room); got != "u online, w online" {
				t.Errorf("%q has %q", room, got)
			}
		}
		a.forget()
		time.Sleep(time.Minute)
		a.says()
	})
}

func TestOtherNodesKnowWhenSomeoneWasActiveToFiveMinutes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, a, b := pair(t)
		s := a.Open("u", nil)
		s.Joined("r")
		b.Open("v", nil).Joined("r")
		for range 30 {
			time.Sleep(time.Minute)
			s.Active()
			now := time.Now()
			time.Sleep(time.Second)
			users, _, err := b.Users(t.Context(), []string{"u"})
			if err != nil {
				t.Fatal(err)
			}
			r, err := b.Room(t.Context(), "r")
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []int64{users[0].LastSeen, r.Users[0].Active} {
				if age := now.UnixMilli() - at; age < 0 || age > (5*time.Minute).Milliseconds() {
					t.Fatalf("he was active now, the other node says %d ms ago", age)
				}
			}
		}
	})
}

func TestAnswersSayWhenTheyAreStale(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bus, a, _ := pair(t)
		a.Open("u", nil).Joined("r")
		for _, stale := range []bool{false, true, false} {
			bus.SetStale(stale)
			for _, room := range []message.Room{"r", "unfollowed", message.Global} {
				r, err := a.Room(t.Context(), room)
				if err != nil || r.Stale != stale {
					t.Errorf("Room(%q) is stale: %v, %v, want %v", room, r.Stale, err, stale)
				}
			}
			_, counts, err1 := a.Counts(t.Context(), []message.Room{"r"})
			_, users, err2 := a.Users(t.Context(), []string{"u"})
			if err1 != nil || err2 != nil || counts.Stale != stale || users.Stale != stale {
				t.Errorf("Counts and Users are stale: %v, %v, want %v", counts.Stale, users.Stale, stale)
			}
		}
	})
}

// byHand is a Store whose Sink a test calls itself. It notes what is followed.
type byHand struct {
	*presence.Memory
	sink   presence.Sink
	counts presence.Totals // of every room

	mu       sync.Mutex
	followed []string
}

func (s *byHand) Run(ctx context.Context, sink presence.Sink, ready func()) error {
	s.sink = sink
	return s.Memory.Run(ctx, sink, ready)
}

func (s *byHand) Follow(room message.Room)   { s.note("+", room) }
func (s *byHand) Unfollow(room message.Room) { s.note("-", room) }

func (s *byHand) Count(_ context.Context, rooms []message.Room) ([]presence.Totals, error) {
	return slices.Repeat([]presence.Totals{s.counts}, len(rooms)), nil
}

func (s *byHand) note(sign string, room message.Room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed = append(s.followed, sign+string(room))
}

func (s *byHand) wishes() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.followed, " ")
}

func other(user string, status presence.Status) presence.Field {
	return presence.Field{Node: "n", User: user, State: presence.State{Status: status, Sessions: 1, Since: 1, Newest: 1}}
}

func TestNothingIsToldOrAnsweredBeforeTheFirstRoster(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{})}
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, store)
		h.Open("v", nil).Joined("r")
		time.Sleep(time.Second)
		h.says()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.Room(ctx, "r"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Room before the Roster = %v, want the context's end", err)
		}
		w := h.Watch(presence.Target{Rooms: []message.Room{"r"}}, "")
		defer w.Close()
		brings(t, w)
		store.sink.Changed("r", []presence.Field{other("x", presence.Online)}) // of an earlier Follow
		var asked sync.WaitGroup
		asked.Go(func() {
			if got := h.lists("r"); got != "u online, v online" {
				t.Errorf("with the Roster the room has %q", got)
			}
		})
		time.Sleep(time.Second)
		store.sink.Roster("r", []presence.Field{other("u", presence.Online)})
		asked.Wait()
		brings(t, w, "r first u is online last")
		time.Sleep(tick)
		h.says("r: v online")
		brings(t, w, "r v joined online")
	})
}

func TestWhatWasMissedIsToldWithTheNextRoster(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{})}
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, store)
		h.Open("v", nil).Joined("r")
		synctest.Wait()
		store.sink.Roster("r", []presence.Field{other("u", presence.Online), other("w", presence.Online)})
		time.Sleep(tick)
		h.says("r: v online")
		store.sink.Roster("r", []presence.Field{other("w", presence.Away), other("x", presence.Online)})
		time.Sleep(tick)
		if got, want := h.changes(), []string{"u offline", "w away", "x online"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		store.sink.Roster("other", []presence.Field{other("u", presence.Online)})
		store.sink.Changed("other", []presence.Field{other("u", presence.Online)})
		if _, rooms, _, _ := h.Held(); rooms != 1 {
			t.Errorf("%d rooms are held, want 1", rooms)
		}
	})
}

func TestARoomIsFollowedWhileSomebodyIsThereOrWatches(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{})}
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, store)
		s := h.Open("v", nil)
		s.Joined("r")
		if got := store.wishes(); got != "+r" {
			t.Errorf("wishes %q", got)
		}
		store.sink.Roster("r", []presence.Field{other("u", presence.Online)})
		time.Sleep(time.Second)
		s.Left("r", false)
		time.Sleep(tick)
		if got := store.wishes(); got != "+r -r" {
			t.Errorf("wishes %q", got)
		}
		if _, rooms, members, _ := h.Held(); rooms+members > 0 {
			t.Errorf("%d rooms and %d members are held", rooms, members)
		}
		w := h.Watch(presence.Target{Rooms: []message.Room{"r"}, Users: nil}, "")
		synctest.Wait()
		store.sink.Roster("r", nil)
		h.forget()
		store.sink.Changed("r", []presence.Field{other("u", presence.Online)})
		time.Sleep(time.Second)
		h.says() // nobody is here to be told
		s.Joined("r")
		time.Sleep(time.Second)
		s.Left("r", false)
		time.Sleep(time.Second)
		w.Close()
		time.Sleep(29 * time.Second)
		if got := store.wishes(); got != "+r -r +r" {
			t.Errorf("wishes %q", got)
		}
		time.Sleep(time.Second)
		if got := store.wishes(); got != "+r -r +r -r" {
			t.Errorf("wishes %q", got)
		}
	})
}

func TestARoomThatComesAndGoesIsAnotherRoom(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{})}
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{CountsAbove: 2}, store)
		others := []presence.Field{other("x", presence.Online), other("y", presence.Online), other("z", presence.Online)}
		s := h.Open("v", nil)
		s.Joined("r")
		synctest.Wait()
		store.sink.Roster("r", others)
		time.Sleep(tick)
		h.says("r: counts 4/0/4")
		store.sink.Changed("r", []presence.Field{other("x", presence.Away)}) // to be told in five seconds
		time.Sleep(time.Second)
		s.Left("r", false)
		time.Sleep(time.Second)
		s.Joined("r")
		synctest.Wait()
		store.sink.Roster("r", others)
		time.Sleep(time.Minute)
		if got := store.wishes(); got != "+r -r +r" {
			t.Errorf("wishes %q", got)
		}
		h.says("r: counts 4/0/4")
	})
}

func TestWhoWaitsForTheRosterOfAForgottenRoomIsAnswered(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{}), counts: presence.Totals{Online: 5, Sessions: 5}}
	inBubble(t, func(t *testing.T) {
		h := newHarness(t, presence.Config{}, store)
		h.Open("v", nil).Joined("q")
		h.Watch(presence.Target{Rooms: []message.Room{"r"}}, "").Close()
		totals, fresh, err := h.Counts(t.Context(), []message.Room{"q", "r"})
		if want := []presence.Totals{{Online: 6, Sessions: 6}, {Online: 5, Sessions: 5}}; err != nil || !fresh.Approximate || !slices.Equal(totals, want) {
			t.Errorf("before the Roster Counts = %v, %v, %v, want %v", totals, fresh, err, want)
		}
		if got := h.lists("r"); got != "" { // returns when the room is forgotten
			t.Errorf("the room has %q", got)
		}
		if got := store.wishes(); got != "+q +r -r" {
			t.Errorf("wishes %q", got)
		}
	})
}

func TestRoomEndsWithRun(t *testing.T) {
	store := &byHand{Memory: presence.NewMemory(presence.MemoryConfig{})}
	synctest.Test(t, func(t *testing.T) {
		p := presence.New(presence.Config{}, store, func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = p.Run(ctx) })
		p.Open("v", nil).Joined("r")
		run.Go(func() {
			if _, err := p.Room(t.Context(), "r"); !errors.Is(err, presence.ErrClosed) {
				t.Errorf("Room = %v, want ErrClosed", err)
			}
		})
		synctest.Wait()
		cancel()
		run.Wait()
	})
}
