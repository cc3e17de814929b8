package redis_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// lossy is two nodes whose Redis loses something.
func lossy(t *testing.T, addr string, cfg redis.Config) (a, b *node) {
	t.Helper()
	call := cfg.CallTimeout
	cfg.Options = options(t, addr, "")
	cfg.CallTimeout = call
	a, b = newNode(t, 1, cfg), newNode(t, 2, cfg)
	for _, n := range []*node{a, b} {
		n.sink.lossy = true
		n.run()
	}
	return a, b
}

// stored is a room's history by identity, and how often each is in it.
func (n *node) stored(room message.Room) (ids map[message.Low]message.ID, times map[message.Low]int) {
	n.t.Helper()
	p, err := n.History(n.t.Context(), message.Query{Room: room})
	if err != nil {
		n.t.Fatal(err)
	}
	ids, times = make(map[message.Low]message.ID), make(map[message.Low]int)
	for _, e := range p.Entries {
		ids[e.Message.ID.Low] = e.Message.ID
		times[e.Message.ID.Low]++
	}
	return ids, times
}

// inPlace checks that what was stored when it was acknowledged has the id it got then.
func (l *load) inPlace(t *testing.T, n *node) {
	t.Helper()
	for room := range l.acked {
		ids, _ := n.stored(room)
		for low, id := range ids {
			if want, ok := l.ids[low]; ok && id != want {
				t.Errorf("room %q: %v was acknowledged as %v", room, id, want)
			}
		}
	}
}

func TestARestartThatLosesEverythingLosesNothingForSessionsThatStay(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := lossy(t, server.Addr, redis.Config{})
	rooms := roomNames(10)
	a.live(rooms...)
	b.live(rooms...)
	l := startLoad(rooms, 10*time.Millisecond, a, b)
	for i := range 2 {
		pace(1, time.Second, server.Kill)
		pace(1, time.Second, server.Restart)
		events := slices.Repeat([]string{"degraded ", "restored "}, i+1)
		a.awaits(events...)
		b.awaits(events...)
	}
	pace(1, 500*time.Millisecond, func() {})
	l.kept(t, rooms, a, b)
}

// kept ends the load, and wants all of it taken, stored once and in its place, and nobody told of a gap.
func (l *load) kept(t *testing.T, rooms []message.Room, a, b *node) {
	t.Helper()
	n := l.stop()
	t.Logf("%d acknowledged, %d of them degraded", n, n-len(l.ids))
	if n < 2000 || l.fails > 0 {
		t.Errorf("%d were acknowledged, %d refused; want many, and none", n, l.fails)
	}
	l.storedOnce(t, a, b)
	l.inPlace(t, a)
	for _, n := range []*node{a, b} {
		for _, room := range rooms {
			if r := n.sink.look(room); r.gaps > 0 {
				t.Errorf("%s was told of %d gaps in %q", n.sink.name, r.gaps, room)
			}
		}
	}
}

func TestAFailoverThatLosesWhatWasAcknowledgedLosesNothing(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := primary.Replica()
	proxy := proxied(t, primary.Addr)
	a, b := lossy(t, proxy.Listen, redis.Config{})
	rooms := roomNames(10)
	a.live(rooms...)
	b.live(rooms...)
	l := startLoad(rooms, 5*time.Millisecond, a, b)
	pace(1, time.Second, replica.Promote)
	pace(1, 300*time.Millisecond, func() {
		proxy.Stop()
		proxy.Upstream = replica.Addr
		if err := proxy.Start(); err != nil {
			t.Error(err)
		}
	})
	pace(1, 2*time.Second, func() {})
	l.kept(t, rooms, a, b)
}

func TestWhatWasTrimmedIsNotPutBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	// No outage, however slow the machine is: what is stored after one is not in the order of its positions.
	a, b := lossy(t, server.Addr, redis.Config{Retention: broker.Retention{Messages: 200}, Grace: 10 * time.Second, Options: redis.Options{CallTimeout: 5 * time.Second}})
	rooms := roomNames(1)
	a.live(rooms...)
	l := startLoad(slices.Repeat(rooms, 8), 2*time.Millisecond, a, b)
	pace(10, 150*time.Millisecond, func() { server.KillConns("normal") })
	l.stop()
	for range 2 { // the second time all rooms have been compared once more
		low, _, err := a.say("other", "1")
		if err != nil {
			t.Fatal(err)
		}
		server.Do("DEL", "rt:s:{realtime:room:other}")
		server.KillConns("normal")
		until(t, "what was lost of another room is back", func() bool {
			ids, _ := a.stored("other")
			return ids[low].Position != 0
		})
	}
	ids, times := a.stored(rooms[0])
	if len(ids) < 200 || len(ids) > 1000 || len(l.ids) < 2*len(ids) {
		t.Fatalf("%d are stored of %d, want few more than 200 of many", len(ids), len(l.ids))
	}
	var all []message.ID
	for _, id := range l.ids {
		all = append(all, id)
	}
	slices.SortFunc(all, func(a, b message.ID) int { return cmp.Compare(a.Position, b.Position) })
	for i, id := range all {
		if _, ok := ids[id.Low]; ok != (i >= len(all)-len(ids)) || times[id.Low] > 1 {
			t.Fatalf("message %d of %d is stored %d times; the stream has %d", i, len(all), times[id.Low], len(ids))
		}
	}
}

func TestWhatWasDeletedIsNotPutBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := lossy(t, server.Addr, redis.Config{})
	for room, loss := range map[message.Room]func(){
		"stream": func() { server.Do("DEL", "rt:s:{realtime:room:stream}") }, // what says up to where it was deleted stays
		"all":    server.FlushAll,                                            // and goes
	} {
		a.live(room)
		b.live(room)
		nodes := []*node{a, b}
		for _, n := range nodes {
			for i := range 20 {
				if _, _, err := n.say(room, fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := a.Delete(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		until(t, "both are told", func() bool { return a.sink.look(room).cut > 0 && b.sink.look(room).cut > 0 })
		var want []message.Low
		for _, n := range nodes {
			low, _, err := n.say(room, "after")
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, low)
		}
		loss()
		server.KillConns("normal")
		until(t, "what came after the deletion is back", func() bool {
			ids, _ := a.stored(room)
			return !slices.ContainsFunc(want, func(low message.Low) bool { return ids[low].Position == 0 })
		})
		if ids, _ := a.stored(room); len(ids) != len(want) {
			t.Errorf("room %q: %d are stored, want the two that came after the deletion", room, len(ids))
		}
	}
}

// putBack says on a room's channel that a message is back at a position, as restore.lua does.
func putBack(server *redistest.Server, room message.Room, at message.Position, env string) {
	head := fmt.Sprintf("%d-%d|R|1|", at.Millis(), at.Seq())
	server.Do("PUBLISH", "realtime:room:"+string(room), string(binary.BigEndian.AppendUint32([]byte(head), uint32(len(env))))+env)
}

func TestWhatIsPutBackReachesANodeThatMissedItOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	a.live("general")
	var envs []string
	for i := range 2 {
		if _, _, err := a.say("elsewhere", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	m := server.Do("XRANGE", "rt:s:{realtime:room:elsewhere}", "-", "+")
	es, err := m.AsXRange()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		envs = append(envs, e.FieldValues["d"])
	}
	_, first, err := a.say("general", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = a.say("general", "2"); err != nil {
		t.Fatal(err)
	}
	between := first.ID.Position.Next()
	for range 3 {
		putBack(server, "general", between, envs[0])
	}
	until(t, "it is delivered", func() bool { return len(a.sink.look("general").entries) == 3 })
	if r := a.sink.look("general"); r.belated != 1 || r.entries[2].Message.ID.Position != between {
		t.Errorf("%d belated, %v delivered last; want one, at %d", r.belated, r.entries[2].Message.ID, between)
	}
	// One that is newer than all that was delivered comes in its order, from the stream.
	last := a.sink.look("general").last
	next := last.After(time.Minute)
	server.Do("XADD", "rt:s:{realtime:room:general}", fmt.Sprintf("%d-0", next.Millis()), "p", fmt.Sprintf("%d-%d", last.Millis(), last.Seq()), "d", envs[1])
	for range 3 {
		putBack(server, "general", message.At(next.Millis(), 0), envs[1])
	}
	until(t, "it is delivered", func() bool { return len(a.sink.look("general").entries) == 4 })
	if r := a.sink.look("general"); r.belated != 1 || r.gaps > 0 {
		t.Errorf("%d belated, %d gaps; want the first alone, and none", r.belated, r.gaps)
	}
}

// A node that is not subscribed while something is put back, and has gone on meanwhile, finds it in the stream.
func TestWhatIsPutBackUnseenIsFound(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "bob", "on", ">secret", "allcommands", "allkeys", "allchannels")
	a := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
	o := options(t, server.Addr, "")
	o.Client.Username, o.Client.Password = "bob", "secret"
	b := newNode(t, 2, redis.Config{Options: o})
	b.sink.lossy = true
	b.run()
	b.live("general")
	if _, _, err := b.say("general", "1"); err != nil {
		t.Fatal(err)
	}
	server.Do("ACL", "SETUSER", "bob", "-subscribe")
	server.Do("CLIENT", "KILL", "TYPE", "pubsub", "USER", "bob")
	missed, _, err := a.say("general", "missed")
	if err != nil {
		t.Fatal(err)
	}
	server.FlushAll()
	if _, _, err := b.say("general", "3"); err != nil {
		t.Fatal(err)
	}
	until(t, "the message is back", func() bool {
		ids, _ := a.stored("general")
		_, ok := ids[missed]
		return ok
	})
	server.Do("ACL", "SETUSER", "bob", "+subscribe")
	until(t, "it is delivered", func() bool { return b.sink.look("general").known[missed] })
	if r := b.sink.look("general"); r.belated != 1 || r.gaps > 0 {
		t.Errorf("%d belated, %d gaps; want the one, and none", r.belated, r.gaps)
	}
}

func TestAHoleIsToldUnlessWhatWasThereComesBack(t *testing.T) {
	const stream, tip, channel = "rt:s:{realtime:room:general}", "rt:t:{realtime:room:general}", "realtime:room:general"
	for name, fills := range map[string]bool{"it does not": false, "it does": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			b := newNode(t, 1, redis.Config{Options: options(t, server.Addr, "")}).run()
			b.live("general")
			var envs []string
			for i := range 2 {
				if _, _, err := b.say("elsewhere", fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
			}
			m := server.Do("XRANGE", "rt:s:{realtime:room:elsewhere}", "-", "+")
			es, err := m.AsXRange()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				envs = append(envs, e.FieldValues["d"])
			}
			if _, _, err := b.say("general", "1"); err != nil {
				t.Fatal(err)
			}
			first := b.sink.look("general").last
			// Stored by a node that is no more, and lost; and what came after it.
			lost, next := first.After(time.Second), first.After(2*time.Second)
			id := func(p message.Position) string { return fmt.Sprintf("%d-%d", p.Millis(), p.Seq()) }
			reads := func() string {
				m := server.Do("INFO", "commandstats")
				text, _ := m.ToString()
				_, text, _ = strings.Cut(text, "cmdstat_xrange:")
				text, _, _ = strings.Cut(text, ",")
				return text
			}
			before := reads()
			server.Do("XADD", stream, id(next), "p", id(lost), "d", envs[1])
			server.Do("SET", tip, id(next))
			head := id(next) + "|" + id(lost) + "|1|"
			server.Do("PUBLISH", channel, head+string(binary.BigEndian.AppendUint32(nil, uint32(len(envs[1]))))+envs[1])
			want, gaps := 2, 1
			if fills {
				want, gaps = 3, 0
				until(t, "the node has seen the hole", func() bool { return reads() != before })
				server.Do("EVAL", `redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[1], ARGV[1], 'p', ARGV[2], 'd', ARGV[3])
redis.call('XADD', KEYS[1], ARGV[4], 'p', ARGV[1], 'd', ARGV[5])`, "1", stream, id(lost), id(first), envs[0], id(next), envs[1])
			}
			until(t, "the one behind it is delivered", func() bool { return len(b.sink.look("general").entries) == want })
			if r := b.sink.look("general"); r.gaps != gaps || gaps > 0 && r.why != message.GapLost || r.belated > 0 {
				t.Errorf("%d gaps, the last one %q, %d belated; want %d, %q, none", r.gaps, r.why, r.belated, gaps, message.GapLost)
			}
		})
	}
}

// cutter cuts connections off that carry messages.
type cutter struct {
	request, reply atomic.Bool // within the next one, or before what comes back
	cuts           atomic.Int64
}

func (c *cutter) dial(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, c: c}, nil
}

type cutConn struct {
	net.Conn
	c     *cutter
	reply atomic.Bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte(`{"type":"chat"`)) {
		return c.Conn.Write(b)
	}
	if c.c.request.Swap(false) {
		c.c.cuts.Add(1)
		n, _ := c.Conn.Write(b[:len(b)/2])
		_ = c.Conn.Close()
		return n, net.ErrClosed
	}
	if c.c.reply.Swap(false) {
		c.reply.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.reply.Swap(false) {
		c.c.cuts.Add(1)
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	return n, err
}

func TestABatchThatIsCutOffIsStoredOnce(t *testing.T) {
	for name, cut := range map[string]func(*cutter){
		"within the request": func(c *cutter) { c.request.Store(true) },
		"before the reply":   func(c *cutter) { c.reply.Store(true) },
	} {
		for _, n := range []int{1, 128} {
			t.Run(fmt.Sprintf("%s of %d", name, n), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				var c cutter
				o := options(t, server.Addr, "")
				o.Client.DialCtxFn = c.dial
				a := newNode(t, 1, redis.Config{Options: o}).run()
				a.live("general")
				l := &load{acked: map[message.Room][]message.Low{"general": nil}}
				const rounds = 20
				for range rounds {
					var publishers sync.WaitGroup
					cut(&c)
					for i := range n {
						publishers.Go(func() {
							low, r, err := a.say("general", fmt.Sprint(i))
							if err != nil || r.Degraded {
								t.Errorf("Publish = %+v, %v", r, err)
							}
							l.mu.Lock()
							defer l.mu.Unlock()
							l.acked["general"] = append(l.acked["general"], low)
						})
					}
					publishers.Wait()
				}
				if c.cuts.Load() != rounds {
					t.Errorf("%d connections were cut off, want %d", c.cuts.Load(), rounds)
				}
				if l.settled(t, a); len(a.sink.look("general").entries) != rounds*n {
					t.Errorf("%d were delivered of %d", len(a.sink.look("general").entries), rounds*n)
				}
			})
		}
	}
}

// What was shown while Redis was away is known when it comes back, whatever else was shown meanwhile.
func TestWhatWasShownDuringAnOutageIsNotShownAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	a := newNode(t, 1, redis.Config{Options: options(t, proxy.Listen, "")}).run()
	a.live("general")
	proxy.Stop()
	until(t, "an outage begins", func() bool {
		_, r, err := a.say("general", "1")
		return err == nil && r.Degraded
	})
	kept := a.sink.look("general").entries
	for range 1<<16 + 1000 {
		m := a.message("general", "hint")
		m.ID.Low, m.Ephemeral = a.minter.Low(m.Room.Tag(), true), true
		if _, err := a.Publish(t.Context(), broker.Publication{Message: m}); err != nil {
			t.Fatal(err)
		}
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaits("degraded ", "restored ")
	if ids, _ := a.stored("general"); len(ids) < len(kept) {
		t.Errorf("%d are stored of %d", len(ids), len(kept))
	}
	if _, _, err := a.say("general", "after"); err != nil { // comes behind their echoes
		t.Fatal(err)
	}
	until(t, "it is delivered", func() bool { return len(a.sink.look("general").entries) > len(kept) })
	if got := a.sink.look("general").entries; len(got) != len(kept)+1 {
		t.Errorf("%d were delivered, want %d and one", len(got), len(kept))
	}
}

func TestTheOutboxTakesSoManyMessagesOfARoom(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := proxied(t, server.Addr)
	a := newNode(t, 1, redis.Config{Options: options(t, proxy.Listen, ""), Retention: broker.Retention{Messages: 20_000}}).run()
	proxy.Stop()
	until(t, "an outage begins", func() bool {
		_, r, err := a.say("other", "1")
		return err == nil && r.Degraded
	})
	const most = 10_000
	for i := range most {
		if _, r, err := a.say("general", fmt.Sprint(i)); err != nil || !r.Degraded {
			t.Fatalf("message %d: %+v, %v", i, r, err)
		}
	}
	if _, _, err := a.say("general", "one more"); err == nil {
		t.Errorf("message %d is taken", most+1)
	}
	hint := a.message("general", "hint")
	hint.ID.Low, hint.Ephemeral = a.minter.Low(hint.Room.Tag(), true), true
	if _, err := a.Publish(t.Context(), broker.Publication{Message: hint}); err != nil {
		t.Errorf("what is not stored is refused: %v", err)
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaits("degraded ", "restored ")
	if ids, _ := a.stored("general"); len(ids) != most {
		t.Errorf("%d are stored, want %d", len(ids), most)
	}
}

// What nobody could put back is not vouched for, and where an entry names it, it is said to be lost.
func TestHistoryKnowsWhatWasLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := lossy(t, server.Addr, redis.Config{})
	b.live("general")
	for i := range 10 {
		if _, _, err := a.say("general", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all is delivered", func() bool { return len(b.sink.look("general").entries) == 10 })
	seen := b.sink.look("general").entries
	page := func() message.Page {
		t.Helper()
		p, err := b.History(t.Context(), message.Query{Room: "general", Backward: true})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := page(); p.Lost || p.Since > seen[0].Message.ID.Position {
		t.Errorf("before a loss: %+v", p)
	}
	m := server.Do("XRANGE", "rt:s:{realtime:room:general}", "-", "+", "COUNT", "5")
	es, err := m.AsXRange()
	if err != nil {
		t.Fatal(err)
	}
	a.stop() // and its journal is no more
	for _, e := range es {
		server.Do("XDEL", "rt:s:{realtime:room:general}", e.ID)
	}
	if p := page(); !p.Lost || len(p.Entries) != 5 {
		t.Errorf("%d entries, lost: %v; want the last five, and that what lay before them is lost", len(p.Entries), p.Lost)
	}
	server.FlushAll()
	if _, _, err := b.say("general", "after"); err != nil {
		t.Fatal(err)
	}
	if p := page(); len(p.Entries) != 1 || p.Entries[0].Prev != 0 || p.Since <= seen[9].Message.ID.Position {
		t.Errorf("%+v is vouched for; want only what lies behind what was delivered before the loss, %d", p, seen[9].Message.ID.Position)
	}
	if err := b.Delete(t.Context(), "general"); err != nil {
		t.Fatal(err)
	}
	if p := page(); p.Lost || len(p.Entries) > 0 {
		t.Errorf("after a deletion: %+v", p)
	}
}
