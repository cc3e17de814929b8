package redis_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestNothingIsLostWhenConnectionsBreak(t *testing.T) {
	for _, c := range []struct {
		name  string
		times int
		every time.Duration
		kinds []string
	}{
		{"subscriptions", 50, 40 * time.Millisecond, []string{"pubsub"}},
		{"all", 12, 150 * time.Millisecond, []string{"pubsub", "normal"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			o := options(t, server.Addr, "")
			o.CallTimeout = patience // connections break, but a slow machine is no outage
			a := newNode(t, 1, redis.Config{Options: o, Grace: patience}).run()
			b := newNode(t, 2, redis.Config{Options: o, Grace: patience}).run()
			rooms := roomNames(10)
			a.live(rooms...)
			b.live(rooms...)
			l := startLoad(rooms, 10*time.Millisecond, a, b)
			pace(c.times, c.every, func() {
				for _, kind := range c.kinds {
					server.KillConns(kind)
				}
			})
			n := l.stop()
			t.Logf("%d acknowledged, %d not", n, l.fails)
			if n < 500 || l.fails > 0 {
				t.Errorf("%d were acknowledged, %d refused; want many, and none", n, l.fails)
			}
			l.settled(t, a, b)
		})
	}
}

func TestANodeInABlackHoleCatchesUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	b := newNode(t, 2, redis.Config{Options: options(t, proxy.Listen, "")}).run()
	rooms := roomNames(5)
	a.live(rooms...)
	b.live(rooms...)
	l := startLoad(rooms, 10*time.Millisecond, a)
	for range 2 {
		end := blackHole(t, proxy)
		before := a.sink.look(rooms[0]).entries
		until(t, "the others go on meanwhile", func() bool { return len(a.sink.look(rooms[0]).entries) > len(before)+100 })
		end()
		now := a.sink.look(rooms[0]).last
		until(t, "the node hears of the room again", func() bool { return b.sink.look(rooms[0]).last >= now })
	}
	l.stop()
	l.settled(t, a, b)
}

// After a failover the old primary keeps its connections, and nothing is published there any more: only a probe tells.
func TestASubscriptionToAServerThatNobodyUsesIsDialledAgain(t *testing.T) {
	t.Parallel()
	old, promoted := redistest.Start(t), redistest.Start(t)
	var addr atomic.Pointer[string]
	addr.Store(&old.Addr)
	o := options(t, old.Addr, "")
	o.Client.DialCtxFn = func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		return d.DialContext(ctx, "tcp", *addr.Load())
	}
	a := newNode(t, 1, redis.Config{Options: o, ProbeAfter: 200 * time.Millisecond}).run()
	a.live("general")
	addr.Store(&promoted.Addr)
	old.KillConns("normal")
	b := newNode(t, 2, redis.Config{Options: options(t, promoted.Addr, "")}).run()
	// What is not stored is not healed either.
	until(t, "an ephemeral message is delivered", func() bool {
		m := b.message("general", "hint")
		m.ID.Low, m.Ephemeral = b.minter.Low(m.Room.Tag(), true), true
		if _, err := b.Publish(t.Context(), broker.Publication{Message: m}); err != nil {
			t.Fatal(err)
		}
		return len(a.sink.look("general").known) > 0
	})
}

func TestASlowRoomHoldsUpNoOtherAndLosesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	b := newNode(t, 2, redis.Config{Options: options(t, server.Addr, ""), Backlog: 16})
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	b.sink.block = func(room message.Room) {
		if room == "slow" {
			<-gate
		}
	}
	b.run()
	rooms := roomNames(16)
	b.live(append(rooms, "slow")...)
	for i := range 200 {
		if _, _, err := a.say("slow", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, room := range rooms {
		if _, _, err := a.say(room, "1"); err != nil {
			t.Fatal(err)
		}
	}
	// Half of the rooms share the slow one's worker; those of the other one must come.
	until(t, "rooms of other workers are delivered", func() bool {
		n := 0
		for _, room := range rooms {
			n += len(b.sink.look(room).entries)
		}
		return n >= 1
	})
	open()
	l := &load{acked: map[message.Room][]message.Low{"slow": nil}}
	for _, room := range rooms {
		l.acked[room] = nil
	}
	l.settled(t, b)
	if n := server.Info("total_connections_received"); n > 1000 {
		t.Errorf("%d connections", n)
	}
}

func TestWhatIsNotUnderstoodIsLeftOut(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	a.live("general", "other")
	for _, junk := range []string{"", "x", "1-1|2-2|1|", "9999999999999-0|9999999999998-0|1|", "|9999999999998-0|0|", "{", `{"type":"no such\u0000"}`, "||65535|", "\xff\xff"} {
		server.Do("PUBLISH", "realtime:room:general", junk)
	}
	server.Do("PUBLISH", "realtime:room:general", `{"type":"chat","data":{"from":"another program"}}`)
	server.Do("XADD", "rt:s:{realtime:room:general}", "*", "p", "", "d", "short")
	server.Do("XADD", "rt:s:{realtime:room:general}", "*", "other", "shape")
	low, _, err := a.say("general", "1")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "both are delivered", func() bool { return len(a.sink.look("general").known) == 2 })
	p, err := a.History(t.Context(), message.Query{Room: "general"})
	if err != nil || len(p.Entries) != 1 || p.Entries[0].Message.ID.Low != low {
		t.Errorf("History = %+v, %v, want the message alone", p.Entries, err)
	}
	server.Do("SET", "rt:s:{realtime:room:other}", "of another type")
	if _, _, err := a.say("other", "1"); err == nil {
		t.Error("a message is taken by a room whose stream is something else")
	}
	if _, _, err := a.say("general", "2"); err != nil {
		t.Errorf("other rooms do not work: %v", err)
	}
}
