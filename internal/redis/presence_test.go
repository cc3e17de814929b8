package redis_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/presence/presencetest"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// quick is a config that lets nodes die soon.
func quick(inc string) redis.PresenceConfig {
	return redis.PresenceConfig{Incarnation: inc, Lease: 1500 * time.Millisecond, Beat: 400 * time.Millisecond, Grace: time.Second}
}

func TestPresenceKeepsTheContract(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	names := []string{"n1", "n2", "n3"}
	buses := 0
	presencetest.Run(t, presencetest.Factory{
		Names: names,
		New: func(t testing.TB, n int) []presence.Store {
			buses++
			stores := make([]presence.Store, n)
			for i := range stores {
				stores[i] = newPresence(t, s, fmt.Sprint("bus", buses, ":"), quick(names[i]))
			}
			return stores
		},
	})
}

func newPresence(t testing.TB, s *redistest.Server, prefix string, cfg redis.PresenceConfig) *redis.Presence {
	t.Helper()
	p, err := redis.NewPresence(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{s.Addr}}, Prefix: prefix}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
