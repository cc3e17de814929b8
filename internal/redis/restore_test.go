package redis

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// streamed is a room of a server, as restore.lua sees it.
type streamed struct {
	t      *testing.T
	server *redistest.Server
	client rueidis.Client
	ch     string
}

// kept is an entry of a stream or a journal: at n ms, behind another or none, of a message.
type kept struct {
	at, prev int
	text     string
}

const streamBegin = 1_700_000_000_000

func at(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d-0", streamBegin+n)
}

// envelope is one of which the script knows no more than the identity, which a text gives.
func envelope(text string) string {
	low := binary.BigEndian.AppendUint64(nil, uint64(spread(text)))
	return string(low) + strings.Repeat("\x00", envHead-8) + text
}

func newStreamed(t *testing.T, server *redistest.Server, name string) *streamed {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &streamed{t: t, server: server, client: c, ch: keys("").channel("") + name}
}

func (s *streamed) keys() []string {
	return []string{keys("").stream(s.ch), keys("").tip(s.ch), keys("").cut(s.ch)}
}

// have stores entries as publish.lua does.
func (s *streamed) have(es ...kept) {
	s.t.Helper()
	for _, e := range es {
		s.server.Do("XADD", s.keys()[0], at(e.at), "p", at(e.prev), "d", envelope(e.text))
		s.server.Do("SET", s.keys()[1], at(e.at))
	}
}

// lose has the server be as if it had never had the entries behind n.
func (s *streamed) lose(n int, es []kept) {
	s.t.Helper()
	s.server.Do("DEL", s.keys()[0], s.keys()[1])
	s.have(es[:n]...)
}

// restore runs the script.
func (s *streamed) restore(suffix int, es ...kept) []string {
	s.t.Helper()
	args := []string{s.ch, "PUBLISH", "100", "200", fmt.Sprint(suffix)}
	for _, e := range es {
		args = append(args, at(e.at), at(e.prev), envelope(e.text))
	}
	reply, err := scripts[ScriptRestore].Exec(s.t.Context(), s.client, s.keys(), args).AsStrSlice()
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

// has returns the stream; entries that are not ours have no text.
func (s *streamed) has() (es []kept) {
	s.t.Helper()
	m := s.server.Do("XRANGE", s.keys()[0], "-", "+")
	xs, err := m.AsXRange()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, x := range xs {
		var e kept
		if _, err := fmt.Sscanf(x.ID, "%d-", &e.at); err != nil {
			s.t.Fatal(err)
		}
		e.at -= streamBegin
		if p := x.FieldValues["p"]; p != "" {
			if _, err := fmt.Sscanf(p, "%d-", &e.prev); err != nil {
				s.t.Fatal(err)
			}
			e.prev -= streamBegin
		}
		if env := x.FieldValues["d"]; len(env) > envHead {
			e.text = env[envHead:]
		}
		es = append(es, e)
	}
	return es
}

func (s *streamed) tip() string {
	s.t.Helper()
	m := s.server.Do("GET", s.keys()[1])
	tip, _ := m.ToString()
	return tip
}

// listen returns what is published on the room's channel while f runs.
func (s *streamed) listen(f func()) (frames []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	c, release := s.client.Dedicate()
	defer release()
	got := make(chan string, 1024)
	broken := c.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(m rueidis.PubSubMessage) { got <- m.Message }})
	defer func() {
		c.Close()
		for range broken { // it is closed with the connection
		}
	}()
	if err := c.Do(ctx, c.B().Subscribe().Channel(s.ch).Build()).Error(); err != nil {
		s.t.Fatal(err)
	}
	f()
	s.server.Do("PUBLISH", s.ch, "end")
	for {
		select {
		case text := <-got:
			if text == "end" {
				return frames
			}
			frames = append(frames, text)
		case <-ctx.Done():
			s.t.Fatal("the channel is silent")
		}
	}
}

func (s *streamed) want(what string, want []kept, tip int) {
	s.t.Helper()
	if got := s.has(); !slices.Equal(got, want) {
		s.t.Errorf("%s: the stream has %v, want %v", what, got, want)
	}
	if got := s.tip(); got != at(tip) {
		s.t.Errorf("%s: the tip is %q, want %q", what, got, at(tip))
	}
}

// chain is n entries, each 10 ms behind the one before it.
func chain(n int) (es []kept) {
	for i := 1; i <= n; i++ {
		es = append(es, kept{10 * i, 10 * (i - 1), fmt.Sprint(i)})
	}
	return es
}

func TestWhatIsPutBackHasItsOldPlace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	t.Run("before newer ones", func(t *testing.T) {
		s := newStreamed(t, server, "before")
		es := chain(10)
		newer := []kept{{200, 40, "n1"}, {210, 200, "n2"}, {220, 210, "n3"}}
		s.lose(4, es)
		s.have(newer...)
		want := slices.Concat(es, []kept{{200, 100, "n1"}}, newer[1:])
		frames := s.listen(func() {
			if got := s.restore(500, es[4:]...); !slices.Equal(got, []string{"6"}) {
				t.Errorf("reply %q, want that 6 are back", got)
			}
			s.want("after it", want, 220)
			if got := s.restore(500, es[4:]...); !slices.Equal(got, []string{"0"}) {
				t.Errorf("again: reply %q, want none", got)
			}
		})
		s.want("again", want, 220)
		if len(frames) != 6 {
			t.Fatalf("%d frames, want one per entry", len(frames))
		}
		for i, f := range frames {
			if want := at(es[4+i].at) + "|R|1|"; !strings.HasPrefix(f, want) || !isRestored(f) || !strings.HasSuffix(f, envelope(es[4+i].text)) {
				t.Errorf("frame %d is %q, want %q and the envelope", i, f, want)
			}
		}
		server.Do("XADD", s.keys()[0], at(230), "p", at(220), "d", envelope("n4")) // the stream goes on
	})
	t.Run("from two journals", func(t *testing.T) {
		for _, order := range [][]int{{0, 1}, {1, 0}} {
			s := newStreamed(t, server, fmt.Sprint("two", order))
			es := chain(20)
			var of [2][]kept
			for i, e := range es[6:] {
				of[i%2] = append(of[i%2], e)
			}
			s.lose(6, es)
			for _, i := range order {
				if got := s.restore(500, of[i]...); !slices.Equal(got, []string{"7"}) {
					t.Errorf("order %v: reply %q, want that 7 are back", order, got)
				}
			}
			s.want(fmt.Sprint("order ", order), es, 200)
		}
	})
	t.Run("when everything was lost", func(t *testing.T) {
		s := newStreamed(t, server, "all")
		es := chain(10)
		if got := s.restore(500, es[5:]...); !slices.Equal(got, []string{"5"}) {
			t.Errorf("reply %q, want that 5 are back", got)
		}
		s.want("the first still names what was before it", es[5:], 100)
		for i, key := range s.keys()[:2] {
			m := server.Do("TTL", key)
			if ttl, err := m.AsInt64(); err != nil || ttl < 1 || ttl > int64(100+100*i) {
				t.Errorf("%s lives %d s, %v", key, ttl, err)
			}
		}
	})
	t.Run("where the stream must be rewritten", func(t *testing.T) {
		other := redistest.Start(t)
		s := newStreamed(t, other, "rewritten")
		es := chain(12)
		s.lose(4, es)
		s.have(es[8:]...)
		other.Do("ACL", "SETUSER", "default", "-xsetid") // newer servers refuse it by themselves
		if got := s.restore(500, es[4:8]...); !slices.Equal(got, []string{"4"}) {
			t.Errorf("reply %q, want that 4 are back", got)
		}
		s.want("rewritten", es, 120)
	})
}

func TestWhatCannotBePutBackIsSaid(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	t.Run("its place is taken", func(t *testing.T) {
		s := newStreamed(t, server, "taken")
		es := chain(6)
		s.lose(3, es)
		s.have(kept{50, 30, "other"})
		if got := s.restore(500, es[3:]...); !slices.Equal(got, []string{"2", "1"}) {
			t.Errorf("reply %q, want that 2 are back and entry 1 is not", got)
		}
		s.want("taken", []kept{es[0], es[1], es[2], es[3], {50, 40, "other"}, es[5]}, 60)
	})
	t.Run("too much lies behind it", func(t *testing.T) {
		s := newStreamed(t, server, "long")
		es := chain(9)
		s.lose(0, es)
		s.have(es[1:]...)
		if got := s.restore(7, es[0]); !slices.Equal(got, []string{"-1"}) {
			t.Errorf("reply %q, want -1", got)
		}
		s.want("untouched", es[1:], 90)
		if got := s.restore(8, es[0]); !slices.Equal(got, []string{"1"}) {
			t.Errorf("reply %q, want that it is back", got)
		}
		s.want("back", es, 90)
	})
	t.Run("it was deleted", func(t *testing.T) {
		s := newStreamed(t, server, "deleted")
		es := chain(6)
		s.have(es[:5]...)
		if _, err := scripts[ScriptDelete].Exec(t.Context(), s.client, s.keys(), []string{s.ch, "PUBLISH", "200"}).ToAny(); err != nil {
			t.Fatal(err)
		}
		if got := s.restore(500, es...); !slices.Equal(got, []string{"1"}) {
			t.Errorf("reply %q, want that the one behind the deletion is back", got)
		}
		s.want("deleted", es[5:], 60)
	})
	t.Run("junk lies behind it", func(t *testing.T) {
		s := newStreamed(t, server, "junk")
		es := chain(4)
		s.lose(1, es)
		server.Do("XADD", s.keys()[0], at(25), "other", "shape")
		s.have(es[3])
		if got := s.restore(500, es[1], es[2]); !slices.Equal(got, []string{"2"}) {
			t.Errorf("reply %q, want that 2 are back", got)
		}
		s.want("without it", es, 40)
	})
}

// none: of no room anything is kept.
func none(message.Room) bool { return false }

func TestTheJournalKeepsAWindow(t *testing.T) {
	t.Parallel()
	j := journal{rooms: make(map[message.Room][]*written)}
	entry := func(n int, at time.Duration) *written {
		return &written{room: "general", pos: message.Position(n), env: envelope(fmt.Sprint(n)), at: at}
	}
	for i := range 40 {
		j.add([]*written{entry(i+1, time.Duration(i)*time.Second)}, time.Duration(i)*time.Second, i > 30)
	}
	if ws := j.of("general"); len(ws) != 25 || ws[0].pos != 16 || j.newest("general") != 40 {
		t.Errorf("%d entries from %d to %d, want what was kept since 15 s before the outage", len(ws), ws[0].pos, j.newest("general"))
	}
	j.cut("general", 20)
	j.expire(39*time.Second, func(name message.Room) bool { return name == "general" })
	if ws := j.of("general"); len(ws) != 20 {
		t.Errorf("%d entries, want all, as the room's part of redis is away", len(ws))
	}
	j.expire(39*time.Second, none)
	if ws := j.of("general"); len(ws) != 16 || ws[0].pos != 25 || j.dropped != 0 {
		t.Errorf("%d entries from %d, %d dropped; want the last 15 s", len(ws), ws[0].pos, j.dropped)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range journalEntries / 2 {
				j.add([]*written{entry(100+i, 40*time.Second)}, 40*time.Second, true)
			}
		})
	}
	wg.Wait()
	if j.n != journalEntries || j.dropped != 16 || len(j.order) != j.n {
		t.Errorf("%d entries, %d dropped; want %d and 16", j.n, j.dropped, journalEntries)
	}
	big := &written{room: "big", pos: 1, env: envelope(strings.Repeat("x", journalBytes-writtenCost-envHead)), at: 40 * time.Second}
	j.add([]*written{big}, 40*time.Second, true)
	if j.n != 1 || len(j.names()) != 1 || j.bytes > journalBytes {
		t.Errorf("%d entries of %d bytes in rooms %q, want the last one alone", j.n, j.bytes, j.names())
	}
	j.expire(time.Minute, none)
	if j.n != 0 || j.bytes != 0 || len(j.order) != 0 || len(j.rooms) != 0 {
		t.Errorf("%d entries of %d bytes are left", j.n, j.bytes)
	}
}
