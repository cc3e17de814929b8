package redis

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// liveNodes is which other nodes live, as far as this one knows.
type liveNodes struct {
	mu     sync.Mutex
	away   bool // Redis is
	warned bool // it has been said that Redis is away
	asked  bool // some beat has succeeded
	live   map[string]bool
	heard  map[string]time.Time // lives as what came from it shows, but no beat has told yet
	dead   map[string]bool      // asked for since the last beat: not there
	gone   []string             // to be told to the Sink
	frozen time.Time            // until then nobody is taken for dead; zero: not frozen
	steady time.Time            // until then nothing is cleaned up
	again  bool                 // the Sink is to put all anew
	thawed bool                 // all that is followed is to be read anew
}

func (n *liveNodes) init() {
	n.away = true
	n.live, n.heard, n.dead = make(map[string]bool), make(map[string]time.Time), make(map[string]bool)
}

// unreachable notes that a beat failed.
func (p *Presence) unreachable(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // it is this node that ends
	}
	n := &p.nodes
	n.mu.Lock()
	fresh := !n.away || !n.warned
	n.away, n.warned = true, true
	n.mu.Unlock()
	if fresh {
		p.stats.outages.Add(1)
		p.log.Warn("redis is away: who is on other nodes stays as it was last known", "error", err)
	}
	signal(p.news) // what is followed from now on gets what is known
}

// learn takes what a beat has brought, and returns when the next is due. cut: the connection was lost meanwhile, or Redis
// emptied.
func (p *Presence) learn(b sign, cut bool) time.Duration {
	defer p.beating.Store(false)
	next := p.bus.cfg.Beat
	if p.conn.Load() == nil { // it is being dialled; if that fails, that tells so
		return next
	}
	defer signal(p.beaten)
	n, now := &p.nodes, time.Now()

	n.mu.Lock()
	first, back := !n.asked, n.away && n.asked
	n.away, n.asked = false, true
	if back || b.lapsed {
		// The others come back one by one, and what they wrote may be lost.
		n.frozen, n.steady = now.Add(p.bus.cfg.Lease), now.Add(3*p.bus.cfg.Lease)
	}
	n.again = n.again || b.lapsed || !first && (back || cut)
	live := make(map[string]bool, len(b.live))
	for name, ends := range b.live {
		inc := strings.TrimSuffix(name, draining)
		if inc == p.inc {
			continue
		}
		live[inc] = true
		// Whose lease ends before the next beat is looked at when it has ended.
		next = min(next, time.Duration(ends-b.now)*time.Millisecond+5*time.Millisecond)
	}
	switch {
	case n.frozen.IsZero():
	case now.Before(n.frozen):
		for inc := range n.live {
			live[inc] = true
		}
		next = min(next, n.frozen.Sub(now)+time.Millisecond)
	default:
		n.frozen, n.thawed = time.Time{}, true
	}
	for inc, at := range n.heard {
		if live[inc] || now.Sub(at) >= p.bus.cfg.Lease {
			delete(n.heard, inc)
		} else {
			live[inc] = true
		}
	}
	for inc := range n.live {
		if !live[inc] {
			n.gone = append(n.gone, inc)
		}
	}
	slices.Sort(n.gone)
	n.live = live
	clear(n.dead)
	n.mu.Unlock()

	if back {
		p.log.Info("redis is back")
	}
	signal(p.news)
	signal(p.flush)
	return max(next, 10*time.Millisecond)
}

// hear notes that a node lives from which something has come.
func (n *liveNodes) hear(inc string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.live[inc] {
		n.live[inc], n.heard[inc] = true, time.Now()
	}
}

// alive returns those of the nodes that live. Of those it does not know it asks Redis, once a beat.
func (p *Presence) alive(ctx context.Context, incs map[string]bool) (map[string]bool, error) {
	n := &p.nodes
	alive, unknown := make(map[string]bool, len(incs)), []string(nil)
	n.mu.Lock()
	for inc := range incs {
		switch {
		case n.live[inc]:
			alive[inc] = true
		case !n.dead[inc]:
			unknown = append(unknown, inc)
		}
	}
	n.mu.Unlock()
	if len(unknown) == 0 {
		return alive, nil
	}
	ends, err := p.leases(ctx, unknown)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, inc := range unknown {
		if n.live[inc] || ends[inc] > 0 {
			alive[inc] = true
			if !n.live[inc] {
				n.live[inc], n.heard[inc] = true, time.Now()
			}
			continue
		}
		if len(n.dead) < 10_000 {
			n.dead[inc] = true
		}
	}
	return alive, nil
}

// leases returns for each node how long its lease still lasts, in ms; those that no lease is remembered of are missing.
func (p *Presence) leases(ctx context.Context, incs []string) (map[string]int64, error) {
	c := p.conn.Load()
	if c == nil {
		return nil, errPresenceAway
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.CallTimeout)
	defer cancel()
	names := make([]string, 0, 2*len(incs))
	for _, inc := range incs {
		names = append(names, inc, inc+draining)
	}
	scores, err := c.command.Do(ctx, c.command.B().Zmscore().Key(p.keys.shared("nodes")).Member(names...).Build()).ToArray()
	if err != nil {
		return nil, err
	}
	now := p.bus.clock.millis()
	left := make(map[string]int64)
	for i, m := range scores {
		if f, err := m.AsFloat64(); err == nil {
			inc := incs[i/2]
			if l, ok := left[inc]; !ok || int64(f)-now > l {
				left[inc] = int64(f) - now
			}
		}
	}
	return left, nil
}

// isLive tells whether a node lives.
func (n *liveNodes) isLive(inc string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live[inc]
}

// isFrozen tells whether others may still have to put anew what Redis has lost.
func (n *liveNodes) isFrozen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.frozen.IsZero()
}

// garbage is what dead nodes have left behind, as readers have seen it.
type garbage struct {
	mu     sync.Mutex
	fields map[string]map[string]string // key → field → node
	n      int
}

// maxGarbage is how many fields are remembered; others are seen again.
const maxGarbage = 10_000

func (g *garbage) add(key, field, inc string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n >= maxGarbage {
		return
	}
	if g.fields == nil {
		g.fields = make(map[string]map[string]string)
	}
	if g.fields[key] == nil {
		g.fields[key] = make(map[string]string)
	}
	if _, ok := g.fields[key][field]; !ok {
		g.fields[key][field] = inc
		g.n++
	}
}

func (g *garbage) take() map[string]map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	fields := g.fields
	g.fields, g.n = nil, 0
	return fields
}

// reaper reaps behind each beat.
func (p *Presence) reaper(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.beaten:
			p.reap(ctx)
		}
	}
}

// reap deletes garbage of nodes that not even an expired lease is left of: such a node would put all anew.
func (p *Presence) reap(ctx context.Context) {
	const most = 2000 // keys a beat: a thousand a second
	p.nodes.mu.Lock()
	wait := p.nodes.away || time.Now().Before(p.nodes.steady)
	p.nodes.mu.Unlock()
	if wait {
		return
	}
	waste := p.waste.take()
	if len(waste) == 0 {
		return
	}
	incs := make(map[string]bool)
	for _, fields := range waste {
		for _, inc := range fields {
			incs[inc] = true
		}
	}
	names := make([]string, 0, len(incs))
	for inc := range incs {
		names = append(names, inc)
	}
	left, err := p.leases(ctx, names)
	if err != nil {
		return // it will be seen again
	}
	c := p.conn.Load().command
	var cmds []rueidis.Completed
	for key, fields := range waste {
		var dead []string
		for field, inc := range fields {
			if _, known := left[inc]; !known {
				dead = append(dead, field)
			}
		}
		if len(dead) > 0 && len(cmds) < most {
			cmds = append(cmds, c.B().Hdel().Key(key).Field(dead...).Build())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	c.DoMulti(ctx, cmds...) // what fails is seen again
}
