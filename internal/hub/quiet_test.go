package hub

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// quiet tells whether the room takes no more than its record.
func (r *rig) quiet(name message.Room) bool {
	r.t.Helper()
	room := r.h.lookup(name)
	if room == nil {
		r.t.Fatalf("room %q is not here", name)
	}
	room.mu.Lock()
	defer room.mu.Unlock()
	return room.body == nil
}

func TestAnIdleMembersShareOfTheHubIsSmall(t *testing.T) {
	for _, c := range []struct {
		what      string
		got, most uintptr
	}{
		{"a session", unsafe.Sizeof(Session{}), 192},
		{"a member", unsafe.Sizeof(member{}), 64},
		{"a quiet room", unsafe.Sizeof(room{}), 64},
	} {
		if c.got > c.most {
			t.Errorf("%s takes %d bytes, want at most %d", c.what, c.got, c.most)
		}
	}
}

func TestARoomIsQuietWhileOneMemberIsThereAndNothingComes(t *testing.T) {
	for name, wake := range map[string]func(r *rig){
		"a message":    func(r *rig) { r.publish("x", "1") },
		"an ephemeral": func(r *rig) { r.publish("x", "1", func(m *message.Message) { m.Ephemeral = true }) },
		"an announcement": func(r *rig) {
			r.h.Announce(&message.Message{Room: "x", Type: message.TypePresence, Data: []byte("1"), Ephemeral: true})
		},
		"another member": func(r *rig) { r.open(0, nil, "x") },
		"a gap":          func(r *rig) { r.h.Gap("x", 1, 2, message.GapLost) },
		"a deletion":     func(r *rig) { r.h.Deleted("x", r.Now()) },
		"an outage":      func(r *rig) { r.h.Degraded("") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(r *rig) {
				p := r.open(0, nil, "x")
				if err := r.h.Ready(r.ctx, "x"); err != nil || r.h.Away("x") || r.h.Stats().Rooms != 1 || !p.w.s.Joined("x") {
					t.Errorf("Ready %v, Away %v, %d rooms, joined %v", err, r.h.Away("x"), r.h.Stats().Rooms, p.w.s.Joined("x"))
				}
				p.w.s.Send("x", frame.Ack{Ref: "a"}.Append(nil, 0))
				p.drain()
				if !r.quiet("x") {
					t.Fatal("it is not quiet at first")
				}
				wake(r)
				if r.quiet("x") {
					t.Fatal("it is quiet still")
				}
				r.publish("x", "9")
				if got := chats(p.drain(), "x"); len(got) == 0 || got[len(got)-1] != "9" {
					t.Errorf("its member got %v", got)
				}
				if n := r.h.Stats().Rooms; n != 1 {
					t.Errorf("%d rooms", n)
				}
			})
		})
	}
}

// What a quiet room has is where its log would begin: a resume from there or behind it has missed nothing, one from before
// it is owed what history has.
func TestAResumeIntoAQuietRoomIsOwedWhatHistoryHas(t *testing.T) {
	for _, c := range []struct {
		name     string
		stored   bool // something was, long before
		expired  bool // and is no longer
		from     time.Duration
		quiet    bool
		want     []string
		answered string
	}{
		{"behind its beginning", false, false, -time.Millisecond, true, nil, `"recovered":true,"replayed":0`},
		{"before it, of a room without history", false, false, -time.Hour, false, nil, `"recovered":true,"replayed":0`},
		{"behind the last that is stored", true, false, -time.Minute, true, nil, `"recovered":true,"replayed":0`},
		{"before what is stored", true, false, -3 * time.Hour, false, []string{"7"}, `"recovered":true,"replayed":1`},
		{"before what was stored", true, true, -3 * time.Hour, false, nil, `"reason":"expired"`},
		{"from a position that never was", true, false, time.Hour, false, nil, `"recovered":false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, Config{}, func(r *rig) {
				time.Sleep(4 * time.Hour)
				if c.stored {
					r.publish("x", "7")
				}
				if c.expired {
					r.set(func() { r.rooms["x"].entries = nil })
				}
				time.Sleep(2 * time.Hour)
				r.open(0, nil, "x").w.s.Gone() // it lingers, without a member
				time.Sleep(time.Second)
				from := message.At(time.Now().Add(c.from).UnixMilli(), 0)
				p := r.open(0, map[message.Room]string{"x": message.ID{Position: from, Low: 1 << 63}.String()}, "x")
				if got := chats(p.drain(), "x"); !slices.Equal(got, c.want) {
					t.Errorf("replayed %v, want %v", got, c.want)
				}
				if got := string(subscribed(p.all)); !strings.Contains(got, c.answered) {
					t.Errorf("answered %s, want %s", got, c.answered)
				}
				if r.quiet("x") != c.quiet {
					t.Errorf("quiet %v, want %v", !c.quiet, c.quiet)
				}
				r.publish("x", "8")
				if got := chats(p.drain(), "x"); !slices.Equal(got, append(c.want, "8")) {
					t.Errorf("then %v", got)
				}
			})
		})
	}
}

// A room may become live after its only member has asked for it, another may ask meanwhile, the first may have gone, and
// something may come before: who joined gets what came behind.
func TestWhoWaitsForAQuietRoomJoinsWhenItIsLive(t *testing.T) {
	for name, meanwhile := range map[string]func(r *rig, p *peer) (others []*peer){
		"nothing":        func(*rig, *peer) []*peer { return nil },
		"another waits":  func(r *rig, _ *peer) []*peer { return []*peer{r.open(0, nil, "x")} },
		"two more wait":  func(r *rig, _ *peer) []*peer { return []*peer{r.open(0, nil, "x"), r.open(0, nil, "x")} },
		"an outage":      func(r *rig, _ *peer) []*peer { r.h.Degraded("x"); return nil },
		"it sees nobody": func(_ *rig, p *peer) []*peer { p.w.s.See("x", false); return nil },
		"the first has gone": func(r *rig, p *peer) []*peer {
			p.w.s.Gone()
			synctest.Wait()
			return []*peer{r.open(0, nil, "x")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(r *rig) {
				r.set(func() { r.hold = true })
				r.live(message.Global)
				p := r.open(0, nil, "x")
				ps := append([]*peer{p}, meanwhile(r, p)...)
				if p.w.s.Joined("x") {
					t.Fatal("it is a member before the room is live")
				}
				r.live("x")
				synctest.Wait()
				r.publish("x", "1")
				for i, q := range ps {
					if q.w.releases() > 0 {
						continue
					}
					if got := chats(q.drain(), "x"); !slices.Equal(got, []string{"1"}) || subscribed(q.all) == nil {
						t.Errorf("number %d got %v, events %v", i, got, events(q.all))
					}
				}
			})
		})
	}
}

// Members that do not see presence are counted also when they came into a quiet room, or changed there.
func TestAQuietRoomKnowsWhoSeesPresence(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		blind := r.open(0, nil, "x")
		changed := r.open(0, nil, "y")
		changed.w.s.See("y", true)
		synctest.Wait()
		for _, room := range []message.Room{"x", "y"} {
			r.h.Announce(&message.Message{Room: room, Type: message.TypePresence, Data: []byte(`"news"`), Ephemeral: true})
		}
		for i, p := range []*peer{blind, changed} {
			n := 0
			for _, g := range p.drain() {
				if g.Type == message.TypePresence {
					n++
				}
			}
			if n != i {
				t.Errorf("member %d was told %d times", i, n)
			}
		}
		changed.w.s.See("y", false)
		synctest.Wait()
		if l := &r.h.lookup("y").log; l.blind != 1 {
			t.Errorf("%d members are blind, want 1", l.blind)
		}
	})
}

// A quiet room lingers, is left and comes back like any other; its name is free then.
func TestAQuietRoomEndsAfterItsLinger(t *testing.T) {
	inBubble(t, Config{Linger: time.Second}, func(r *rig) {
		for range 3 {
			p := r.open(0, nil, "x")
			p.w.s.Gone()
			time.Sleep(500 * time.Millisecond)
			q := r.open(0, nil, "x") // it is back before the linger is over
			time.Sleep(2 * time.Second)
			if !r.quiet("x") {
				t.Error("coming and going woke it")
			}
			r.publish("x", "1")
			if got := chats(q.drain(), "x"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("got %v", got)
			}
			q.w.s.Gone()
			time.Sleep(800 * time.Millisecond)
			r.open(0, nil, "x").w.s.Gone() // the linger begins anew
			time.Sleep(800 * time.Millisecond)
			if !r.h.Has("x") {
				t.Error("it ended when its first linger did")
			}
			time.Sleep(3 * time.Second)
			if r.h.Has("x") || r.h.used.Load() != 0 {
				t.Errorf("it is there still, or %d bytes of it", r.h.used.Load())
			}
		}
	})
}

// Joining, leaving, seeing and publishing at once: what is published behind a join that stood arrives, once and in order.
func TestWakingARoomLosesNothingWhateverGoesOn(t *testing.T) {
	inBubble(t, Config{Linger: 10 * time.Millisecond}, func(r *rig) {
		for i := range 300 {
			name := message.Room(fmt.Sprint("r", i))
			p := r.open(0, nil, name)
			var second, third *peer
			var all sync.WaitGroup
			all.Go(func() { second = r.join(name) })
			all.Go(func() { third = r.join(name) })
			all.Go(func() { r.publish(name, "1") })
			all.Go(func() { p.w.s.See(name, i%2 == 0) })
			if i%3 == 0 {
				all.Go(func() { p.w.s.Leave(name, frame.Unsubscribed{Room: name}.Append(nil, 0)) })
			}
			all.Wait()
			synctest.Wait()
			r.publish(name, "2")
			want := []string{"1", "2"}
			if got := chats(p.drain(), name); i%3 != 0 && !slices.Equal(got, want) || i%3 == 0 && len(got) > 1 {
				t.Errorf("room %d: the first got %v", i, got)
			}
			for _, q := range []*peer{second, third} {
				if got := chats(q.drain(), name); !slices.Equal(got, want) && !slices.Equal(got, want[1:]) {
					t.Errorf("room %d: another got %v", i, got)
				}
				q.w.s.Gone()
			}
			p.w.s.Gone()
		}
	})
}

// join is open, without waiting for what comes of it.
func (r *rig) join(room message.Room) *peer {
	w := &socket{}
	s, err := r.h.Open(Open{ID: "s", User: "s", Writer: w, Anchor: room, Fallback: message.Global, Joins: []Join{{Room: room}, {Room: message.Global}}})
	if err != nil {
		r.t.Error(err)
	}
	w.s = s
	return &peer{t: r.t, w: w}
}
