package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/slack5/realtime/internal/redis"
)

// Link is a node's network to the server, and the Port over it: one connection for commands, dialled again when it broke, and
// one for each Listener.
type Link struct {
	m    *Model
	rand *rand.Rand

	redialled func()
	commands  *conn // nil: to be dialled
	listeners []*listener
	slow      time.Duration // added to the way of commands, and of their answers
	late      time.Duration // added to the way of messages
	paused    bool          // nothing comes through
	held      []func()      // what came meanwhile
	lose      loss
}

// loss is what happens to the next command.
type loss uint8

const (
	nothing loss = iota
	request      // its connection breaks before it was run
	answer       // its connection breaks behind that
)

var _ redis.Port = (*Link)(nil)

// Link makes the network of one more node.
func (m *Model) Link() *Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &Link{m: m, rand: rand.New(rand.NewPCG(m.rand.Uint64(), uint64(len(m.links))))}
	m.links = append(m.links, l)
	return l
}

// conn is a connection for commands.
type conn struct {
	broken         bool
	sent, answered time.Duration // when the last request arrives, and the last answer
	waiting        []*exchange
}

// exchange is a command under way.
type exchange struct {
	done  chan error // one
	reply []string
	part  redis.StreamPart
}

// Errors of connections.
var (
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: io.ErrUnexpectedEOF}
	errDial    = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errSilent  = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
	errClosed  = errors.New("closed")
	errNotOpen = errors.New("not open")
)

const dialTimeout = time.Second

// Cut breaks the connection for commands, or those of Listeners, or both. What is on its way is lost.
func (l *Link) Cut(commands, listeners bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.cutLocked(commands, listeners)
}

func (l *Link) cutLocked(commands, listeners bool) {
	if c := l.commands; c != nil && commands {
		c.broken, l.commands = true, nil
		if l.redialled != nil {
			l.redialled()
		}
		for _, x := range c.waiting {
			x.done <- errReset
		}
		c.waiting = nil
	}
	if listeners {
		for _, s := range slices.Clone(l.listeners) {
			s.lose(errReset)
		}
	}
}

// Pause lets nothing through any more, and keeps it.
func (l *Link) Pause() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.paused = true
}

// Resume ends a Pause: what was kept comes through, or all connections break.
func (l *Link) Resume(cut bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.paused = false
	if cut {
		l.cutLocked(true, true)
	}
	for _, f := range l.held {
		l.m.later(l.m.elapsed(), f)
	}
	l.held = nil
}

// Deafen has the Listeners that are open now get no message any more, and not know it.
func (l *Link) Deafen() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	for _, s := range l.listeners {
		s.deaf = true
	}
}

// Delay adds to the way of commands and answers, and to that of messages.
func (l *Link) Delay(commands, messages time.Duration) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.slow, l.late = commands, messages
}

// Lose has the connection break under the next command: before it has run, or only its answer is lost.
func (l *Link) Lose(executed bool) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.lose = request; executed {
		l.lose = answer
	}
}

// latency is how long a packet is under way.
func (l *Link) latency() time.Duration {
	d := 30*time.Microsecond + time.Duration(l.rand.Int64N(int64(300*time.Microsecond)))
	if l.rand.IntN(16) == 0 {
		d += time.Duration(l.rand.Int64N(int64(5 * time.Millisecond)))
	}
	return d
}

// arrive has f called when a packet that is sent now arrives, behind the one before it; the lock is held.
func (l *Link) arrive(last *time.Duration, more time.Duration, f func()) {
	*last = max(*last+1, l.m.elapsed()+l.latency()+more)
	l.m.later(*last, func() { l.pass(f) })
}

// pass calls f, unless nothing comes through.
func (l *Link) pass(f func()) {
	l.m.mu.Lock()
	if l.paused {
		l.held = append(l.held, func() { l.pass(f) })
		l.m.mu.Unlock()
		return
	}
	l.m.mu.Unlock()
	f()
}

// Open implements redis.Port.
func (l *Link) Open(ctx context.Context, redialled func()) error {
	l.m.mu.Lock()
	l.redialled = func() {}
	l.m.mu.Unlock()
	err := l.do(ctx, func(*exchange) error { return nil })
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.redialled = redialled; err != nil {
		l.redialled = nil
	}
	return err
}

// do has a command run on the server, under the model's lock.
func (l *Link) do(ctx context.Context, run func(*exchange) error) error {
	_, err := l.exchange(ctx, run)
	return err
}

func (l *Link) exchange(ctx context.Context, run func(*exchange) error) (*exchange, error) {
	x := &exchange{done: make(chan error, 1)}
	l.m.mu.Lock()
	told := l.redialled
	if told == nil {
		l.m.mu.Unlock()
		return x, errNotOpen
	}
	fresh := l.commands == nil && l.reachable(x.done)
	if fresh {
		l.commands = &conn{}
	}
	if c := l.commands; c != nil {
		c.waiting = append(c.waiting, x)
		l.arrive(&c.sent, l.slow, func() { l.execute(c, x, run) })
	}
	l.m.mu.Unlock()
	if fresh {
		told()
	}
	select {
	case err := <-x.done:
		return x, err
	case <-ctx.Done(): // it is run all the same, if it arrives
		return x, ctx.Err()
	}
}

// reachable tells whether a dial succeeds; if not, done is told when that is known. The lock is held.
func (l *Link) reachable(done chan<- error) bool {
	switch {
	case l.paused:
		l.m.later(l.m.elapsed()+dialTimeout, func() { done <- errSilent })
	case l.m.down:
		l.m.later(l.m.elapsed()+l.latency(), func() { done <- errDial })
	default:
		return true
	}
	return false
}

// execute runs a command that has arrived.
func (l *Link) execute(c *conn, x *exchange, run func(*exchange) error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	lose := l.lose
	l.lose = nothing
	switch {
	case c.broken:
		return
	case lose == request:
		l.cutLocked(true, false)
		return
	}
	err := run(x)
	if lose == answer {
		l.cutLocked(true, false)
		return
	}
	l.arrive(&c.answered, l.slow, func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		if i := slices.Index(c.waiting, x); i >= 0 {
			c.waiting = slices.Delete(c.waiting, i, i+1)
			x.done <- err
		}
	})
}

// Script implements redis.Port.
func (l *Link) Script(ctx context.Context, s redis.Script, keys, args []string) ([]string, error) {
	x, err := l.exchange(ctx, func(x *exchange) (err error) {
		x.reply, err = l.m.script(s, keys, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	return x.reply, nil
}

// Values implements redis.Port.
func (l *Link) Values(ctx context.Context, keys []string) ([]string, error) {
	x, err := l.exchange(ctx, func(x *exchange) error {
		for _, key := range keys {
			s, _, _ := l.m.data.get(key, l.m.nowLocked()) // what is of another type is nothing
			x.reply = append(x.reply, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return x.reply, nil
}

// Range implements redis.Port.
func (l *Link) Range(ctx context.Context, r redis.StreamRange) (redis.StreamPart, error) {
	x, err := l.exchange(ctx, func(x *exchange) (err error) {
		d, now := l.m.data, l.m.nowLocked()
		if x.part.Cut, _, err = d.get(r.Cut, now); err != nil {
			return err
		}
		if x.part.Tip, _, err = d.get(r.Tip, now); err != nil {
			return err
		}
		es, err := d.xrange(r.Stream, r.From, r.To, r.Backward, r.Count, now)
		if v := d[r.Stream]; v != nil {
			x.part.Length = int64(len(v.entries))
		}
		for _, e := range es {
			x.part.Entries = append(x.part.Entries, redis.StreamEntry{ID: e.id.String(), Prev: e.named("p"), Env: e.named("d")})
		}
		return err
	})
	if err != nil {
		return redis.StreamPart{}, err
	}
	return x.part, nil
}

// Publish implements redis.Port.
func (l *Link) Publish(ctx context.Context, channel, text string) error {
	return l.do(ctx, func(*exchange) error {
		if l.m.mute {
			return errRefused
		}
		l.m.publish(published{channel, text})
		return nil
	})
}

// Close implements redis.Port.
func (l *Link) Close() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.redialled = nil
	l.cutLocked(true, true)
}
