package hub

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// A history that could not be read is a gap for who waited then. Who comes later has it read again.
func TestHistoryThatFailedOnceIsReadAgain(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		first := r.publish("x", "0")
		r.publish("x", "1")
		r.set(func() { r.broken = errors.New("away") })
		r.open(0, map[message.Room]string{"x": first.String()}, "x").drain()
		r.set(func() { r.broken = nil })
		p := r.open(0, map[message.Room]string{"x": first.String()}, "x")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("got %v, want what history has", got)
		}
		if s := string(subscribed(p.all)); !strings.Contains(s, `"recovered":true`) {
			t.Errorf("subscribed %s", s)
		}
	})
}

// A room that is subscribed to from now on, and becomes live late, is no reason to keep back the others.
func TestALateRoomWithoutAPositionHoldsNobodyUp(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		r.set(func() { r.hold = true })
		go func() { _ = p.w.s.Join(r.ctx, []Join{{Room: "late", Frame: &frame.Subscribed{Room: "late"}}}) }()
		synctest.Wait()
		r.publish("x", "0")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"0"}) {
			t.Errorf("got %v while another room is awaited", got)
		}
		r.live("late")
		synctest.Wait()
		r.publish("late", "1")
		if got := chats(p.drain(), "late"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("the late room brought %v", got)
		}
	})
}

// A position from the future was not made here: the session is told, and gets what comes.
func TestAPositionFarAheadIsUnknown(t *testing.T) {
	for _, late := range []bool{false, true} {
		inBubble(t, Config{}, func(r *rig) {
			r.publish("x", "0")
			r.set(func() { r.hold = late })
			future := message.ID{Position: r.Now().After(time.Hour), Low: r.minter.Low(message.Room("x").Tag(), false)}
			p := r.open(0, map[message.Room]string{"x": future.String()}, "x")
			r.live("x")
			synctest.Wait()
			r.publish("x", "1")
			if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("late %v: got %v", late, got)
			}
			if got := events(p.all); !slices.Equal(got, []string{"welcome", "gap", "subscribed"}) {
				t.Errorf("late %v: events %v", late, got)
			}
		})
	}
}

// A degraded time falls off the log as a whole, however many chunks of it there are.
func TestALongDegradedTimeFallsOffTheLog(t *testing.T) {
	inBubble(t, Config{RoomBytes: 256 << 10}, func(r *rig) {
		p := r.open(0, nil, "x")
		last := r.publish("x", "0")
		r.h.Degraded("x")
		const n = 4000
		for i := range n {
			synctest.Wait() // who is behind keeps the log
			m := &message.Message{ID: message.ID{Position: last.Position, Low: r.minter.Low(message.Room("x").Tag(), true)}, Type: "chat", Room: "x", Data: []byte(strconv.Itoa(i + 1))}
			r.h.Append(message.Entry{Message: m, Flags: message.Degraded})
		}
		r.h.Restored("x")
		for i := range 600 {
			synctest.Wait()
			r.publish("x", strconv.Itoa(n+1+i))
		}
		got := chats(p.drain(), "x")
		if len(got) != n+601 || got[n+600] != strconv.Itoa(n+600) {
			t.Errorf("%d messages came, the last of them %v", len(got), got[len(got)-1:])
		}
		if used := r.h.used.Load(); used > 512<<10 {
			t.Errorf("the log still takes %d bytes", used)
		}
	})
}

// A node may be behind another one at which a session was before: what the session saw there does not come again, and no
// frame names a place before the one it came with.
func TestWhoComesFromANodeThatIsFurtherGetsNothingTwice(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.publish("x", "0")
		stays := r.open(0, nil, "x")
		r.set(func() { r.room("x").subscribed = false })
		r.publish("x", "1")
		last := r.publish("x", "2")
		p := r.open(0, map[message.Room]string{"x": last.String()}, "x")
		r.set(func() {
			rm := r.room("x")
			rm.subscribed = true
			r.h.Append(rm.entries[1])
			gone := &message.Message{Type: "typing", Room: "x", Data: []byte(`"?"`), Ephemeral: true}
			gone.ID = message.ID{Position: rm.entries[1].Message.ID.Position, Low: r.minter.Low(gone.Room.Tag(), true)}
			r.h.Append(message.Entry{Message: gone, Flags: message.Ephemeral})
			r.h.Degraded("x")
			r.h.Append(rm.entries[2])
			r.h.Restored("x")
		})
		r.publish("x", "3")
		r.publish("x", "4")
		synctest.Wait()
		r.publish("x", "5")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"3", "4", "5"}) {
			t.Errorf("got %v, want what is behind its place", got)
		}
		for _, g := range p.all {
			if g.Room == "x" && g.ID.Position < last.Position {
				t.Errorf("a frame of type %q lies at %d, before %d that it came with", g.Type, g.ID.Position, last.Position)
			}
		}
		if got := events(p.all); !slices.Equal(got, []string{"welcome", "subscribed", "degraded", "restored"}) {
			t.Errorf("events %v", got)
		}
		if got := chats(stays.drain(), "x"); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
			t.Errorf("who stayed got %v", got)
		}
	})
}

// The socket may die while a frame about a join is written, at any of them.
func TestASocketThatDiesDuringAJoinEndsItsSessionOnly(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		first := r.publish("x", "0")
		r.set(func() { r.hold = true })
		ids := []string{"", first.String(), message.ID{Position: 1, Low: 1 << 63}.String(), message.ID{Position: r.Now().After(time.Hour), Low: 1 << 63}.String()}
		for _, id := range ids {
			p := r.open(0, map[message.Room]string{"x": id}, "x")
			p.w.mu.Lock()
			p.w.broken = true
			p.w.mu.Unlock()
		}
		r.live("x")
		synctest.Wait()
		q := r.open(0, nil, "x")
		r.publish("x", "1")
		if got := chats(q.drain(), "x"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("another session got %v", got)
		}
		if n := r.h.lookup("x").count.Load(); n != 1 {
			t.Errorf("%d sessions in the room, want the one that lives", n)
		}
	})
}

// A member that was connected may be told a gap, and just then its socket may die: the session's other rooms are looked at
// no more.
func TestASocketThatDiesOnAGapEndsItsSessionOnly(t *testing.T) {
	inBubble(t, Config{RoomBytes: 2 << 10, WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
		p := r.open(400, nil, "x", "y", "z")
		p.w.mu.Lock()
		p.w.breakOn = `"event":"gap"`
		p.w.mu.Unlock()
		for i := range 500 { // they fall off the log while the session is blocked, and history has lost them
			r.publish("x", fmt.Sprint(i))
			r.publish("y", fmt.Sprint(i))
			synctest.Wait()
		}
		r.set(func() {
			for _, name := range []message.Room{"x", "y"} {
				r.rooms[name].entries = r.rooms[name].entries[490:]
			}
		})
		p.take(1 << 20)
		synctest.Wait()
		p.take(1 << 20)
		synctest.Wait()
		if p.w.mu.Lock(); !p.w.broken {
			t.Error("no gap was written: the test does not test it")
		}
		p.w.mu.Unlock()
		q := r.open(0, nil, "x")
		r.publish("x", `"after"`)
		if got := chats(q.drain(), "x"); !slices.Equal(got, []string{`"after"`}) {
			t.Errorf("another session got %v", got)
		}
	})
}

// Who joins while the node is leaving the room waits until it is asked for again, and misses nothing of what he resumes.
func TestAJoinWhileTheRoomIsLeftMissesNothing(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		first := r.publish("x", "0")
		p.w.s.Gone()
		joined := make(chan *peer, 1)
		r.set(func() {
			r.leaving = func() {
				w := &socket{}
				s, err := r.h.Open(Open{ID: "s", User: "s", Writer: w, Anchor: "x", Fallback: message.Global, Joins: []Join{
					{Room: "x", From: first, Resume: true, Frame: &frame.Subscribed{Room: "x"}}, {Room: message.Global},
				}})
				if err != nil {
					t.Error(err)
					return
				}
				w.s = s
				joined <- &peer{t: t, w: w}
				time.Sleep(time.Second) // the shard has had its turn
				for i := 1; i <= 3; i++ {
					r.publish("x", fmt.Sprint(i))
				}
			}
		})
		time.Sleep(60 * time.Second)
		if len(joined) == 0 {
			t.Fatal("the room was not left: the test does not test it")
		}
		q := <-joined
		r.publish("x", "4")
		if diff := cmp.Diff([]string{"1", "2", "3", "4"}, chats(q.drain(), "x")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARoomIsAwayWhileADegradedTimeLasts(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.open(0, nil, "x", "y")
		away := func(want ...bool) {
			t.Helper()
			if got := []bool{r.h.Away("x"), r.h.Away("y"), r.h.Away("unknown")}; !slices.Equal(got, want) {
				t.Errorf("x, y and a room that is not here: %v, want %v", got, want)
			}
		}
		away(false, false, false)
		r.h.Degraded("x")
		away(true, false, false)
		r.h.Degraded("")
		away(true, true, false)
		r.h.Restored("y")
		away(true, false, false)
		r.h.Restored("")
		away(false, false, false)
	})
}

// A node may lag behind the one that a session comes from: what it brings up to the session's place the session has.
func TestWhatWasSeenOnANodeAheadDoesNotComeAgain(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.publish("x", "0")
		r.open(0, nil, "x")
		r.set(func() { r.room("x").subscribed = false }) // what follows is late here
		r.publish("x", "1")
		seen := r.publish("x", "2")
		r.publish("x", "3")
		p := r.open(0, map[message.Room]string{"x": seen.String()}, "x")
		other := r.open(0, nil, "x")
		late := r.room("x").entries[1:]
		r.h.Append(late[0])
		synctest.Wait()
		for _, e := range late[1:] {
			r.h.Append(e)
		}
		r.set(func() { r.room("x").subscribed = true })
		r.publish("x", "4")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"3", "4"}) {
			t.Errorf("got %v, want what lies behind its place", got)
		}
		if got := chats(other.drain(), "x"); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("another got %v, want all that comes", got)
		}
	})
}

// shown has a message reach the members here while the broker is away.
func (r *rig) shown(name message.Room, data string) *message.Message {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &message.Message{
		ID:   message.ID{Position: r.room(name).tip, Low: r.minter.Low(name.Tag(), true)},
		Type: "chat", Room: name, From: "u", Data: []byte(data), Timestamp: time.Now().UnixMilli(),
	}
	r.h.Append(message.Entry{Message: m, Flags: message.Degraded})
	return m
}

// placed has history take a message that was shown.
func (r *rig) placed(m *message.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored := *m
	room := r.room(m.Room)
	r.now = max(r.nowLocked(), room.tip) + 1
	stored.ID.Position = r.now
	e := message.Entry{Message: &stored, Prev: room.tip}
	room.tip, room.entries = r.now, append(room.entries, e)
	e.Flags = message.Shown
	r.h.Append(e)
}

// What was shown before it was stored is in history behind the place its frame bears: who resumes from there when the log
// has dropped it gets it from history.
func TestWhatWasShownBeforeItWasStoredIsFoundInHistory(t *testing.T) {
	for i := range 400 { // with some of these the log drops just that
		size, n := 1+i/20*50, 1+i%20
		inBubble(t, Config{RoomBytes: 2 << 10}, func(r *rig) {
			first := r.publish("x", "0")
			r.open(0, nil, "x")
			r.h.Degraded("")
			m := r.shown("x", strings.Repeat("1", size))
			r.placed(m)
			r.h.Restored("")
			for i := range n {
				r.publish("x", fmt.Sprint(i+2))
				synctest.Wait()
			}
			p := r.open(0, map[message.Room]string{"x": first.String()}, "x")
			if got := chats(p.drain(), "x"); len(got) != n+1 || len(got[0]) != size {
				t.Errorf("of %d bytes and %d more got %d messages, want all", size, n, len(got))
			}
		})
	}
}

// While the broker is away what falls off the log is nowhere else: who is owed it is told.
func TestADegradedTimeOfWhichSomethingHasFallenOffIsTold(t *testing.T) {
	inBubble(t, Config{RoomBytes: 2 << 10}, func(r *rig) {
		first := r.publish("x", "0")
		r.open(0, nil, "x")
		r.h.Degraded("")
		for i := range 60 {
			r.shown("x", fmt.Sprint(i))
			synctest.Wait()
		}
		p := r.open(0, map[message.Room]string{"x": first.String()}, "x")
		got := chats(p.drain(), "x")
		if s := string(subscribed(p.all)); !strings.Contains(s, `"reason":"limit"`) || len(got) == 0 || len(got) == 60 {
			t.Errorf("got %d messages and %s, want a gap and the rest", len(got), s)
		}
	})
}

// What came late has no place from which it could be found again: who is owed it when it has fallen off is told.
func TestWhatCameLateAndFellOffIsTold(t *testing.T) {
	inBubble(t, Config{RoomBytes: 2 << 10, WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
		r.publish("x", "0")
		slow, quick := r.open(1<<10, nil, "x"), r.open(0, nil, "x")
		for i := range 10 { // more than the slow one takes
			r.publish("x", fmt.Sprintf(`"%0200d"`, i))
			synctest.Wait()
		}
		late := &message.Message{
			ID:   message.ID{Position: 1, Low: r.minter.Low(message.Room("x").Tag(), false)},
			Type: "chat", Room: "x", From: "u", Data: []byte(`"late"`), Timestamp: time.Now().UnixMilli(),
		}
		r.h.Append(message.Entry{Message: late, Flags: message.Belated})
		for i := range 40 {
			synctest.Wait()
			r.publish("x", fmt.Sprintf(`"%0200d"`, i+10))
		}
		synctest.Wait()
		if got := chats(quick.drain(), "x"); len(got) != 51 || got[10] != `"late"` {
			t.Errorf("who reads at once got %d messages, %q as the eleventh, want 51 and what came late", len(got), got[10])
		}
		got := chats(slow.drain(), "x")
		if slices.Contains(got, `"late"`) || len(got) != 50 || !slices.Contains(events(slow.all), "gap") {
			t.Errorf("who fell off got %d messages and %v, want 50 and a gap for what came late", len(got), events(slow.all))
		}
	})
}

// What came late may be the only entry that has not fallen off. It lies no further than the place of one who has had all that
// is stored, and yet he has not had it.
func TestWhatCameLateIsNotTakenForWhatWasHad(t *testing.T) {
	inBubble(t, Config{RoomBytes: 2 << 10, WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
		r.publish("x", "0")
		p := r.open(1<<10, nil, "x")
		r.publish("x", "1")
		p.drain()
		p.w.mu.Lock()
		p.w.limit = 1
		p.w.mu.Unlock()
		for range 2 { // he takes the first byte of one
			r.publish("x", `"hint"`, func(m *message.Message) { m.Ephemeral = true })
			synctest.Wait()
		}
		late := strings.Repeat("l", 20<<10) // more than the room holds for who is behind
		r.h.Append(message.Entry{Message: &message.Message{
			ID: message.ID{Position: 1, Low: r.minter.Low(message.Room("x").Tag(), false)}, Type: "chat", Room: "x", From: "u",
			Data: []byte(`"` + late + `"`), Timestamp: time.Now().UnixMilli(),
		}, Flags: message.Belated})
		synctest.Wait()
		if got := chats(p.drain(), "x"); len(got) != 3 || got[2] != `"`+late+`"` {
			t.Errorf("got %d messages, want one, a hint, and what came late", len(got))
		}
	})
}
