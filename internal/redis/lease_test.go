package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestANodesNumberIsNoOtherLeases(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := newNodeLease("", "", 6*time.Second)
	first := l.name()
	number, _, _ := strings.Cut(first, ".")
	s.Do("ZADD", "rt:nodes:{realtime:ctl}", "9999999999999", number+".boot.rand", "9999999999999", number+"0.boot.rand")
	for range 2 {
		b, err := l.beat(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, held := b.live[l.name()]; !held || len(b.live) != 3 || b.lapsed {
			t.Fatalf("after a beat of %q: %+v", l.name(), b)
		}
	}
	if strings.HasPrefix(l.name(), number+".") {
		t.Errorf("the lease is %q, though %q was taken", l.name(), number)
	}
	s.FlushAll()
	if b, err := l.beat(t.Context(), c); err != nil || !b.lapsed {
		t.Errorf("a beat after all was lost = %+v, %v, want it to have lapsed", b, err)
	}
	if err := l.end(t.Context(), c, time.Minute); err != nil {
		t.Fatal(err)
	}
	b, err := l.beat(t.Context(), c)
	if left := b.live[l.name()+"~"] - b.now; err != nil || len(b.live) != 1 || left < 30_000 || left > 60_000 {
		t.Errorf("after its end: %+v, %v, want it to stand for a minute as one who has left", b, err)
	}
}

func TestAJunkReplyToABeatIsAnError(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Do("SET", "rt:nodes:{realtime:ctl}", "x")
	if _, err := newNodeLease("", "n", time.Second).beat(t.Context(), c); err == nil {
		t.Error("a beat over a key of another type is well")
	}
	for _, script := range []string{"return {}", "return {0}", "return {0, 'x'}", "return {0, 1, 'n'}", "return {0, 1, 'n', 'x'}", "return {0, 1, {}, 1}"} {
		reply, err := c.Do(t.Context(), c.B().Eval().Script(script).Numkeys(0).Build()).ToArray()
		if err != nil {
			t.Fatal(err)
		}
		if b, taken, err := parseBeat(reply); err == nil && !taken {
			t.Errorf("parseBeat of what %q returns = %+v", script, b)
		}
	}
}
