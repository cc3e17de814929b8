package redis_test

import (
	"fmt"
	"testing"

	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestStatsTellWhatConnectionsThatBreakCost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	b := newNode(t, 2, redis.Config{Options: options(t, server.Addr, "")}).run()
	a.live("general")
	if st := a.Stats(); !st.Up || st.Away != 0 || st.Heals != (redis.Stats{}).Heals || st.Broken != 0 {
		t.Errorf("at first: %+v", st)
	}
	sent := 0
	until(t, "a room is healed", func() bool {
		server.KillConns("pubsub")
		if _, _, err := b.say("general", fmt.Sprint(sent)); err != nil {
			t.Fatal(err)
		}
		sent++
		st := a.Stats()
		return st.Broken > 0 && st.Heals[redis.HealBehind]+st.Heals[redis.HealHole] > 0
	})
	until(t, "all have come", func() bool { return len(a.sink.look("general").entries) == sent })
	server.Kill()
	until(t, "it is away", func() bool { return !a.Stats().Up })
	if _, r, err := a.say("general", "1"); err != nil || !r.Degraded {
		t.Fatalf("Publish = %+v, %v", r, err)
	}
	if st := a.Stats(); st.Outbox != 1 || st.OutboxBytes == 0 || st.Away == 0 {
		t.Errorf("while it is away: %+v", st)
	}
	server.Restart()
	until(t, "it is back", func() bool { return a.Stats().Up })
	if st := a.Stats(); st.Outbox != 0 || st.OutboxBytes != 0 || st.Away != a.Stats().Away {
		t.Errorf("afterwards: %+v, want it to count no more", st)
	}
}
