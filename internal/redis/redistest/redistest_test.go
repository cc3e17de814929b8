package redistest_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAServerComesBackEmptyAtItsAddress(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	get := func() string {
		m := s.Do("GET", "k")
		v, err := m.ToString()
		if err != nil {
			return ""
		}
		return v
	}
	for _, end := range []func(){s.Stop, s.Kill} {
		s.Do("SET", "k", "v")
		if got := get(); got != "v" {
			t.Fatalf("GET k = %q, want v", got)
		}
		addr := s.Addr
		end()
		s.Restart()
		if got := get(); got != "" || s.Addr != addr {
			t.Errorf("after a restart at %s (before: %s) GET k = %q, want nothing", s.Addr, addr, got)
		}
	}
	s.Do("SET", "k", "v")
	s.FlushAll()
	if got := get(); got != "" {
		t.Errorf("after FlushAll GET k = %q", got)
	}
}

func TestAServerHasTheArgumentsItWasGiven(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "100mb")
	if got := s.Info("maxmemory"); got != 100<<20 {
		t.Errorf("maxmemory is %d, want %d", got, 100<<20)
	}
}

func TestAClusterMovesASlotWithWhatIsInIt(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	from, to := c.Primaries[1], c.Primaries[0]
	from.Do("SET", "k", "v") // it lies in the second third of the slots
	m := from.Do("CLUSTER", "KEYSLOT", "k")
	slot, err := m.AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	c.Move(from, to, int(slot))
	m = to.Do("GET", "k")
	if v, err := m.ToString(); err != nil || v != "v" {
		t.Errorf("GET k = %q, %v, want v", v, err)
	}
	c.Replicas[1].Do("CLUSTER", "FAILOVER")
	c.Settle()
	for _, r := range []*redistest.Server{c.Replicas[0], c.Replicas[2]} {
		if !r.Is("slave") || !r.Follows() {
			t.Errorf("%s is no replica that follows", r.Addr)
		}
	}
}

func TestASentinelReplacesAPrimaryThatIsGone(t *testing.T) {
	t.Parallel()
	k := redistest.StartSentinel(t)
	k.Primary.Kill()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !k.Replica.Is("master"); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the replica has not taken over")
		}
	}
}
