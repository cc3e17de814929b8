package redis_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// watched are the options of a node that asks a Sentinel where its Redis is.
func watched(t *testing.T, k *redistest.Sentinel) redis.Options {
	o := options(t, k.Addr, "")
	o.Client.Sentinel = rueidis.SentinelOption{MasterSet: k.Name}
	return o
}

func TestWhenASentinelFailsOverNothingIsLostOrRepeated(t *testing.T) {
	t.Parallel()
	k := redistest.StartSentinel(t)
	a, b := newNode(t, 1, redis.Config{Options: watched(t, k)}).run(), newNode(t, 2, redis.Config{Options: watched(t, k)}).run()
	rooms := roomNames(5)
	a.live(rooms...)
	b.live(rooms...)
	l := startLoad(rooms, 10*time.Millisecond, a, b)
	until(t, "messages come", func() bool { return len(b.sink.look(rooms[0]).entries) > 20 })
	k.Primary.Kill()
	a.awaits("degraded ", "restored ")
	b.awaits("degraded ", "restored ")
	n := len(b.sink.look(rooms[0]).entries)
	until(t, "messages come again", func() bool { return len(b.sink.look(rooms[0]).entries) > n+20 })
	acked := l.stop()
	l.storedOnce(t, a, b)
	if got := k.Replica.Info("connected_slaves"); got != 0 || l.fails > 0 {
		t.Errorf("%d messages stored, %d refused; the new primary has %d replicas, want 0", acked, l.fails, got)
	}
}

func TestSubscriptionsLeaveADemotedPrimaryOfWhichNobodyHasTold(t *testing.T) {
	t.Parallel()
	k := redistest.StartSentinel(t)
	cfg := redis.Config{Options: watched(t, k), ProbeAfter: 300 * time.Millisecond}
	cfg.Client.Sentinel.TopologyRefreshInterval = 200 * time.Millisecond
	a, b := newNode(t, 1, cfg).run(), newNode(t, 2, cfg).run()
	rooms := roomNames(3)
	a.live(rooms...)
	b.live(rooms...)
	// The Sentinel does not see the change, so it closes nobody's connection; and the old primary gets nothing of the new one.
	k.Do("SENTINEL", "REMOVE", k.Name)
	until(t, "only the nodes are subscribed", func() bool { return subscribers(t, k.Primary, "__sentinel__:hello") == 0 })
	held := k.Primary.Info("pubsub_channels")
	host, port, _ := net.SplitHostPort(k.Replica.Addr)
	k.Replica.Do("REPLICAOF", "NO", "ONE")
	k.Primary.Do("CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong")
	k.Primary.Do("REPLICAOF", host, port)
	if got := k.Primary.Info("pubsub_channels"); got != held {
		t.Fatalf("the demoted primary has %d channels, want %d", got, held)
	}
	k.Do("SENTINEL", "MONITOR", k.Name, host, port, "1")

	until(t, "all subscriptions are at the new primary", func() bool {
		return k.Primary.Info("pubsub_channels") == 0 && k.Replica.Info("pubsub_channels") >= held
	})
	l := startLoad(rooms, 10*time.Millisecond, a, b)
	until(t, "messages come", func() bool { return len(b.sink.look(rooms[0]).entries) > 20 })
	l.stop()
	l.storedOnce(t, a, b)
}

func TestASentinelHasCredentialsOfItsOwn(t *testing.T) {
	t.Parallel()
	k := redistest.StartSentinel(t)
	k.Do("ACL", "SETUSER", "default", "resetpass", ">guarded")
	asUser(t, k.Primary, "")
	o := watched(t, k)
	o.Client.Username, o.Client.Password = "node", "secret"
	err := redis.New(redis.Config{Options: o}).Run(t.Context(), deaf{}, func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without the Sentinel's password: Run = %v", err)
	}
	o.Client.Sentinel.Password = "guarded"
	n := newNode(t, 1, redis.Config{Options: o}).run()
	if _, _, err := n.say("lobby", "hi"); err != nil {
		t.Error(err)
	}
	if _, _, err := n.Ask(t.Context(), broker.Request{Kind: "x"}); err != nil {
		t.Error(err)
	}
}
