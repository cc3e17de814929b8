package redis

import (
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestSlotsAreThoseOfRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	k := keys("a:")
	for _, key := range []string{
		"", "123456789", "realtime:room:general", "x{y}z", "x{}y", "x{y", "{}{z}", "x}{y}", "x{{y}}", "ä{ö}",
		k.stream("realtime:room:a"), k.check(0), k.check(16383), k.shardProbe("conn", 4711),
	} {
		m := s.Do("CLUSTER", "KEYSLOT", key)
		if want, err := m.AsInt64(); err != nil || int64(slotOf(key)) != want {
			t.Errorf("slotOf(%q) = %d, want %d, %v", key, slotOf(key), want, err)
		}
	}
	for slot := range uint16(slotCount) {
		if got := slotOf(k.check(slot)); got != slot {
			t.Fatalf("the key %q for slot %d lies in %d", k.check(slot), slot, got)
		}
	}
	for _, key := range []string{k.tip("c"), k.cut("c"), k.receipt("c", "h"), k.fields("c"), k.totals("c"), k.users("c"), k.seen("c"), "c"} {
		if slotOf(key) != slotOf(k.stream("c")) {
			t.Errorf("%q lies elsewhere than the stream of its room", key)
		}
	}
	for _, kind := range []string{"nodes", "born", "rev"} {
		if slotOf(k.shared(kind)) != slotOf(k.control()) {
			t.Errorf("%q lies elsewhere than the channel of questions", k.shared(kind))
		}
	}
}

func TestSetsOfSlots(t *testing.T) {
	var a, b slots
	a.add(0)
	a.add(63)
	a.add(16383)
	b.add(63)
	if c := a.without(&b); c.has(63) || !c.has(0) || !c.has(16383) || c.count() != 2 || c.with(&b) != a {
		t.Errorf("%v without %v = %v", a, b, c)
	}
	if n, ok := b.first(); n != 63 || !ok {
		t.Errorf("first = %d, %v, want 63", n, ok)
	}
	if _, ok := (&slots{}).first(); ok || allSlots.count() != slotCount {
		t.Errorf("the empty set has a first one: %v; all are %d", ok, allSlots.count())
	}
}

// FuzzRedirected: whatever a primary answers is an answer.
func FuzzRedirected(f *testing.F) {
	for _, text := range []string{"MOVED 3999 127.0.0.1:6381", "MOVED 3999 :6381", "MOVED 99999 a:1", "MOVED x [::1]:2", "MOVED", "ASK 1 a:1", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := &cluster{stale: make(chan struct{}, 1), replaced: func() {}}
		c.view.Store(&clusterView{addrs: []string{"a:1", "b:2"}})
		if got, want := c.redirected(text), strings.HasPrefix(text, "MOVED") && len(strings.Fields(text)) == 3 && strings.Fields(text)[0] == "MOVED"; got != want {
			t.Errorf("redirected(%q) = %v, want %v", text, got, want)
		}
		v := c.view.Load()
		for _, n := range v.owner {
			if int(n) >= len(v.addrs) {
				t.Fatalf("a slot has primary %d of %d", n, len(v.addrs))
			}
		}
	})
}
