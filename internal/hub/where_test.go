package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
)

func TestWhereASessionStandsIsTheLastMessageItWasHanded(t *testing.T) {
	inBubble(t, Config{Shards: 3}, func(r *rig) {
		slow, quick, lost := r.open(2000, nil, "x"), r.open(0, nil, "x", "y"), r.open(0, nil, "x")
		begun := time.Now()
		var last string
		for i := range 50 {
			last = r.publish("x", fmt.Sprintf(`"%d%s"`, i, strings.Repeat(".", 100))).String()
		}
		synctest.Wait()
		lost.w.s.Gone()
		synctest.Wait()
		all, err := r.h.Where(r.ctx, []*Session{slow.w.s, quick.w.s, lost.w.s})
		if err != nil {
			t.Fatal(err)
		}
		if w := all[1]; len(w.Places) != 2 || w.BlockedSince != 0 || w.Ended {
			t.Errorf("who reads: %+v", w)
		}
		for _, p := range all[1].Places { // everyone's room and the user's own are not among them
			if p.Lag != 0 || p.Room == "x" && p.Position.String()[:18] != last[:18] || p.Room != "x" && p.Room != "y" {
				t.Errorf("who reads is told to stand at %+v, the last message is %s", p, last)
			}
		}
		w := all[0]
		if len(w.Places) != 1 || w.Ended || w.BlockedSince < begun.UnixMilli() {
			t.Fatalf("who does not read: %+v", w)
		}
		written := len(chats(slow.all, "x")) // what fits into its socket, the frame that was torn included
		if lag := w.Places[0].Lag; lag < 25 || lag >= 50 || written+int(lag) > 50 {
			t.Errorf("who does not read lags by %d of 50", lag)
		}
		if w := all[2]; !w.Ended || len(w.Places) != 0 {
			t.Errorf("who has gone: %+v", w)
		}
	})
}

func TestWhereManySessionsStandIsAskedInParts(t *testing.T) {
	inBubble(t, Config{Shards: 2}, func(r *rig) {
		var all []*Session
		for i := range 3*sliceMembers + 1 {
			all = append(all, r.open(0, nil, []message.Room{"a", "b"}[i%2:i%2+1]...).w.s)
		}
		where, err := r.h.Where(r.ctx, all)
		if err != nil || len(where) != len(all) {
			t.Fatalf("%d of %d, %v", len(where), len(all), err)
		}
		for i, w := range where {
			if len(w.Places) != 1 || string(w.Places[0].Room) != []string{"a", "b"}[i%2] {
				t.Fatalf("session %d: %+v", i, w)
			}
		}
		if none, err := r.h.Where(r.ctx, nil); err != nil || len(none) != 0 {
			t.Errorf("of nobody: %v, %v", none, err)
		}
		ended, cancel := context.WithCancel(r.ctx)
		cancel()
		if _, err := r.h.Where(ended, all); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

func TestNobodyStandsAnywhereAfterTheEnd(t *testing.T) {
	var h *Hub
	var s *Session
	inBubble(t, Config{}, func(r *rig) { h, s = r.h, r.open(0, nil, "x").w.s })
	if _, err := h.Where(t.Context(), []*Session{s}); !errors.Is(err, ErrClosed) {
		t.Errorf("Where = %v, want ErrClosed", err)
	}
}
