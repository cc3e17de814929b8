package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMembersGetWhatIsPublishedInOrder(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		a, b := r.open(0, nil, "x"), r.open(0, nil, "x")
		var want []string
		for i := range 700 {
			want = append(want, fmt.Sprint(i))
			r.publish("x", fmt.Sprint(i))
		}
		for _, p := range []*peer{a, b} {
			if diff := cmp.Diff(want, chats(p.drain(), "x")); diff != "" {
				t.Error(diff)
			}
			if got := events(p.all); !slices.Equal(got, []string{"welcome", "subscribed"}) {
				t.Errorf("events %v", got)
			}
		}
	})
}

func TestGlobalReachesEverySession(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		a, b := r.open(0, nil), r.open(0, nil, "x")
		r.publish(message.Global, `"all"`)
		for _, p := range []*peer{a, b} {
			if got := chats(p.drain(), message.Global); !slices.Equal(got, []string{`"all"`}) {
				t.Errorf("got %v", got)
			}
		}
	})
}

// A socket that takes a few bytes at a time gets every frame whole, own frames between them and never inside one.
func TestHalfWrittenFramesAreNeverTorn(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(600, nil, "x")
		var want []string
		for i := range 200 {
			d := fmt.Sprintf(`"%d%s"`, i, strings.Repeat("-", i*3))
			want = append(want, d)
			r.publish("x", d)
			p.w.s.Send("x", frame.Ack{Ref: fmt.Sprint(i)}.Append(nil, 0))
		}
		for len(chats(p.all, "x")) < len(want) {
			n := len(p.all) + len(p.part)
			p.take(37)
			synctest.Wait()
			if p.take(1); n == len(p.all)+len(p.part) {
				t.Fatalf("stuck after %d frames", len(p.all))
			}
			synctest.Wait()
		}
		if diff := cmp.Diff(want, chats(p.drain(), "x")); diff != "" {
			t.Error(diff)
		}
		acks := 0
		for _, g := range p.all {
			if g.Type == "ack" {
				acks++
			}
		}
		if acks != 200 {
			t.Errorf("%d acks, want 200", acks)
		}
	})
}

func TestResumeReplaysFromTheLog(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		a := r.open(0, nil, "x")
		var ids []message.ID
		for i := range 10 {
			ids = append(ids, r.publish("x", fmt.Sprint(i)))
		}
		a.drain()
		b := r.open(0, map[message.Room]string{"x": ids[5].String()}, "x")
		r.publish("x", "10")
		if got := chats(b.drain(), "x"); !slices.Equal(got, []string{"6", "7", "8", "9", "10"}) {
			t.Errorf("got %v", got)
		}
		if !strings.Contains(string(subscribed(b.all)), `"recovered":true,"replayed":4`) {
			t.Errorf("subscribed %s", subscribed(b.all))
		}
		if r.reads != 0 {
			t.Errorf("history read %d times for what the log holds", r.reads)
		}
	})
}

func subscribed(gs []got) []byte {
	for _, g := range gs {
		if g.Event == "subscribed" {
			return g.Data
		}
	}
	return nil
}

func TestResumeReplaysFromHistory(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.set(func() { r.page = 3 })
		var ids []message.ID
		for i := range 20 {
			ids = append(ids, r.publish("x", fmt.Sprint(i)))
		}
		p := r.open(0, map[message.Room]string{"x": ids[9].String()}, "x")
		r.publish("x", "20")
		var want []string
		for i := 10; i <= 20; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if diff := cmp.Diff(want, chats(p.drain(), "x")); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(string(subscribed(p.all)), `"recovered":true,"replayed":10`) {
			t.Errorf("subscribed %s", subscribed(p.all))
		}
	})
}

func TestGapIsToldWhereHistoryIsShort(t *testing.T) {
	for _, c := range []struct {
		lost   bool
		reason string
	}{{false, "expired"}, {true, "lost"}} {
		gapWhereHistoryIsShort(t, c.lost, c.reason)
	}
}

func gapWhereHistoryIsShort(t *testing.T, lost bool, reason string) {
	t.Helper()
	inBubble(t, Config{}, func(r *rig) {
		var ids []message.ID
		for i := range 20 {
			ids = append(ids, r.publish("x", fmt.Sprint(i)))
		}
		r.set(func() { r.rooms["x"].entries, r.lost = r.rooms["x"].entries[12:], lost })
		p := r.open(0, map[message.Room]string{"x": ids[4].String()}, "x")
		gs := p.drain()
		var seen []string
		for _, g := range gs {
			switch {
			case g.Event != "":
				seen = append(seen, g.Event)
			case g.Type == "chat":
				seen = append(seen, string(g.Data))
			}
		}
		want := []string{"welcome", "gap", "12", "13", "14", "15", "16", "17", "18", "19", "subscribed"}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Error(diff)
		}
		if s := string(subscribed(gs)); !strings.Contains(s, `"recovered":false`) || !strings.Contains(s, `"reason":"`+reason+`"`) || !strings.Contains(s, ids[12].String()) {
			t.Errorf("subscribed %s", s)
		}
	})
}

func TestResumeBringsTheNewestUpToTheLimit(t *testing.T) {
	for _, inLog := range []bool{true, false} {
		inBubble(t, Config{ResumeLimit: 50}, func(r *rig) {
			if inLog {
				r.open(0, nil, "x")
			}
			var ids []message.ID
			for i := range 500 {
				ids = append(ids, r.publish("x", fmt.Sprint(i)))
			}
			p := r.open(0, map[message.Room]string{"x": ids[10].String()}, "x")
			got := chats(p.drain(), "x")
			if len(got) < 50 || len(got) > 50+pageLimit || got[len(got)-1] != "499" || inLog && len(got) != 50 {
				t.Errorf("in log %v: %d messages, last %s", inLog, len(got), got[len(got)-1])
			}
			if s := string(subscribed(p.all)); !strings.Contains(s, `"reason":"limit"`) {
				t.Errorf("subscribed %s", s)
			}
		})
	}
}

func TestUnreadableHistoryIsAGapNotAHang(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		first := r.publish("x", "0")
		r.publish("x", "1")
		r.set(func() { r.broken = errors.New("away") })
		p := r.open(0, map[message.Room]string{"x": first.String()}, "x")
		r.publish("x", "2")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"2"}) {
			t.Errorf("got %v", got)
		}
		if s := string(subscribed(p.all)); !strings.Contains(s, `"reason":"limit"`) {
			t.Errorf("subscribed %s", s)
		}
	})
}

// A member whose place fell off the log is refilled from history, without gap, in order.
func TestSlowMemberIsRefilled(t *testing.T) {
	inBubble(t, Config{RoomBytes: 8 << 10, WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
		slow, quick := r.open(1000, nil, "x"), r.open(0, nil, "x")
		var want []string
		for i := range 2000 {
			want = append(want, fmt.Sprint(i))
			r.publish("x", fmt.Sprint(i))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		if diff := cmp.Diff(want, chats(quick.drain(), "x")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want, chats(slow.drain(), "x")); diff != "" {
			t.Error(diff)
		}
		if r.reads == 0 {
			t.Error("nothing was refilled: the test does not test it")
		}
		if got := events(slow.all); slices.Contains(got, "gap") {
			t.Errorf("events %v", got)
		}
	})
}

// If the front moves while a page is being read, the page is dropped and read anew.
func TestFrontMovesWhileHistoryIsRead(t *testing.T) {
	inBubble(t, Config{RoomBytes: 4 << 10}, func(r *rig) {
		var ids []message.ID
		for i := range 300 {
			ids = append(ids, r.publish("x", fmt.Sprint(i)))
		}
		r.open(0, nil, "x")
		n := 300
		r.set(func() { r.page = 40 })
		r.set(func() {
			r.between = func() {
				if n < 700 {
					for range 50 {
						r.publish("x", fmt.Sprint(n))
						n++
					}
				}
			}
		})
		p := r.open(0, map[message.Room]string{"x": ids[100].String()}, "x")
		var want []string
		p.drain()
		for i := 101; i < n; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if diff := cmp.Diff(want, chats(p.all, "x")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMaskedEntriesAreLeftOutAlsoFromHistory(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		not := func(m *message.Message) { m.ExcludeUsers = []string{"s"} }
		first := r.publish("x", "0")
		r.publish("x", "1", not)
		r.publish("x", "2")
		p := r.open(0, map[message.Room]string{"x": first.String()}, "x")
		r.publish("x", "3", not)
		r.publish("x", "4")
		if got := chats(p.drain(), "x"); !slices.Equal(got, []string{"2", "4"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestEphemeralEntriesAreForThoseConnected(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		eph := func(m *message.Message) { m.Ephemeral = true }
		a := r.open(0, nil, "x")
		first := r.publish("x", "0")
		r.publish("x", "1", eph)
		r.publish("x", "2")
		b := r.open(0, map[message.Room]string{"x": first.String()}, "x")
		r.publish("x", "3", eph)
		if got := chats(a.drain(), "x"); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
			t.Errorf("connected: %v", got)
		}
		if got := chats(b.drain(), "x"); !slices.Equal(got, []string{"2", "3"}) {
			t.Errorf("resumed: %v", got)
		}
		for _, g := range a.all {
			if string(g.Data) == "1" && (!g.ID.Low.Unstored() || g.ID.Position != first.Position) {
				t.Errorf("ephemeral id %v, want P and position of %v", g.ID, first)
			}
		}
	})
}

// Nothing of another room is written until all that resume stand; then everything else.
func TestNoOtherRoomBeforeResumesStand(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		first := r.publish("x", "0")
		r.publish("x", "1")
		r.set(func() { r.hold = true })
		p := r.open(0, map[message.Room]string{"x": first.String()}, "x", "y")
		r.live("y")
		synctest.Wait()
		r.publish(message.Global, `"g"`)
		r.publish("y", `"y"`)
		if got := p.drain(); len(chats(got, message.Global))+len(chats(got, "y")) > 0 {
			t.Errorf("written before x stands: %v", got)
		}
		r.live("x")
		synctest.Wait()
		var seen []string
		for _, g := range p.drain() {
			if g.Type == "chat" {
				seen = append(seen, string(g.Data))
			}
		}
		if !slices.Equal(seen, []string{"1", `"g"`, `"y"`}) {
			t.Errorf("got %v", seen)
		}
	})
}

// The ids of own frames are safe to resume from: they carry the place of the anchor's delivery.
func TestOwnFramesCarryTheAnchorsPlace(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		id := r.publish("x", "0")
		synctest.Wait()
		p.w.s.Send("", frame.Pong{}.Append(nil, 0))
		gs := p.drain()
		pong := gs[len(gs)-1]
		if pong.Type != "pong" || pong.ID.Position != id.Position || !pong.ID.Low.Unstored() || pong.ID.Low.Tag() != message.Room("x").Tag() {
			t.Errorf("pong %+v, want the position of %v", pong, id)
		}
	})
}

func TestStalledReaderIsClosedAsSlow(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p, q := r.open(2000, nil, "x"), r.open(0, nil, "x")
		for i := range 50 {
			r.publish("x", fmt.Sprintf(`"%d%s"`, i, strings.Repeat(".", 100)))
		}
		time.Sleep(9 * time.Second)
		if p.w.isShut() {
			t.Error("cut before the write timeout")
		}
		time.Sleep(2 * time.Second)
		gs := p.drain() // it reads at last
		if last := gs[len(gs)-1]; last.Code != 4000 {
			t.Errorf("last frame %+v, want close 4000", last)
		}
		if got := len(chats(q.drain(), "x")); got != 50 {
			t.Errorf("the other one got %d of 50", got)
		}
		time.Sleep(time.Second)
		if !p.w.isShut() {
			t.Error("not shut behind the close frame")
		}
	})
}

func TestDeadReaderIsShutWithoutItsCloseFrame(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(800, nil, "x")
		for range 50 {
			r.publish("x", `"`+strings.Repeat(".", 100)+`"`)
		}
		time.Sleep(16 * time.Second)
		if !p.w.isShut() {
			t.Error("not shut")
		}
		p.w.s.Gone()
		synctest.Wait()
		if p.w.releases() != 1 {
			t.Errorf("released %d times", p.w.releases())
		}
	})
}

func TestOwnFramesNotReadCloseTheSession(t *testing.T) {
	inBubble(t, Config{OwnFrameBytes: 4 << 10}, func(r *rig) {
		p := r.open(1000, nil, "x")
		for range 100 {
			p.w.s.Send("", frame.Pong{Data: []byte(`"` + strings.Repeat(".", 100) + `"`)}.Append(nil, 0))
		}
		synctest.Wait()
		gs := p.drain()
		if last := gs[len(gs)-1]; last.Code != 4000 {
			t.Errorf("last frame %+v, want close 4000", last)
		}
	})
}

// One stalled reader holds publishers up for two seconds at most, once.
func TestOneStalledReaderCostsPublishersAtMostTwoSecondsOnce(t *testing.T) {
	for _, n := range []int{1, 2, 4, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inBubble(t, Config{WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
				r.open(1000, nil, "x")
				for range n - 1 {
					p := r.open(0, nil, "x")
					p.w.limit = 0
				}
				big := `"` + strings.Repeat(".", 60000) + `"`
				begin := time.Now()
				for range 50 {
					for {
						err := r.h.Ready(r.ctx, "x")
						if err == nil {
							break
						}
						if !errors.Is(err, ErrOverloaded) {
							t.Fatal(err)
						}
					}
					r.publish("x", big)
					synctest.Wait()
				}
				if d := time.Since(begin); d > 2500*time.Millisecond || n == 1 && d < time.Second {
					t.Errorf("publishers waited %v in all", d)
				}
			})
		})
	}
}

func TestReadyEndsWithItsContext(t *testing.T) {
	inBubble(t, Config{WriteTimeout: time.Hour, BehindTimeout: time.Hour}, func(r *rig) {
		r.open(1000, nil, "x")
		big := `"` + strings.Repeat(".", 60000) + `"`
		for range 20 {
			r.publish("x", big)
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(r.ctx, 100*time.Millisecond)
		defer cancel()
		if err := r.h.Ready(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ready = %v, want the deadline", err)
		}
	})
}

func TestNothingFollowsALeave(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		r.publish("x", "0")
		synctest.Wait()
		p.w.s.Leave("x", frame.Unsubscribed{Room: "x", Reason: "requested"}.Append(nil, 0))
		synctest.Wait()
		r.publish("x", "1")
		gs := p.drain()
		if got := chats(gs, "x"); !slices.Equal(got, []string{"0"}) {
			t.Errorf("got %v", got)
		}
		if p.w.s.Joined("x") || gs[len(gs)-1].Event != "unsubscribed" {
			t.Errorf("still in x, or told wrongly: %v", gs[len(gs)-1])
		}
	})
}

func TestJoinOfAJoinedRoomIsAnsweredAgain(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		r.publish("x", "0")
		if err := p.w.s.Join(r.ctx, []Join{{Room: "x", Frame: &frame.Subscribed{Room: "x"}}}); err != nil {
			t.Fatal(err)
		}
		if got := events(p.drain()); !slices.Equal(got, []string{"welcome", "subscribed", "subscribed"}) {
			t.Errorf("events %v", got)
		}
	})
}

func TestRoomThatIsNotLiveInTimeClosesTheSession(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.set(func() { r.hold = true })
		p := r.open(0, nil, "x")
		time.Sleep(6 * time.Second)
		gs := p.drain()
		if last := gs[len(gs)-1]; last.Code != 1013 {
			t.Errorf("last frame %+v, want close 1013", last)
		}
		if p.w.mu.Lock(); p.w.code != 1013 {
			t.Errorf("Shut(%d), want the code the hub chose", p.w.code)
		}
		p.w.mu.Unlock()
		if err := p.w.s.AwaitJoins(r.ctx); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestEmptyRoomCostsNothingAfterItsLinger(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		r.publish("x", "0")
		p.w.s.Gone()
		time.Sleep(40 * time.Second)
		if r.h.lookup("x") == nil {
			t.Error("ended before its linger")
		}
		time.Sleep(20 * time.Second)
		if r.h.lookup("x") != nil || r.rooms["x"].subscribed {
			t.Error("still there after its linger")
		}
		if n := r.h.used.Load(); n != 0 {
			t.Errorf("%d bytes still charged", n)
		}
		q := r.open(0, nil, "x")
		r.publish("x", "1")
		if got := chats(q.drain(), "x"); !slices.Equal(got, []string{"1"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestDeletedHistoryIsToldOnce(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		p := r.open(0, nil, "x")
		id := r.publish("x", "0")
		synctest.Wait()
		r.h.Deleted("x", id.Position)
		r.publish("x", "1")
		gs := p.drain()
		if got := chats(gs, "x"); !slices.Equal(got, []string{"0", "1"}) {
			t.Errorf("got %v", got)
		}
		if got := events(gs); !slices.Equal(got, []string{"welcome", "subscribed", "gap"}) {
			t.Errorf("events %v", got)
		}
	})
}

// What was appended is delivered, or counted under what became of it.
func TestDeliveredAndLostAddUp(t *testing.T) {
	inBubble(t, Config{Shards: 1, RoomBytes: 4 << 10}, func(r *rig) {
		eph := func(m *message.Message) { m.Ephemeral = true }
		a, b, c := r.open(0, nil, "x"), r.open(300, nil, "x"), r.open(300, nil, "x")
		for i := range 1000 {
			if i%3 == 0 {
				r.publish("x", fmt.Sprint(i), eph)
			} else {
				r.publish("x", fmt.Sprint(i))
			}
			if i%50 == 0 {
				synctest.Wait()
			}
			if i == 500 {
				c.w.s.Gone()
				synctest.Wait()
			}
		}
		a.drain()
		b.drain()
		time.Sleep(time.Second)
		st := r.h.Stats()
		sum := st.Delivered + st.Skipped
		for _, n := range st.Lost {
			sum += n
		}
		if want := uint64(1000 + 1000 + 501); sum != want {
			t.Errorf("delivered %d, skipped %d, lost %v: %d, want %d", st.Delivered, st.Skipped, st.Lost, sum, want)
		}
		if st.Lost["dropped"] == 0 || st.Lost["closed"] == 0 {
			t.Errorf("lost %v: the test does not lose", st.Lost)
		}
	})
}

func TestOpenAfterTheEndIsRefused(t *testing.T) {
	var h *Hub
	inBubble(t, Config{}, func(r *rig) { h = r.h })
	if _, err := h.Open(Open{Writer: &socket{}, Joins: []Join{{Room: "x"}}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Open = %v, want ErrClosed", err)
	}
}

// Own frames go first, yet a session that sends all the time, and so is answered all the time, still reaches the head.
func TestSlowReaderThatSendsConstantlyReachesTheHead(t *testing.T) {
	inBubble(t, Config{RoomBytes: 16 << 10, BehindTimeout: time.Hour}, func(r *rig) {
		p := r.open(700, nil, "x")
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint(i))
			r.publish("x", fmt.Sprint(i))
		}
		for i := range 1000 {
			p.w.s.Send("x", frame.Ack{Room: "x", Ref: fmt.Sprint(i)}.Append(nil, 0))
			if p.take(600); len(chats(p.all, "x")) == len(want) {
				break
			}
			synctest.Wait()
		}
		if diff := cmp.Diff(want, chats(p.all, "x")); diff != "" {
			t.Error(diff)
		}
	})
}

// A position for another room is looked for 30 s back; that this lies before the node's start is nobody's loss.
func TestInexactResumeOnAYoungNodeIsNoGap(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.set(func() { r.since = r.nowLocked() })
		p := r.open(0, nil, "x")
		id := r.publish("x", "0")
		time.Sleep(time.Second)
		r.publish(message.Global, `"g"`)
		w := &socket{}
		s, err := r.h.Open(Open{ID: "s", User: "s", Writer: w, Anchor: "x", Fallback: message.Global, Joins: []Join{
			{Room: "x", From: id, Resume: true, Frame: &frame.Subscribed{Room: "x"}},
			{Room: message.Global, From: message.ID{Position: id.Position.Before(Inexact)}, Resume: true},
		}})
		if err != nil {
			t.Fatal(err)
		}
		w.s = s
		q := &peer{t: t, w: w}
		synctest.Wait()
		if got := chats(q.drain(), message.Global); !slices.Equal(got, []string{`"g"`}) || slices.Contains(events(q.all), "gap") {
			t.Errorf("got %v, events %v", got, events(q.all))
		}
		if first := p.drain()[0]; first.Event != "welcome" || first.ID.Position < r.since {
			t.Errorf("welcome at %v, before the node began (%v)", first.ID.Position.Time(), r.since.Time())
		}
	})
}
