package hub

import (
	"bytes"
	"math"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// begin starts a traversal: one snapshot of the log for all members of the shard. The flag stays set until it ends, so there
// is one at a time.
func (sh *shard) begin(t *table) {
	var sn *snap
	if k := len(sh.snaps); k > 0 {
		sn, sh.snaps = sh.snaps[k-1], sh.snaps[:k-1]
	} else {
		sn = new(snap)
	}
	t.room.mu.Lock()
	t.since.Store(0)
	sn.take(&t.room.log)
	t.begun = sn.end
	if t.room.begun != nil {
		close(t.room.begun)
		t.room.begun = nil
	}
	t.room.mu.Unlock()
	t.trav, t.cursor = sn, len(t.members)
	sh.step(t)
}

// step serves a slice of the members. It goes downwards, so that removal by swapping skips nobody; who joined above the
// cursor has written for himself.
func (sh *shard) step(t *table) {
	sn := t.trav
	if sn.head > sn.front { // else there is nothing
		for n := sliceMembers; n > 0; n-- {
			t.cursor = min(t.cursor, len(t.members))
			if n%aheadMembers == 0 {
				sh.lookAhead(t.members[max(0, t.cursor-aheadMembers):t.cursor])
			}
			t.cursor--
			if t.cursor < 0 {
				break
			}
			m := t.members[t.cursor]
			if m.pos >= sn.head {
				continue
			}
			if m.s.mode != 0 || m.lag != 0 || sn.mixed || m.pos < sn.fallen {
				sh.slow(m, sn)
				continue
			}
			sh.hand(m, sn, sn.head)
		}
		if t.cursor > 0 {
			sh.post(event{kind: evStep, t: t})
			return
		}
	}
	sh.finish(t)
}

// aheadMembers are looked at before they are served. Each system call leaves little of what the next member needs in the
// processor's caches, and a load waits for the one before it; looked at together, their loads overlap: 7 % of a delivery.
const aheadMembers = 16

func (sh *shard) lookAhead(ms []*member) {
	var seen uint64
	for _, m := range ms {
		seen += uint64(m.pos) + uint64(m.s.mode) + m.s.w.Touch()
	}
	sh.seen = seen
}

// finish ends a traversal: the flag is cleared, and set again if the head has moved meanwhile.
func (sh *shard) finish(t *table) {
	sn, r := t.trav, t.room
	observe := sh.h.cfg.Observe
	from, head, when := max(t.done, sn.front), sn.head, int64(0)
	if head > from && t.size > 0 {
		when = sn.at(from).when
	}
	*sn = snap{}
	t.trav = nil
	sh.snaps = append(sh.snaps, sn)
	r.mu.Lock()
	span := r.carried(from, head)
	t.done = head
	arrived := r.arrived()
	t.dirty.Store(false)
	more := r.log.head != head && !t.dirty.Swap(true)
	r.mu.Unlock()
	if observe != nil && when != 0 {
		observe(span, time.Duration(time.Now().UnixMilli()-when)*time.Millisecond)
	}
	endAll(arrived)
	if more {
		sh.post(event{kind: evDirty, t: t})
	}
}

// hand writes a member the frames from its place to entry end, which it owes nothing of to anyone's order: no allocation, no
// lock. A short write leaves the rest of a half-written frame with the session.
func (sh *shard) hand(m *member, sn *snap, end int64) {
	for m.pos < end {
		b, to := sn.run(m.pos)
		if to > end {
			b, to = sn.upto(b, m.pos, end, to)
		}
		if !sh.give(m, sn, b, to) {
			break
		}
	}
	if m.pos < sn.head {
		sh.settle(m, sn)
	}
}

// give writes b, the entries from the member's place to entry to. False: the socket is full or dead.
func (sh *shard) give(m *member, sn *snap, b []byte, to int64) bool {
	s, from := m.s, m.pos
	k := sh.write(s, b)
	if k < len(b) {
		if s.mode&modeDead != 0 {
			return false
		}
		next, part := sn.written(from, to, k)
		if part > 0 { // its place is already behind the frame whose rest it keeps
			next++
			e, _ := sn.upto(b, from, next, to)
			s.rest = e[k:]
		}
		to = next
	}
	m.pos = to
	if to > from {
		m.at = max(m.at, sn.posBefore(to))
		if m.res != nil {
			m.res.replayed += int(to - from)
			sh.n.replayed += uint64(to - from)
		} else {
			sh.n.delivered += uint64(to - from)
		}
	}
	return k == len(b)
}

// slow serves a member that is not simply up to date.
func (sh *shard) slow(m *member, sn *snap) {
	s := m.s
	switch {
	case s.mode&(modeClosing|modeDead) != 0:
	case s.mode&modeBlocked != 0:
		sh.settle(m, sn)
	case s.mode == 0 && sn.holds(m.pos, m.gen) && m.res == nil:
		sh.pick(m, sn, sn.head)
		sh.settle(m, sn)
	default:
		sh.flush(s)
	}
}

// settle keeps count of who is behind, and late.
func (sh *shard) settle(m *member, sn *snap) {
	if !m.in {
		return
	}
	if m.pos >= sn.head && m.park < 0 {
		sh.caughtUp(m)
		return
	}
	if m.lag&lagBehind == 0 {
		m.lag |= lagBehind
		m.r.behind.Add(1)
	}
	if m.s.behindAt == 0 {
		m.s.behindAt = sh.clock.Load()
		sh.watched[m.s] = struct{}{}
	}
	if m.res != nil || m.park >= 0 || m.lag&lagSlow != 0 {
		return
	}
	owed := int64(math.MaxInt64)
	if sn.holds(m.pos, m.gen) {
		owed = sn.end - sn.at(m.pos).off
	}
	late := owed > lateBytes(m.r.count.Load())
	switch {
	case late && m.lag&lagLate == 0:
		m.lag |= lagLate
		m.r.late.Add(1)
		sh.late = append(sh.late, lateMember{m, sh.clock.Load() + lateFor.Milliseconds()})
	case !late && m.lag&lagLate != 0:
		m.lag &^= lagLate
		m.r.late.Add(-1)
	}
}

func (sh *shard) caughtUp(m *member) {
	if m.lag&lagBehind != 0 {
		m.r.behind.Add(-1)
	}
	if m.lag&lagLate != 0 {
		m.r.late.Add(-1)
	}
	m.lag &= lagAhead
}

// flush writes all that a session is due, in the order that keeps resuming sound: what was begun, own frames, then of all
// its rooms the one whose next entry is oldest. Rooms that resume go first and alone; a room that waits holds back what is
// newer than the place it waits at.
func (sh *shard) flush(s *Session) {
	for sh.drain(s) {
		m, limit := sh.nextDue(s)
		if m == nil {
			break
		}
		sh.deliver(m, limit)
	}
	if s.mode&(modeBlocked|modeClosing|modeDead) == 0 {
		s.behindAt = 0
		if s.resuming == 0 && s.waits == 0 {
			s.mode &^= modeHeld
		}
	}
}

// nextDue returns the room that goes next and the position up to which it may.
func (sh *shard) nextDue(s *Session) (due *member, limit message.Position) {
	const never = message.Position(math.MaxUint64)
	first, limit, resuming := never, never, s.resuming
	for m := s.first; m != nil; m = m.next {
		switch {
		case s.resuming > 0 && (m.res == nil || !m.res.holds):
			continue
		case !m.in && (m.res == nil || !m.res.holds): // joins from now on: nothing of it can be missed, whatever the others bring
			continue
		}
		p, some := sh.nextOf(m)
		if s.resuming != resuming { // one more stands: perhaps the others may go now
			return sh.nextDue(s)
		}
		if !some {
			continue
		}
		if m.park >= 0 || !m.in {
			limit = min(limit, p)
		} else if p < first {
			due, limit, first = m, min(limit, first), p
		} else {
			limit = min(limit, p)
		}
	}
	if first > limit {
		return nil, 0
	}
	return due, limit
}

// nextOf returns the position of the member's next entry, or of the place it waits at. A member whose place has fallen off
// the log begins to wait here.
func (sh *shard) nextOf(m *member) (p message.Position, some bool) {
	if m.park >= 0 || !m.in {
		return m.at, true
	}
	lost := false
	m.r.mu.Lock()
	if m.r.body != nil {
		l := &m.r.log
		end := l.head
		if m.res != nil {
			end = m.res.join
		}
		lost = !l.holds(m.pos, m.gen)
		if !lost && m.pos < end {
			p, some = l.at(m.pos).pos, true
		}
	}
	m.r.mu.Unlock()
	if lost {
		sh.await(m)
		if m.park >= 0 {
			return m.at, true
		}
		return sh.nextOf(m)
	}
	if !some && m.res != nil {
		held := m.res.holds
		sh.stand(m)
		if !held {
			return sh.nextOf(m)
		}
	}
	return p, some
}

// deliver writes one room of a session up to a position, as far as the socket takes it.
func (sh *shard) deliver(m *member, limit message.Position) {
	sn := &sh.one
	m.r.mu.Lock()
	sn.take(&m.r.log)
	m.r.mu.Unlock()
	if !sn.holds(m.pos, m.gen) {
		return // evicted since: nextOf sees it
	}
	end := sn.head
	if m.res != nil {
		end = m.res.join
	}
	if limit < sn.pos {
		end = min(end, max(sn.search(limit+1), m.pos+1))
	}
	sh.pick(m, sn, end)
	sh.settle(m, sn)
	*sn = snap{}
}

// pick writes entries up to end, leaving out those that are not for this member.
func (sh *shard) pick(m *member, sn *snap, end int64) {
	if !sn.mixed && m.res == nil && m.lag&lagAhead == 0 {
		sh.hand(m, sn, end)
		return
	}
	for m.pos < end && m.s.mode&(modeBlocked|modeDead) == 0 {
		n := m.pos
		for n < end && !m.wants(sn, n) {
			n++
		}
		if n > m.pos {
			sh.n.skipped += uint64(n - m.pos)
			m.pos, m.at = n, max(m.at, sn.posBefore(n))
			continue
		}
		if m.lag&lagAhead != 0 && m.res == nil {
			if !sh.giveAhead(m, sn) {
				return
			}
			continue
		}
		b, to := sn.run(n)
		for k := n + 1; k < min(to, end); k++ {
			if !m.wants(sn, k) {
				b, to = sn.upto(b, n, k, to)
			}
		}
		if to > end {
			b, to = sn.upto(b, n, end, to)
		}
		if !sh.give(m, sn, b, to) {
			return
		}
	}
}

// giveAhead writes the next entry to a member that is ahead of the log. The id of one that is not stored must not tell the
// member's owner to come back from where the log is.
func (sh *shard) giveAhead(m *member, sn *snap) bool {
	e := sn.at(m.pos)
	b, to := sn.run(m.pos)
	b, to = sn.upto(b, m.pos, m.pos+1, to)
	if id, ok := frame.ReadID(b); e.flags&stored == 0 && ok && id.Position < m.at {
		b = bytes.Clone(b)
		id.Position = m.at
		frame.Stamp(b, id)
	}
	return sh.give(m, sn, b, to)
}

// wants tells whether an entry is for the member: not masked, and, while it resumes, owed by its place.
func (m *member) wants(sn *snap, n int64) bool {
	e := sn.at(n)
	if e.flags&presence != 0 && !m.sees {
		return false
	}
	if e.flags&excluding != 0 {
		m.r.mu.Lock()
		mask := m.r.log.masked[n]
		m.r.mu.Unlock()
		if mask != nil && mask.Excludes(m.s.ID, m.s.User) {
			return false
		}
	}
	if m.res == nil {
		return !m.knows(e)
	}
	switch {
	case e.flags&degraded != 0:
		return true
	case e.flags&(belated|notice) != 0:
		return n >= m.res.behind
	case e.flags&stored != 0:
		return e.pos > m.res.from.Position
	}
	return false // ephemeral ones up to the join head
}

// knows tells whether a member has seen an entry on another node, whose log was ahead of this one's. The first entry beyond
// its place ends that.
func (m *member) knows(e *rec) bool {
	if m.lag&lagAhead == 0 || e.flags&stored == 0 || e.flags&belated != 0 {
		return false
	}
	if e.pos <= m.at {
		return true
	}
	m.lag &^= lagAhead
	return false
}
