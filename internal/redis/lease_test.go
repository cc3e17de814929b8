package redis

import (
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/redis/redistest"
)

// leaseOn is the lease of a node, which reaches a server.
func leaseOn(t *testing.T, s *redistest.Server, inc string) *lease {
	t.Helper()
	w := &wire{port: newServer(optionsOf(s), time.Second), call: time.Second, reads: time.Second}
	if err := w.open(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return &lease{wire: w, inc: inc, lasts: 6 * time.Second}
}

func optionsOf(s *redistest.Server) (o Options) {
	o.Client.InitAddress = []string{s.Addr}
	o.setDefaults()
	return o
}

func TestALeaseStandsUntilItIsGivenUpOrLost(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	l := leaseOn(t, s, "1.boot.rand")
	if b, err := l.look(t.Context()); err != nil || len(b.live) != 0 || b.born != 0 {
		t.Errorf("before the first: %+v, %v, want no lease and no data", b, err)
	}
	s.Do("SET", "rt:rev:{realtime:ctl}:v", "7")
	for range 2 {
		b, err := l.renew(t.Context())
		if _, held := b.live[l.inc]; err != nil || !held || len(b.live) != 1 || b.lapsed || b.revoked != 7 || b.born == 0 || b.born > b.now {
			t.Fatalf("a renewal brings %+v, %v", b, err)
		}
	}
	s.FlushAll()
	if b, err := l.renew(t.Context()); err != nil || !b.lapsed || b.revoked != 0 {
		t.Errorf("after all was lost: %+v, %v, want it to have lapsed", b, err)
	}
	if err := l.end(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	b, err := l.renew(t.Context())
	if left := b.live[l.inc+"~"] - b.now; err != nil || len(b.live) != 1 || left < 30_000 || left > 60_000 {
		t.Errorf("after its end: %+v, %v, want it to stand for a minute as one who has left", b, err)
	}
}

func TestANodesNumberIsNoOtherLeases(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	// All numbers but those that begin with a are taken, by leases that are over too.
	fill := "for i = 1, 65535 do local n, s = i, '' repeat local d = n % 36 s = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', d + 1, d + 1) .. s n = math.floor(n / 36) until n == 0 " +
		"if string.sub(s, 1, 1) ~= 'a' then redis.call('ZADD', KEYS[1], i, s .. '.boot.rand') end end"
	s.Do("EVAL", fill, "1", "rt:nodes:{realtime:ctl}")
	for range 5 {
		n, err := Number(t.Context(), optionsOf(s))
		if err != nil || !strings.HasPrefix(numberName(n), "a") {
			t.Fatalf("Number = %d (%s), %v, want one that begins with a", n, numberName(n), err)
		}
	}
	s.Stop()
	if n, err := Number(t.Context(), optionsOf(s)); err == nil || n == 0 {
		t.Errorf("Number without redis = %d, %v, want a random one and an error", n, err)
	}
}

func TestAJunkReplyToABeatIsAnError(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("SET", "rt:nodes:{realtime:ctl}", "x")
	if _, err := leaseOn(t, s, "n").renew(t.Context()); err == nil {
		t.Error("a beat over a key of another type is well")
	}
	for _, reply := range [][]string{nil, {"0"}, {"0", "1", ""}, {"0", "", "", ""}, {"0", "x", "1", "1"}, {"0", "1", "x", ""}, {"0", "1", "", "-1"}, {"0", "1", "1", "1", "n"}, {"0", "1", "1", "1", "n", "x"}} {
		if b, ok := parseSign(reply); ok {
			t.Errorf("parseSign of %q = %+v", reply, b)
		}
	}
}
