package redis

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	subscribeTick  = time.Millisecond // what comes within it is one command
	subscribeBatch = 256
	tipBatch       = 250
	redialFirst    = 20 * time.Millisecond
	redialMost     = time.Second
)

// conn is a connection that holds subscriptions. Its run dials it again whenever it breaks.
type conn struct {
	b     *Broker
	probe string       // its channel for messages to itself
	up    atomic.Bool  // it holds what it should
	again atomic.Bool  // it was dialled anew, and no tip was read since
	heard atomic.Int64 // when a message came last, as a time since the start

	mu        sync.Mutex
	subs      map[string]*sub
	changed   []string // channels whose subscription differs from what is wanted
	confirmed []string // channels whose rooms' tips are to be read
	wake      chan struct{}
	attach    chan struct{}
}

// wanter is who wants a channel.
type wanter uint8

const (
	byBroker wanter = 1 << iota // for itself
	byRoom                      // it has members here
	byPresence
)

// sub is a channel.
type sub struct {
	want    wanter // all who do; 0: nobody
	await   wanter // those of them who wait for the confirmation
	fresh   bool   // to be subscribed, even if it is already: somebody waits for the confirmation
	sent    bool
	listed  bool // in changed
	pending int  // confirmations to come
}

func newConn(b *Broker, probe string) *conn {
	return &conn{b: b, probe: probe, subs: make(map[string]*sub), wake: make(chan struct{}, 1), attach: make(chan struct{}, 1)}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// want has a channel be subscribed. Who wants it is told when all that comes from now on reaches this node, though the
// others have had it for long.
func (c *conn) want(ch string, who wanter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	if s == nil {
		s = &sub{}
		c.subs[ch] = s
	}
	s.want |= who
	s.await |= who
	s.fresh = true
	c.list(ch, s)
}

// leave takes the wish back.
func (c *conn) leave(ch string, who wanter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	if s == nil {
		return
	}
	s.want &^= who
	s.await &^= who
	if s.want == 0 {
		s.fresh = false
		c.list(ch, s)
	}
}

// list has the next command see to the channel; the lock is held.
func (c *conn) list(ch string, s *sub) {
	if !s.listed {
		s.listed = true
		c.changed = append(c.changed, ch)
	}
	signal(c.wake)
}

// wanted tells whether somebody wants a channel.
func (c *conn) wanted(ch string, who wanter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	return s != nil && s.want&who != 0
}

// next returns what to subscribe and to unsubscribe now.
func (c *conn) next() (on, off []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.changed), subscribeBatch)
	for _, ch := range c.changed[:n] {
		s := c.subs[ch]
		s.listed = false
		switch {
		case s.want != 0 && s.fresh:
			s.fresh, s.sent = false, true
			s.pending++
			on = append(on, ch)
		case s.want == 0:
			if s.sent {
				off = append(off, ch)
			}
			s.sent = false
			if s.pending == 0 {
				delete(c.subs, ch)
			}
		}
	}
	if c.changed = c.changed[n:]; len(c.changed) > 0 {
		signal(c.wake)
	}
	return on, off
}

// reset prepares for a new connection, which holds nothing.
func (c *conn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed, c.confirmed = nil, nil
	for ch, s := range c.subs {
		if s.want == 0 {
			delete(c.subs, ch)
			continue
		}
		*s = sub{want: s.want, await: s.want, fresh: true, listed: true}
		c.changed = append(c.changed, ch)
	}
	slices.Sort(c.changed)
	signal(c.wake)
}

// confirm notes a confirmation.
func (c *conn) confirm(ch string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	if s == nil {
		return
	}
	if s.pending > 0 {
		s.pending--
	}
	switch {
	case s.pending > 0:
	case s.want == 0:
		if !s.listed {
			delete(c.subs, ch)
		}
	case s.sent: // and not unsubscribed since
		who := s.await
		s.await = 0
		if who&byPresence != 0 {
			c.b.presence.subscribed(ch)
		}
		if who&byRoom != 0 {
			c.confirmed = append(c.confirmed, ch)
			signal(c.attach)
		}
	}
}

// dropped notes that a subscription has ended. If nobody has asked for that it is made anew, and what has come meanwhile is
// looked for.
func (c *conn) dropped(ch string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	if s == nil || s.want == 0 {
		return
	}
	s.await = s.want
	if s.sent && s.pending == 0 {
		s.fresh, s.sent = true, false
		c.list(ch, s)
	}
}

// take takes a message that has come; it never waits.
func (c *conn) take(ch, text string) {
	c.heard.Store(int64(c.b.elapsed()))
	if payload, ok := presenceOf(text); ok && c.wanted(ch, byPresence) {
		c.b.presence.changes(ch, payload)
	}
	c.b.receive(ch, text)
}

// run holds the connection until the context ends.
func (c *conn) run(ctx context.Context) {
	for wait := redialFirst; ; wait = min(2*wait, redialMost) {
		begin := time.Now()
		c.serve(ctx)
		c.up.Store(false)
		c.again.Store(true)
		if time.Since(begin) > 5*time.Second {
			wait = redialFirst
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// pause waits; false: the context has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// serve holds one connection until it breaks, falls silent, or the context ends. No hook runs when it has returned.
func (c *conn) serve(ctx context.Context) {
	broken := make(chan error, 1)
	l, err := c.b.wire.listen(ctx, Events{
		Message:      c.take,
		Subscribed:   c.confirm,
		Unsubscribed: c.dropped,
		Trouble:      c.trouble,
		Lost:         func(err error) { broken <- err },
	})
	if err != nil {
		return
	}
	defer l.Close()
	c.reset()
	_, probed := l.(*clusterListener) // it does that for each primary by itself
	tick := time.NewTicker(c.b.cfg.ProbeAfter / 4)
	defer tick.Stop()
	var p prober
	for {
		if !c.command(ctx, l) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case err := <-broken:
			c.b.clock.forget()
			c.trouble(err)
			return
		case <-c.wake:
			if !pause(ctx, subscribeTick) {
				return
			}
		case <-tick.C:
			if !probed && !p.alive(ctx, c) {
				c.b.log.Warn("a subscription connection is silent: it is dialled again")
				return
			}
		}
	}
}

// command sends what is to be subscribed and unsubscribed; false: the connection is of no use.
func (c *conn) command(ctx context.Context, l Listener) bool {
	on, off := c.next()
	if len(on)+len(off) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, c.b.cfg.ReadTimeout)
	defer cancel()
	if len(off) > 0 {
		if err := l.Unsubscribe(ctx, off...); err != nil {
			c.trouble(err)
			return false
		}
	}
	if len(on) > 0 {
		if err := l.Subscribe(ctx, on...); err != nil {
			c.trouble(err)
			return false
		}
	}
	c.up.Store(true)
	return true
}

// trouble counts and tells what goes wrong with subscriptions. It is tried again, always.
func (c *conn) trouble(err error) {
	if _, ok := answered(err); ok {
		c.b.refused.warn(c.b.log, "redis refuses subscriptions: they are tried again", "error", err)
	} else {
		c.b.broke.warn(c.b.log, "a subscription connection broke: it is dialled again", "error", err)
	}
}

// attachAll reads the tips of rooms whose subscription is confirmed, until the context ends.
func (c *conn) attachAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.attach:
		}
		c.mu.Lock()
		n := min(len(c.confirmed), tipBatch)
		batch := c.confirmed[:n:n]
		if c.confirmed = c.confirmed[n:]; len(c.confirmed) > 0 {
			signal(c.attach)
		}
		c.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		if c.again.Swap(false) && !pause(ctx, c.b.jitter()) {
			return
		}
		if left := c.b.attach(ctx, batch); len(left) > 0 {
			c.mu.Lock()
			c.confirmed = append(c.confirmed, left...)
			signal(c.attach)
			c.mu.Unlock()
			if !pause(ctx, redialFirst) {
				return
			}
		}
	}
}

// prober tells whether a connection that brings nothing still would. It sends the connection a message over another one.
type prober struct {
	sent time.Duration // when the last one was sent that was not heard yet; 0: none
}

func (p *prober) alive(ctx context.Context, c *conn) bool {
	heard, now := time.Duration(c.heard.Load()), c.b.elapsed()
	if p.sent != 0 && heard >= p.sent {
		p.sent = 0
	}
	if p.sent != 0 {
		return now-p.sent < c.b.cfg.ProbeAfter
	}
	// A probe that could not be sent proves nothing.
	if now-heard >= c.b.cfg.ProbeAfter && c.b.wire.publish(ctx, c.probe, "probe") == nil {
		p.sent = now
	}
	return true
}

// holds tells whether a channel is subscribed.
func (c *conn) holds(ch string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[ch]
	return s != nil && s.sent && s.pending == 0
}
