package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
)

// scripted is a Redis that does what a test says: rooms have the tips and entries it sets, and nothing is stored.
type scripted struct {
	latency time.Duration // of reading a stream

	mu      sync.Mutex
	opens   int
	away    bool
	version int // of the revocations
	tips    map[string]string
	entries map[string][]redis.StreamEntry // by key
	lines   []*line
	listens int
	reading int // streams, now
	most    int // streams that were read at once
	reads   int
	ended   []string // leases
}

// line is one of its connections for subscriptions.
type line struct {
	p    *scripted
	on   redis.Events
	has  map[string]bool
	lost bool
}

var errLineCut = errors.New("cut")

func newScripted() *scripted {
	return &scripted{tips: make(map[string]string), entries: make(map[string][]redis.StreamEntry)}
}

func (p *scripted) Open(context.Context, func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opens++
	return p.gone()
}

func (p *scripted) gone() error {
	if p.away {
		return errLineCut
	}
	return nil
}

func (p *scripted) Script(_ context.Context, s redis.Script, _, args []string) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s {
	case redis.ScriptLease:
		now := time.Now().UnixMilli()
		return []string{"0", strconv.FormatInt(now, 10), "1", strconv.Itoa(p.version), args[0], strconv.FormatInt(now+6000, 10)}, p.gone()
	case redis.ScriptLeaseEnd:
		p.ended = append(p.ended, args[0])
		return []string{"1"}, p.gone()
	}
	return nil, redis.ServerError("ERR not scripted")
}

func (p *scripted) Values(_ context.Context, keys []string) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	values := make([]string, len(keys))
	for i, k := range keys {
		values[i] = p.tips[k]
	}
	return values, p.gone()
}

func (p *scripted) Range(ctx context.Context, r redis.StreamRange) (redis.StreamPart, error) {
	p.mu.Lock()
	p.reading++
	p.reads++
	p.most = max(p.most, p.reading)
	p.mu.Unlock()
	t := time.NewTimer(p.latency)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading--
	part := redis.StreamPart{Tip: p.tips[r.Tip], Length: int64(len(p.entries[r.Stream]))}
	for _, e := range p.entries[r.Stream] {
		if r.From == "-" || "("+e.ID > r.From {
			part.Entries = append(part.Entries, e)
		}
	}
	return part, p.gone()
}

func (p *scripted) Publish(_ context.Context, ch, text string) error {
	p.bring(ch, text)
	return nil
}

func (p *scripted) Listen(_ context.Context, on redis.Events) (redis.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &line{p: p, on: on, has: make(map[string]bool)}
	p.lines = append(p.lines, l)
	p.listens++
	return l, p.gone()
}

func (p *scripted) Close() {}

// all are its lines that hold a channel.
func (p *scripted) all(ch string) (lines []*line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if l.has[ch] && !l.lost {
			lines = append(lines, l)
		}
	}
	return lines
}

// bring has a channel bring a text.
func (p *scripted) bring(ch, text string) {
	for _, l := range p.all(ch) {
		l.on.Message(ch, text)
	}
}

// drop ends subscriptions of a channel as a server does that has lost its slot.
func (p *scripted) drop(ch string) {
	for _, l := range p.all(ch) {
		p.mu.Lock()
		delete(l.has, ch)
		p.mu.Unlock()
		l.on.Unsubscribed(ch)
	}
}

// cut breaks all lines.
func (p *scripted) cut() {
	p.mu.Lock()
	lines := slices.Clone(p.lines)
	p.mu.Unlock()
	for _, l := range lines {
		l.end(errLineCut)
	}
}

func (l *line) end(err error) {
	l.p.mu.Lock()
	first := !l.lost
	l.lost = true
	l.p.mu.Unlock()
	if first {
		l.on.Lost(err)
	}
}

func (l *line) Subscribe(_ context.Context, channels ...string) error {
	for _, ch := range channels {
		l.p.mu.Lock()
		l.has[ch] = true
		l.p.mu.Unlock()
		l.on.Subscribed(ch)
	}
	return nil
}

func (l *line) Unsubscribe(_ context.Context, channels ...string) error {
	for _, ch := range channels {
		l.p.mu.Lock()
		delete(l.has, ch)
		l.p.mu.Unlock()
		l.on.Unsubscribed(ch)
	}
	return nil
}

func (l *line) Close() { l.end(errors.New("closed")) }

// put stores a message in a room without telling of it.
func (p *scripted) put(n *node, room message.Room, at, prev string) message.Low {
	m := n.message(room, at)
	env := fmt.Appendf(nil, "%s\x00%s%s", low(m.ID.Low), low(message.Low(m.Timestamp)), `{"type":"chat","data":1}`)
	p.mu.Lock()
	defer p.mu.Unlock()
	key := "{realtime:room:" + string(room) + "}"
	p.tips["rt:t:"+key] = at
	p.entries["rt:s:"+key] = append(p.entries["rt:s:"+key], redis.StreamEntry{ID: at, Prev: prev, Env: string(env)})
	return m.ID.Low
}

func low(l message.Low) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(l >> (56 - 8*i))
	}
	return b
}

// inBubble runs a node over a scripted Redis, in a bubble, in which time passes only when all wait.
func inBubble(t *testing.T, f func(t *testing.T, p *scripted, n *node), cfg redis.Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newScripted()
		cfg.Port = p
		n := newNode(t, 1, cfg).run()
		f(t, p, n)
		n.stop()
		if len(p.ended) != 1 {
			t.Errorf("the leases %q were given up, want the node's, once", p.ended)
		}
	})
}

func TestASubscriptionThatRedisEndsIsMadeAnewAndWhatWasMissedIsRead(t *testing.T) {
	for name, end := range map[string]func(p *scripted){
		"unsubscribed": func(p *scripted) { p.drop("realtime:room:general") },
		"broken":       (*scripted).cut,
		"silent": func(p *scripted) { // the connection stands, but nothing comes
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, l := range p.lines {
				clear(l.has)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *scripted, n *node) {
				n.live("general")
				end(p)
				missed := p.put(n, "general", "1764000000000-0", "")
				time.Sleep(time.Minute)
				if r := n.sink.look("general"); !r.known[missed] || r.lives != 1 || r.gaps > 0 {
					t.Errorf("the missed message was delivered: %v; live %d times, %d gaps", r.known[missed], r.lives, r.gaps)
				}
				if lines := p.all("realtime:room:general"); len(lines) != 1 {
					t.Errorf("%d connections hold the room, want 1", len(lines))
				}
			}, redis.Config{})
		})
	}
}

func TestANodeLearnsOfRevocationsWithinTwoSeconds(t *testing.T) {
	told := make(chan uint64, 8)
	inBubble(t, func(t *testing.T, p *scripted, _ *node) {
		time.Sleep(time.Minute)
		if len(told) != 0 {
			t.Errorf("version %d is told, though nothing was revoked", <-told)
		}
		for version := range 3 {
			p.mu.Lock()
			p.version = version + 1
			p.mu.Unlock()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if len(told) != 1 || <-told != uint64(version+1) {
				t.Errorf("version %d was not told once within two seconds", version+1)
			}
		}
	}, redis.Config{Revoked: func(version uint64) { told <- version }})
}

func TestSomeHundredRoomsHealAtOnceAndNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, p *scripted, n *node) {
		p.mu.Lock()
		p.latency = 100 * time.Millisecond
		p.mu.Unlock()
		rooms := roomNames(1000)
		n.live(rooms...)
		for _, room := range rooms {
			p.put(n, room, "1764000000000-0", "")
		}
		p.cut()
		time.Sleep(5 * time.Second)
		for _, room := range rooms {
			if r := n.sink.look(room); len(r.entries) != 1 {
				t.Fatalf("room %q has %d entries, want what was missed", room, len(r.entries))
			}
		}
		if p.most > 256 || p.most < 100 || p.reads > 2*len(rooms) {
			t.Errorf("%d streams were read at once, in all %d times; want at most 256 at once, each about once", p.most, p.reads)
		}
	}, redis.Config{})
}

func TestARedisThatComesLateIsFoundInABubbleToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScripted()
		p.away = true
		n := newNode(t, 1, redis.Config{Port: p}).run()
		n.awaits("degraded ")
		p.mu.Lock()
		p.away = false
		p.mu.Unlock()
		n.awaits("degraded ", "restored ")
		n.live("general")
		if _, err := n.Rooms(t.Context(), "", "", 10); err == nil {
			t.Error("rooms are listed by what knows of no list")
		}
		n.stop()
	})
}
