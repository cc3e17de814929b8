package redis

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/slack5/realtime/internal/message"
)

// What a room holds back while it waits for what lies before.
const (
	maxWaiting      = 4096
	maxWaitingBytes = 4 << 20
)

// room puts what a room's channel, our own publishes and the stream bring into one order and hands it to the Sink, each
// message once. The Sink is called under its lock.
type room struct {
	name      message.Room
	ch        string
	b         *Broker
	worker    *worker
	place     int  // in the Broker's order; its lock guards that
	lossy     bool // something of it was dropped; the worker's lock guards that
	lossyBack bool // and of that, something that was put back

	queued atomic.Bool // its stream is to be read

	mu      sync.Mutex
	dead    bool // unsubscribed: nothing is delivered any more
	live    bool // Live was called
	blind   bool // live, but its tip is not known: Redis was away
	down    bool // the Sink was told that Redis is away for it
	healing bool // the stream is being read: everything waits

	since  message.Position // Redis' time when it was subscribed: the place of a room in which nothing was stored
	base   message.Position // the tip that Live named: what lies before is not for us
	last   message.Position // of the stored entry delivered last
	cut    message.Position // deleted up to here, as told
	own    message.Position // what was shown in an outage is stored up to here
	expect message.Position // something was stored here
	loss   loss

	recent   recent
	waiting  []waiter
	bytes    int  // of them
	overflow bool // some were dropped: the stream has them
	late     bool // it is in the queue of those whose hole may yet close by itself
}

type waiter struct {
	push
	bytes int
	own   bool // one of ours
	old   bool // it has waited since before the stream was read
}

// offer takes a push in its place, or keeps it until it has one. own is one of ours: its reply may overtake what other
// nodes have published before it.
func (r *room) offer(p push, own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !own {
		r.loss.pushed = max(r.loss.pushed, p.end())
	}
	switch {
	case r.dead:
	case !r.live || r.blind || r.healing:
		r.wait(p, own)
	case r.take(p, own):
		r.drain()
	default:
		r.wait(p, own)
	}
}

func (r *room) wait(p push, own bool) {
	n := 64
	for _, it := range p.items {
		if it.m != nil {
			n += len(it.m.Data) + 256
		}
	}
	if len(r.waiting) == maxWaiting || r.bytes+n > maxWaitingBytes {
		r.overflow = true
		if p.kind == restored {
			r.again(0)
		}
		return
	}
	r.waiting = append(r.waiting, waiter{push: p, bytes: n, own: own})
	r.bytes += n
}

// drain takes what has waited and has its place now.
func (r *room) drain() {
	if len(r.waiting) == 0 {
		return
	}
	slices.SortStableFunc(r.waiting, func(a, b waiter) int { return cmp.Compare(a.place(), b.place()) })
	ws := r.waiting
	r.waiting, r.bytes = nil, 0
	for _, w := range ws {
		switch {
		case w.old && r.hole(w.push): // the stream has neither it nor what lies before it: Redis has lost it, or it is junk
		case !r.take(w.push, true):
			r.waiting = append(r.waiting, w)
			r.bytes += w.bytes
		}
	}
}

// place orders pushes: where it begins, or for what is not stored, what it follows.
func (p *push) place() message.Position {
	if p.first == 0 {
		return p.prev
	}
	return p.first
}

// take delivers what of a push is new; false: something before it is missing.
func (r *room) take(p push, own bool) bool {
	switch {
	case p.kind == deleted:
		r.delete(p.first)
		return true
	case p.kind == restored:
		r.takeRestored(p)
		return true
	case p.first == 0:
		for _, it := range p.items {
			r.deliverHint(it.m)
		}
		if p.prev > r.last {
			r.missing(p.prev, own)
		}
		return true
	case r.hole(p):
		r.missing(p.prev, own)
		return false
	case p.first <= r.base:
		p.items = r.skip(&p)
	}
	if p.first > r.last {
		r.follows(p.first, p.prev)
	}
	at, prev := p.first, p.prev
	for _, it := range p.items {
		if it.m != nil && it.m.Ephemeral {
			r.deliverHint(it.m)
			continue
		}
		if r.deliver(at, prev, it.m) { // what went on from here is not what we had
			r.b.forks.Add(1)
			r.b.kick()
		}
		at, prev = at.Next(), at
	}
	return true
}

// hole tells whether something before the push is missing.
func (r *room) hole(p push) bool {
	return p.kind == published && p.first > r.last && p.prev > r.last
}

// skip leaves out of a push what lies at or before the tip that Live named.
func (r *room) skip(p *push) []item {
	for i, it := range p.items {
		if it.m != nil && it.m.Ephemeral {
			continue
		}
		if p.first > r.base {
			return p.items[i:]
		}
		p.first, p.prev = p.first.Next(), p.first
	}
	return nil
}

// takeRestored delivers what another node has put back in its place.
func (r *room) takeRestored(p push) {
	m := p.items[0].m
	switch {
	case m == nil || p.first <= r.cut || r.recent.has(m.ID.Low):
	case p.first > r.last:
		r.missing(p.first, false)
	default: // even before where the room begins: who has come from elsewhere may have passed its place while it was lost
		r.hand(p.first, 0, m, true)
	}
}

// deliver hands on the stored message at a position, of one that was shown before only its place; it tells whether it was
// belated, and new. nil is one that is not understood.
func (r *room) deliver(at, prev message.Position, m *message.Message) (belated bool) {
	belated = at <= r.last
	r.last = max(r.last, at)
	if m == nil || at <= r.base || at <= r.cut { // not for us; or deleted, and that was told
		return false
	}
	if r.recent.has(m.ID.Low) {
		if !belated {
			m.ID.Position = at
			r.b.sink.Append(message.Entry{Message: m, Prev: prev, Flags: message.Shown})
		}
		return false
	}
	r.hand(at, prev, m, belated)
	return belated
}

// hand is deliver of one that is new; the lock is held.
func (r *room) hand(at, prev message.Position, m *message.Message, belated bool) {
	r.remember(m.ID.Low, at)
	m.ID.Position = at
	e := message.Entry{Message: m, Prev: prev}
	if belated {
		e.Flags = message.Belated
	}
	r.b.sink.Append(e)
}

// deliverHint hands on an ephemeral message.
func (r *room) deliverHint(m *message.Message) {
	if r.recent.has(m.ID.Low) {
		return
	}
	r.remember(m.ID.Low, 0)
	if m.ID.Position = r.last; r.last == 0 {
		m.ID.Position = r.b.Now()
	}
	r.b.sink.Append(message.Entry{Message: m, Flags: message.Ephemeral})
}

func (r *room) delete(upTo message.Position) {
	r.last = max(r.last, upTo)
	r.b.journal.cut(r.name, upTo)
	if upTo > r.cut && upTo > 0 {
		r.cut = upTo
		r.b.sink.Deleted(r.name, upTo)
	}
}

// missing: something was stored at pos that has not come. What is ours is given a moment, in which the push of what lies
// before it usually comes.
func (r *room) missing(pos message.Position, own bool) {
	r.expect = max(r.expect, pos)
	if r.loss.held == 0 && (!own || !r.b.place(r.ch).up.Load()) {
		r.b.heal(r, HealHole)
	} else {
		r.soon()
	}
}

// soon has awaited called in a moment.
func (r *room) soon() {
	if !r.late {
		r.late = true
		r.b.wakeLater(r)
	}
}

// awaited is called some time after missing.
func (r *room) awaited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = false
	if r.live && !r.dead && r.expect > r.last {
		r.b.heal(r, HealHole)
	}
}

// attach is called when the subscription is confirmed, with the room's tip and where it is cut after that. before is the
// position that had been delivered when they were read.
func (r *room) attach(t tipCut, before message.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tip, cut := t.tip, t.cut
	switch {
	case r.dead:
		return
	case r.blind:
		r.blind, r.last, r.cut = false, min(tip, r.base), min(cut, r.base)
		r.loss.pushed = r.last
		r.compare(tip, cut)
		if r.overflow {
			r.b.heal(r, HealDropped)
		}
		if !r.queued.Load() {
			r.drain()
		}
	case !r.live:
		r.live = true
		r.base, r.last, r.cut = tip, tip, cut
		r.loss.pushed = tip
		r.b.sink.Live(r.name, tip, false)
		if r.overflow {
			r.b.heal(r, HealDropped)
		} else {
			r.drain()
		}
	default:
		r.compare(tip, cut)
		r.regressed(t, before)
		if r.last > r.loss.pushed { // what was put back meanwhile was not said on this connection
			r.again(r.loss.pushed)
			r.loss.pushed = r.last
		}
	}
}

// compare heals if the room has gone on without us; the lock is held.
func (r *room) compare(tip, cut message.Position) {
	if cut > r.cut || tip > r.last {
		r.expect = max(r.expect, tip)
		r.b.heal(r, HealBehind)
	}
}

// stop ends delivery.
func (r *room) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	r.waiting, r.recent = nil, recent{}
}

// begin is called before the stream is read, and tells from where; false: it is not to be read, or not now.
func (r *room) begin() (message.Position, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.dead:
		return 0, false
	case !r.live || r.blind || r.healing: // it is read when that is over
		r.overflow = true
		return 0, false
	}
	r.healing, r.overflow = true, false
	for i := range r.waiting {
		r.waiting[i].old = true
	}
	return r.loss.begin(r), true
}

// fill delivers what was read, and tells from where to read on. first is the stream's first entry, if it matters.
func (r *room) fill(p history, first message.Position, keep int) (message.Position, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return 0, false
	}
	if p.cut > r.cut {
		r.delete(p.cut)
	}
	from := r.last
	for i, e := range p.entries {
		if from = e.at; e.at > r.last {
			kept := i > 0 || p.length < int64(keep) || first != 0 && first <= r.last
			if e.prev > r.last && !r.gap(e.at, kept) {
				return 0, false
			}
			r.follows(e.at, e.prev)
		}
		r.deliver(e.at, e.prev, e.m)
	}
	if len(p.entries) == 0 && p.tip > r.last {
		if !r.gap(p.tip.Next(), p.length < int64(keep)) {
			return 0, false
		}
		r.last = p.tip
	} else if len(p.entries) == 0 {
		r.regressed(p.tipCut, r.last)
	}
	return from, p.more && len(p.entries) > 0
}

// gap tells of what the stream does not have any more; before is the first that it has. False: it is to be read again, for
// what was lost may yet be put back. kept: its number is not why.
func (r *room) gap(before message.Position, kept bool) bool {
	why := message.GapExpired
	if kept && r.last > r.b.oldest(r.name) {
		why = message.GapLost
		if !r.loss.sure(r, before) {
			return false
		}
	}
	r.b.sink.Gap(r.name, r.last, before, why)
	return true
}

// end is called when the stream has been read, or could not be: then it is tried again.
func (r *room) end(read bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.healing = false
	held := r.loss.end(read)
	switch {
	case r.dead:
	case !read || r.overflow:
		r.b.heal(r, HealAgain)
	case held:
		r.expect = max(r.expect, r.last.Next())
		r.soon()
		r.drain()
	default:
		r.expect = min(r.expect, r.last) // whatever was said, the stream has no more
		r.drain()
	}
}
