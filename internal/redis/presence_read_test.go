package redis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// TestReadersOfALargeRoomUnderChurnCostRedisLittle: 500 changes a second in a room of a thousand users that is read without
// pause. What Redis sends is bound by how often a room is read at most, not by how often it is asked for.
func TestReadersOfALargeRoomUnderChurnCostRedisLittle(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick("b")
	cfg.Refetch = 250 * time.Millisecond
	a, b := runPeer(t, s, quick("a")), runPeer(t, s, cfg)
	const users, changes = 1000, 1000
	for i := range users {
		a.has(lobby, fmt.Sprintf("user-%04d", i), true)
	}
	a.Follow("other") // somebody is subscribed, but not to the room
	b.until("all are there", 10*time.Second, func() bool {
		fields, err := b.Read(t.Context(), lobby)
		return err == nil && len(fields) == users
	})
	before, began := s.Info("total_net_output_bytes"), time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	reads := 0
	for i := range changes {
		<-tick.C
		a.has(lobby, fmt.Sprintf("user-%04d", i/2%users), i%2 == 1)
		for range 5 {
			if _, err := b.Read(t.Context(), lobby); err != nil {
				t.Fatal(err)
			}
			reads++
		}
	}
	refetches := int64(time.Since(began)/cfg.Refetch) + 2
	sent := s.Info("total_net_output_bytes") - before
	// A thousand fields of some 50 bytes each; replies to writes and beats are small.
	if limit := refetches*users*80 + changes*600; sent > limit {
		t.Errorf("%d reads under %d changes had redis send %d bytes, at most %d are allowed", reads, changes, sent, limit)
	}
	b.until("it reads what is so", 5*time.Second, func() bool {
		fields, err := b.Read(t.Context(), lobby)
		return err == nil && len(fields) == users
	})
}

// TestAQuietRoomIsReadOnce: what has not changed is not asked for again, and what has is read anew.
func TestAQuietRoomIsReadOnce(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick("b")
	cfg.Refetch = time.Nanosecond // only what redis tells of counts
	a, b := runPeer(t, s, quick("a")), runPeer(t, s, cfg)
	a.has(lobby, "u", true)
	read := func(users int) {
		t.Helper()
		b.until(fmt.Sprintf("it reads %d users", users), 5*time.Second, func() bool {
			fields, err := b.Read(t.Context(), lobby)
			return err == nil && len(fields) == users
		})
	}
	read(1)
	calls := func() int { return commands(t, s, "hgetall") }
	before := calls()
	for range 1000 {
		if _, err := b.Read(t.Context(), lobby); err != nil {
			t.Fatal(err)
		}
	}
	if n := calls() - before; n > 0 {
		t.Errorf("a thousand reads of a room that did not change asked redis %d times", n)
	}
	a.has(lobby, "v", true)
	read(2)
	s.KillConns("normal")
	a.has(lobby, "w", true)
	read(3)
}

// commands is how often the server has executed a command.
func commands(t *testing.T, s *redistest.Server, name string) (n int) {
	t.Helper()
	m := s.Do("INFO", "commandstats")
	text, err := m.ToString()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if _, err := fmt.Sscanf(line, "cmdstat_"+name+":calls=%d", &n); err == nil {
			return n
		}
	}
	return 0
}

func TestAServerThatRefusesTrackingIsAskedEachTime(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Do("ACL", "SETUSER", "default", "-client|tracking", "-client|caching")
	a, b := peers(t, s)
	b.Follow(lobby)
	for i := range 5 {
		a.has(lobby, fmt.Sprint("u", i), true)
		b.sees(lobby, 5*time.Second, a)
	}
}

func TestAVeryLargeRoomIsReadInPages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick("b")
	cfg.MaxRoom = 100
	a, b := runPeer(t, s, quick("a")), runPeer(t, s, cfg)
	for i := range 3000 {
		a.has(message.Global, fmt.Sprint("u", i), true)
	}
	b.until("it reads all", 15*time.Second, func() bool {
		fields, err := b.Read(t.Context(), message.Global)
		return err == nil && len(fields) == 3000
	})
	if n := commands(t, s, "hscan"); n == 0 {
		t.Error("it was not read in pages")
	}
	a.has(message.Global, "u7", false)
	b.until("it reads what has changed", 5*time.Second, func() bool {
		fields, err := b.Read(t.Context(), message.Global)
		return err == nil && len(fields) == 2999
	})
}

func TestWhatADeadNodeLeftBehindIsCleanedUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	_, b := peers(t, s)
	for _, key := range []string{"rt:p:{realtime:room:lobby}", "rt:p:{realtime:room:followed}"} {
		s.Do("HSET", key, "dead:u", "2,1,1,1,1", "a:u", "2,1,1,1,1")
	}
	s.Do("HSET", "rt:pc:{realtime:room:lobby}", "dead", "1,0,1", "a", "1,0,1")
	s.Do("HSET", "rt:u:{realtime:user:u}", "dead", "2,1,1,1,1", "a", "2,1,1,1,1")
	b.Follow("followed")
	fields, err := b.Read(t.Context(), lobby)
	if err != nil || len(fields) != 1 || fields[0].Node != "a" {
		t.Errorf("Read = %v, %v, want the one of the node that lives", fields, err)
	}
	if sums, err := b.Count(t.Context(), []message.Room{lobby}); err != nil || sums[0] != (presence.Totals{Online: 1, Sessions: 1}) {
		t.Errorf("Count = %v, %v", sums, err)
	}
	if seen, err := b.Users(t.Context(), []string{"u"}); err != nil || seen[0].Sessions != 1 {
		t.Errorf("Users = %v, %v", seen, err)
	}
	for _, key := range []string{"rt:p:{realtime:room:lobby}", "rt:p:{realtime:room:followed}", "rt:pc:{realtime:room:lobby}", "rt:u:{realtime:user:u}"} {
		b.until("only the living are left in "+key, 10*time.Second, func() bool {
			m := s.Do("HLEN", key)
			n, err := m.AsInt64()
			return err == nil && n == 1
		})
	}
}

func TestWhatIsPutLivesOnAsLongAsItsNode(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick("a")
	cfg.TTL = 3 * time.Second
	a := runPeer(t, s, cfg)
	a.has(lobby, "u", true)
	a.has(message.Global, "u", true)
	for _, key := range []string{"rt:p:{realtime:room:lobby}", "rt:pc:{realtime:room:lobby}", "rt:u:{realtime:user:u}", "rt:p:{realtime:global}", "rt:rooms:a"} {
		last, risen := int64(0), false
		a.until("the life of "+key+" is made longer", 10*time.Second, func() bool {
			m := s.Do("PTTL", key)
			ttl, err := m.AsInt64()
			if err != nil || ttl > 3000 {
				t.Fatalf("PTTL %s = %d, %v", key, ttl, err)
			}
			risen = risen || last > 0 && ttl > last
			last = ttl
			return risen
		})
	}
}

func TestWhatIsPutRightBeforeLeavingIsKnown(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick("a")
	cfg.Grace = time.Minute
	a, b := runPeer(t, s, cfg), runPeer(t, s, quick("b"))
	for i := range 2000 {
		a.has(lobby, fmt.Sprint("u", i), true)
	}
	a.Leave()
	a.stop()
	b.Follow(lobby)
	b.sees(lobby, 5*time.Second, a)
}

func TestFramesThatComeTooFastAreMadeGood(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := peers(t, s)
	b.Follow(lobby)
	b.sees(lobby, 5*time.Second, a)
	b.mu.Lock() // its Sink stands still
	for i := range 300 {
		a.has(lobby, fmt.Sprint("u", i), true)
	}
	for deadline := time.Now().Add(10 * time.Second); b.Stats().Dropped == 0; flood(t, s, "realtime:room:lobby", 1000) {
		if time.Now().After(deadline) {
			b.mu.Unlock()
			t.Fatal("no frame was dropped")
		}
	}
	a.has(lobby, "last", true)
	b.mu.Unlock()
	b.sees(lobby, 10*time.Second, a)
}

// flood publishes frames of presence that change nothing.
func flood(t *testing.T, s *redistest.Server, ch string, n int) {
	t.Helper()
	const frame = "||1|\x00\x00\x00\x0012345678\x0c12345678\x01a"
	s.Do("EVAL", "for i = 1, ARGV[2] do redis.call('PUBLISH', ARGV[1], ARGV[3]) end", "0", ch, fmt.Sprint(n), frame)
}
