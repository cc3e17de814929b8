package redistest_test

import (
	"testing"

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
