package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func (s *recorder) happened() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// awaits waits until exactly these outages and ends of outages were told.
func (n *node) awaits(events ...string) {
	n.t.Helper()
	until(n.t, fmt.Sprintf("%s is told %q", n.sink.name, events), func() bool { return slices.Equal(n.sink.happened(), events) })
}

// storedOnce checks that each of the acknowledged is stored once, and was delivered on each node.
func (l *load) storedOnce(t *testing.T, nodes ...*node) {
	t.Helper()
	for room, acked := range l.acked {
		stored := make(map[message.Low]int)
		until(t, "all that was acknowledged is stored and delivered", func() bool {
			p, err := nodes[0].History(t.Context(), message.Query{Room: room})
			if err != nil {
				return false
			}
			clear(stored)
			for _, e := range p.Entries {
				stored[e.Message.ID.Low]++
			}
			return !slices.ContainsFunc(acked, func(low message.Low) bool {
				return stored[low] == 0 || slices.ContainsFunc(nodes, func(n *node) bool { return !n.sink.look(room).known[low] })
			})
		})
		for low, n := range stored {
			if n != 1 {
				t.Errorf("room %q holds %x %d times", room, low, n)
			}
		}
	}
}

func TestWhileRedisIsAwayANodeServesItsOwnAndAfterwardsAllHaveEverything(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	a := newNode(t, 1, redis.Config{Options: options(t, proxy.Listen, "")}).run()
	b := newNode(t, 2, redis.Config{Options: options(t, proxy.Listen, "")}).run()
	rooms := roomNames(5)
	a.live(rooms...)
	b.live(rooms...)
	l := startLoad(rooms, 10*time.Millisecond, a, b)
	until(t, "messages flow", func() bool { return len(a.sink.look(rooms[0]).entries) > 20 })
	proxy.Stop()
	a.awaits("degraded ")
	b.awaits("degraded ")
	before := len(a.sink.look(rooms[0]).entries)
	until(t, "the node's own messages reach its sessions", func() bool { return len(a.sink.look(rooms[0]).entries) > before+20 })
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaits("degraded ", "restored ")
	b.awaits("degraded ", "restored ")
	if n := l.stop(); n < 100 || l.fails > 0 {
		t.Errorf("%d were taken, %d refused; want many, and none", n, l.fails)
	}
	l.storedOnce(t, a, b)
	for _, n := range []*node{a, b} {
		for _, room := range rooms {
			if r := n.sink.look(room); r.gaps > 0 {
				t.Errorf("%s was told of %d gaps in %q", n.sink.name, r.gaps, room)
			}
		}
	}
}

func TestMessagesOfAnOutageKeepTheirOrderAndTheirKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	a := newNode(t, 1, redis.Config{Options: options(t, proxy.Listen, "")}).run()
	a.live("general")
	_, first, err := a.say("general", "before")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Stop()
	publish := func(text, key string) broker.Receipt {
		t.Helper()
		r, err := a.Publish(t.Context(), broker.Publication{Message: a.message("general", text), Caller: "ann", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := []string{`"before"`}
	for i := range 300 {
		want = append(want, fmt.Sprintf("%q", fmt.Sprint(i)))
		r := publish(fmt.Sprint(i), fmt.Sprint(i))
		if !r.Degraded || r.Duplicate || r.ID.Position != first.ID.Position {
			t.Fatalf("message %d: %+v, want degraded, at the position %d of the one before the outage", i, r, first.ID.Position)
		}
		if again := publish("again", fmt.Sprint(i)); !again.Duplicate || again.ID != r.ID {
			t.Fatalf("the same key again: %+v, want %+v", again, r)
		}
	}
	hint := a.message("general", "hint")
	hint.ID.Low, hint.Ephemeral = a.minter.Low(hint.Room.Tag(), true), true
	if r, err := a.Publish(t.Context(), broker.Publication{Message: hint}); err != nil || !r.Degraded {
		t.Errorf("an ephemeral message: %+v, %v", r, err)
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaits("degraded ", "restored ")
	p, err := a.History(t.Context(), message.Query{Room: "general"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range p.Entries {
		got = append(got, string(e.Message.Data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	r := publish("again", "7")
	if shown := a.sink.look("general").entries[8].Message.ID; !r.Duplicate || r.ID != shown {
		t.Errorf("a key of the outage after it: %+v, want the id %v under which it was shown", r, shown)
	}
	if low, _, err := a.say("general", "after"); err != nil || !a.sink.look("general").known[low] {
		t.Errorf("after the outage: %v", err)
	}
}

func TestRoomsThatRejectTakeNothingWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	reject, err := message.NewPatterns(map[string]bool{"strict/*": true})
	if err != nil {
		t.Fatal(err)
	}
	a := newNode(t, 1, redis.Config{Options: options(t, proxy.Listen, ""), Reject: reject, MaxOutbox: 2000}).run()
	a.live("strict/1", "general")
	proxy.Stop()
	for range 3 {
		if _, _, err := a.say("strict/1", "1"); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("Publish = %v, want %v", err, broker.ErrUnavailable)
		}
	}
	taken := 0
	for ; err == nil; taken++ {
		_, _, err = a.say("general", strings.Repeat("x", 100))
	}
	if !errors.Is(err, broker.ErrOverloaded) || taken < 5 || taken > 20 {
		t.Errorf("after %d messages of 100 bytes: %v, want %v when 2,000 bytes are full", taken, err, broker.ErrOverloaded)
	}
	if got := len(a.sink.look("general").entries); got != taken-1 {
		t.Errorf("%d were delivered, %d taken", got, taken-1)
	}
	if got := len(a.sink.look("strict/1").entries); got > 0 {
		t.Errorf("%d that were rejected were delivered", got)
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaits("degraded ", "restored ")
	if _, r, err := a.say("strict/1", "2"); err != nil || r.Degraded {
		t.Errorf("after the outage: %+v, %v", r, err)
	}
}

func TestANodeStartsWithoutRedisAndFindsItLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")})
	a.Serve(nil)
	a.run()
	a.live("general")
	a.awaits("degraded ")
	low, r, err := a.say("general", "1")
	if err != nil || !r.Degraded || !a.sink.look("general").known[low] {
		t.Fatalf("Publish = %+v, %v, want degraded and delivered", r, err)
	}
	if _, unreached, err := a.Ask(t.Context(), broker.Request{}); err != nil || !slices.Equal(unreached, []string{"r1"}) {
		t.Errorf("Ask: unreached %q, %v", unreached, err)
	}
	server.Restart()
	a.awaits("degraded ", "restored ")
	b := newNode(t, 2, redis.Config{Options: options(t, server.Addr, "")}).run()
	b.live("general")
	p, err := b.History(t.Context(), message.Query{Room: "general"})
	if err != nil || len(p.Entries) != 1 || p.Entries[0].Message.ID.Low != r.ID.Low {
		t.Fatalf("History on another node = %+v, %v, want the message", p, err)
	}
	next, _, err := b.say("general", "2")
	if err != nil {
		t.Fatal(err)
	}
	until(t, "what others publish is delivered", func() bool { return a.sink.look("general").known[next] })
}

func TestAWrongPasswordEndsTheNode(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "ann", "on", ">secret", "allcommands", "allkeys", "allchannels")
	o := options(t, server.Addr, "")
	o.Client.Username, o.Client.Password = "ann", "hunter2-not-it"
	err := redis.New(redis.Config{Options: o}).Run(t.Context(), newNode(t, 1, redis.Config{}).sink, func() { t.Error("ready") })
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Run = %v, want an error that does not tell the password", err)
	}
	for _, o := range []redis.Options{{}, {Client: o.Client, Prefix: "{x}"}} {
		if err := redis.New(redis.Config{Options: o}).Run(t.Context(), nil, nil); err == nil {
			t.Errorf("Run with %q and prefix %q = nil", o.Client.InitAddress, o.Prefix)
		}
	}
}
