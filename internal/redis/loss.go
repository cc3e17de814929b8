package redis

import (
	"time"

	"github.com/slack5/realtime/internal/message"
)

const (
	// holdFor is how long members are not told yet of a hole that a loss has left: other nodes may be putting back what was
	// there.
	holdFor = 2 * time.Second
	// settleFor is how long after a connection to Redis came back all nodes have surely put back what they can.
	settleFor = 30 * time.Second
)

// loss is what a room knows of what Redis may have lost, or got back. Guarded by the room's lock.
type loss struct {
	pushed message.Position // so far the channel has come
	back   message.Position // the stream is to be read again from here: something may have been put back unseen. 0: it is not
	inHand message.Position // what back was when the reading began that is under way
	kicked message.Position // at which a tip was found to lie behind
	held   time.Duration    // since when a hole is held back, as a time since the start; 0: none is
	hold   bool             // the reading under way has met it
	at     message.Position // Redis' time when the room was last seen to have lost everything
}

// end is the position of the last stored one; 0: none is.
func (p *push) end() (last message.Position) {
	if p.kind != published || p.first == 0 {
		return 0
	}
	at := p.first
	for _, it := range p.items {
		if it.m == nil || !it.m.Ephemeral {
			last, at = at, at.Next()
		}
	}
	return last
}

// delivered is the position that was delivered last.
func (r *room) delivered() message.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// least is the position that those to come must exceed, or they would not be for the members.
func (r *room) least() message.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.last, r.base)
}

// remember has an identity known from now on; the lock is held.
func (r *room) remember(low message.Low, pos message.Position) {
	r.recent.add(low, pos, r.b.elapsed(), r.b.unsettled())
}

// rememberShown has one that was shown before it was stored known as long as what comes now.
func (r *room) rememberShown(low message.Low) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dead {
		r.remember(low, 0)
	}
}

// unsettled tells whether what was stored a while ago may be put back: Redis is away or was until a moment ago.
func (b *Broker) unsettled() bool {
	return b.away.Load() || b.elapsed() < time.Duration(b.guard.Load())-guardFor+settleFor
}

// lostAt is Redis' time when the room was last seen to have lost everything; 0: it was not.
func (r *room) lostAt() message.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loss.at
}

// aged tells whether a room's tip may have been forgotten by itself.
func (r *room) aged() bool {
	return r.last <= message.At(r.b.clock.millis(), 0).Before(tipTTL(r.b.retention(r.name)))
}

// follows looks at what a new entry names before it; the lock is held. Less than what was delivered: Redis has lost that.
func (r *room) follows(at, prev message.Position) {
	if prev >= r.last || prev == 0 && r.aged() {
		return
	}
	r.b.forks.Add(1)
	if prev == 0 {
		r.loss.at = max(r.loss.at, at-1)
	}
	r.b.kick()
}

// regressed looks at the room's tip; the lock is held. It lies before what had been delivered when it was read: Redis has lost
// that. Said once, until the room goes on.
func (r *room) regressed(t tipCut, before message.Position) {
	if t.tip >= before || r.loss.kicked == r.last || t.tip == 0 && r.aged() {
		return
	}
	r.loss.kicked = r.last
	r.b.forks.Add(1)
	if t.tip == 0 {
		r.loss.at = max(r.loss.at, message.At(r.b.clock.millis(), 0), r.last.Next())
	}
	r.b.kick()
}

// again has the stream be read from a position on, though more was delivered already. Of what was, nothing comes twice: it
// is read only so far back as that is known. The lock is held.
func (r *room) again(from message.Position) {
	from = max(from, 1)
	if r.loss.back == 0 || from < r.loss.back {
		r.loss.back = from
	}
	r.b.heal(r, HealBehind)
}

// begin is where to read from.
func (l *loss) begin(r *room) message.Position {
	l.inHand, l.back, l.hold = l.back, 0, false
	if l.inHand == 0 {
		return r.last
	}
	return min(r.last, max(l.inHand, r.recent.forgot, r.base))
}

// sure tells whether a hole before a position stays one; what was stored there may still be put back.
func (l *loss) sure(r *room, before message.Position) bool {
	now := r.b.elapsed()
	if l.held == 0 {
		l.held = now
		r.b.kick()
	}
	if l.hold = now-l.held < holdFor; l.hold {
		r.expect = max(r.expect, before)
		return false
	}
	l.held = 0
	return true
}

// end ends a reading and tells whether it was because of a hole that is held back.
func (l *loss) end(read bool) bool {
	if !read && l.inHand != 0 && (l.back == 0 || l.inHand < l.back) {
		l.back = l.inHand
	}
	l.inHand = 0
	if read && !l.hold {
		l.held = 0
	}
	return l.hold
}

// readAgain is again from as far back as may be.
func (r *room) readAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again(0)
}
