package redis_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// subscribers is how many connections hold a channel.
func subscribers(t *testing.T, s *redistest.Server, ch string) int64 {
	t.Helper()
	m := s.Do("PUBSUB", "NUMSUB", ch)
	reply, err := m.ToArray()
	if err != nil {
		t.Fatal(err)
	}
	n, err := reply[1].AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestARoomIsSubscribedOnceForItsMembersAndForWhoFollowsIt(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	const ch = "realtime:room:lobby"
	a, b := peers(t, s)
	holds := func(want int64, why string) {
		t.Helper()
		until(t, why, func() bool { return subscribers(t, s, ch) == want })
	}
	b.Follow(lobby)
	b.until("it has a roster", 5*time.Second, func() bool { return b.view[lobby] != nil })
	a.has(lobby, "u", true)
	b.sees(lobby, 5*time.Second, a)
	for range 3 {
		b.bus.Subscribe(lobby)
		b.bus.Unsubscribe(lobby)
	}
	b.bus.Subscribe(lobby)
	a.has(lobby, "v", true)
	b.sees(lobby, 5*time.Second, a)
	holds(1, "one connection brings both")
	b.bus.Unsubscribe(lobby)
	a.has(lobby, "w", true)
	b.sees(lobby, 5*time.Second, a)
	holds(1, "who follows the room still hears of it when its members have gone")
	b.bus.Subscribe(lobby)
	b.Unfollow(lobby)
	if _, err := a.bus.Publish(t.Context(), broker.Publication{Message: &message.Message{
		ID: message.ID{Low: 1 << 63}, Type: message.TypeChat, Room: lobby, Data: []byte("1"), Timestamp: 1,
	}}); err != nil {
		t.Fatal(err)
	}
	holds(1, "members still hear of it when nobody follows it")
	b.bus.Unsubscribe(lobby)
	holds(0, "nobody wants the room any more")
	m := s.Do("CLIENT", "LIST", "TYPE", "pubsub")
	list, err := m.ToString()
	if n := strings.Count(list, "\n"); err != nil || n < 2 || n > 8 { // at most four of each node
		t.Errorf("%d connections hold subscriptions, %v", n, err)
	}
}

func TestANodeHasOneLeaseAndItsNameIsInIt(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := runPeer(t, s, quick("1a.boot.rand")), runPeer(t, s, quick("2b.boot.rand"))
	names := func() (names []string) {
		m := s.Do("ZRANGE", "rt:nodes:{realtime:ctl}", "0", "-1")
		names, err := m.AsStrSlice()
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if got := names(); len(got) != 2 {
		t.Errorf("leases %q, want one of each node", got)
	}
	_, unreached, err := a.bus.Ask(t.Context(), broker.Request{Kind: "x"})
	if err != nil || len(unreached) != 2 || unreached[0] == unreached[1] || len(unreached[0]) != 2 {
		t.Errorf("nobody serves: unreached %q, %v, want 1a and 2b", unreached, err)
	}
	b.Leave()
	until(t, "who has left is marked", func() bool {
		return slices.Contains(names(), "2b.boot.rand~") && !slices.Contains(names(), "2b.boot.rand")
	})
	if _, unreached, err = a.bus.Ask(t.Context(), broker.Request{Kind: "x"}); err != nil || len(unreached) != 1 || unreached[0] != "1a" {
		t.Errorf("unreached %q, %v, want nobody to wait for who has left", unreached, err)
	}
	a.stop()
	until(t, "who has ended is marked", func() bool {
		return slices.Contains(names(), "1a.boot.rand~") && !slices.Contains(names(), "1a.boot.rand")
	})
}

func TestRevocationsAreToldToOtherNodes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	told := make(chan uint64, 8)
	a := newNode(t, 1, redis.Config{Options: options(t, s.Addr, "")}).run()
	newNode(t, 2, redis.Config{Options: options(t, s.Addr, ""), Revoked: func(version uint64) { told <- version }}).run()
	if err := a.Revoke(t.Context(), broker.Revocation{User: "ann", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	_, version, err := a.Revocations(t.Context())
	select {
	case got := <-told:
		if err != nil || got != version {
			t.Errorf("told version %d, Revocations has %d, %v", got, version, err)
		}
	case <-time.After(patience):
		t.Errorf("not told within %v", patience)
	}
}

func TestWrongNamesOfNodesAreRefused(t *testing.T) {
	for _, cfg := range []redis.Config{
		{Incarnation: "a:b"}, {Incarnation: "a~"}, {NodeID: "a:b"}, {Lease: time.Second, Beat: time.Second},
	} {
		cfg.Options = options(t, "127.0.0.1:1", "")
		if err := redis.New(cfg).Run(t.Context(), deaf{}, func() { t.Error("ready") }); err == nil {
			t.Errorf("Run with the name %q%q and a beat each %v = nil", cfg.NodeID, cfg.Incarnation, cfg.Beat)
		}
		if _, err := redis.NewPresence(redis.New(cfg), redis.PresenceConfig{}); err == nil {
			t.Errorf("NewPresence with the name %q%q and a beat each %v works", cfg.NodeID, cfg.Incarnation, cfg.Beat)
		}
	}
}
