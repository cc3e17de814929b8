package hub

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// here notes what it is told.
type here struct {
	mu   sync.Mutex
	told []string
}

func (h *here) Joined(room message.Room) { h.add("joined " + string(room)) }

func (h *here) Left(room message.Room, closed bool) {
	what := "left "
	if closed {
		what = "closed "
	}
	h.add(what + string(room))
}

func (h *here) add(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, what)
}

func (h *here) all() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.told)
	slices.Sort(list)
	h.told = nil
	return strings.Join(list, ", ")
}

func TestPresenceIsToldOfEachMembershipOnce(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		h := &here{}
		p := r.begin(0, nil, h, "x", "y")
		if got := h.all(); got != "joined @global, joined x, joined y" {
			t.Errorf("at its beginning: %s", got)
		}
		if err := p.w.s.Join(r.ctx, []Join{{Room: "x"}, {Room: "z"}}); err != nil {
			t.Fatal(err)
		}
		p.w.s.Leave("y", frame.Unsubscribed{Room: "y"}.Append(nil, 0))
		p.w.s.Leave("nowhere", frame.Unsubscribed{Room: "nowhere"}.Append(nil, 0))
		synctest.Wait()
		if got := h.all(); got != "joined z, left y" {
			t.Errorf("later: %s", got)
		}
		p.w.s.Gone()
		synctest.Wait()
		if got := h.all(); got != "closed @global, closed x, closed z" {
			t.Errorf("at its end: %s", got)
		}
		r.set(func() { r.hold = true })
		waits := r.begin(0, nil, h, "late")
		waits.w.s.Gone()
		synctest.Wait()
		if got := h.all(); got != "closed @global, joined @global" {
			t.Errorf("of a room that was never live: %s", got)
		}
	})
}

func TestPresenceEntriesReachWhoMaySeeThem(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		sees, not, changes := r.open(0, nil), r.open(0, nil), r.open(0, nil)
		join := func(p *peer, sees bool) {
			if err := p.w.s.Join(r.ctx, []Join{{Room: "x", Presence: sees}}); err != nil {
				t.Fatal(err)
			}
		}
		news := func(m *message.Message) { m.Type, m.Ephemeral = message.TypePresence, true }
		join(sees, true)
		join(not, false)
		join(changes, true)
		r.publish("x", "1", news)
		r.publish("x", "2")
		changes.w.s.See("x", false)
		synctest.Wait()
		r.publish("x", "3", news)
		changes.w.s.See("x", true)
		changes.w.s.See("x", true)
		synctest.Wait()
		r.publish("x", "4", news)
		not.w.s.Leave("x", frame.Unsubscribed{Room: "x"}.Append(nil, 0))
		synctest.Wait()
		r.publish("x", "5", news)
		for name, c := range map[string]struct {
			p    *peer
			want []string
		}{"sees": {sees, []string{"1", "2", "3", "4", "5"}}, "does not": {not, []string{"2"}}, "changes": {changes, []string{"1", "2", "4", "5"}}} {
			var got []string
			for _, g := range c.p.drain() {
				if g.Room == "x" && g.Event == "" {
					got = append(got, string(g.Data))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("who %s got %v, want %v", name, got, c.want)
			}
		}
		l := &r.h.lookup("x").log
		if l.mixed() || l.blind != 0 {
			t.Errorf("%d members are blind when all see", l.blind)
		}
	})
}

func TestSubscribedTellsWhoIsThere(t *testing.T) {
	many := false
	count := func(room message.Room) (users, sessions int, crowd bool) { return len(room), 9, many }
	inBubble(t, Config{Count: count}, func(r *rig) {
		p := r.open(0, nil)
		ask := func(f frame.Subscribed) string {
			f.Room = "x"
			if err := p.w.s.Join(r.ctx, []Join{{Room: "x", Frame: &f}}); err != nil {
				t.Fatal(err)
			}
			gs := p.drain()
			return string(gs[len(gs)-1].Data)
		}
		if got := ask(frame.Subscribed{Counts: true, Presence: "events"}); !strings.Contains(got, `"users":1,"sessions":9,"presence":"events"`) {
			t.Error(got)
		}
		if got := ask(frame.Subscribed{Presence: "off"}); strings.Contains(got, "users") || !strings.Contains(got, `"presence":"off"`) {
			t.Errorf("who must not see is told %s", got)
		}
		many = true
		if got := ask(frame.Subscribed{Counts: true, Presence: "events"}); !strings.Contains(got, `"presence":"counts"`) {
			t.Error(got)
		}
	})
}

// Who comes and goes is told by others than the messages, and at the same time: a frame's id must not lie before one that
// stands in front of it, or who resumes from it gets that again.
func TestAnAnnouncementsIDIsThePlaceWhereItStands(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.begin(0, nil, nil, "x")
		if err := p.w.s.Join(r.ctx, []Join{{Room: "y", Presence: true}}); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			for range 2000 {
				r.publish("y", "1")
			}
		})
		both.Go(func() {
			for range 2000 {
				r.h.Announce(&message.Message{Room: "y", Type: message.TypePresence, Data: []byte("2"), Ephemeral: true})
			}
		})
		both.Wait()
		last, n := message.Position(0), 0
		for _, g := range p.drain() {
			if g.Room != "y" {
				continue
			}
			if g.ID.Position < last || g.ID.Low.Tag() != message.Room("y").Tag() {
				t.Fatalf("%s of type %s stands behind position %d", g.ID, g.Type, last)
			}
			last = g.ID.Position
			n++
		}
		if n != 4000 {
			t.Errorf("%d frames", n)
		}
	})
}
