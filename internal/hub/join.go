package hub

import (
	"slices"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// subscribedBytes is room for the answer to the usual one room of a URL.
const subscribedBytes = 320

// open lets a session begin: the welcome is its first frame, then its joins.
func (sh *shard) open(s *Session, preface, welcome []byte, ms []*member) {
	s.mode |= modeHeld
	s.resuming = int16(len(ms))
	s.corked = true
	s.owed.Add(int32(len(preface)))
	s.own = append(make([]byte, 0, len(preface)+len(welcome)+subscribedBytes), preface...)
	if len(welcome) > 0 {
		s.owed.Add(int32(len(welcome)))
		sh.send(s, "", welcome)
	}
	for _, m := range ms {
		sh.admit(m)
	}
	s.corked = false
	sh.flush(s)
}

// join admits members to further rooms.
func (sh *shard) join(s *Session, ms []*member) {
	if s.mode&(modeClosing|modeDead) != 0 {
		s.refuse(ms)
		return
	}
	s.corked = true
	for _, m := range ms {
		if old := s.findLocked(m.r.name); old != nil {
			sh.again(old, m)
			continue
		}
		s.mu.Lock()
		m.next, s.first = s.first, m
		s.mu.Unlock()
		if m.res.holds {
			s.resuming++
			s.mode |= modeHeld
		}
		sh.admit(m)
	}
	s.corked = false
	sh.flush(s)
}

// again answers a join of a room that was joined already: nothing is replayed.
func (sh *shard) again(old, m *member) {
	if f := m.res.frame; f != nil {
		sh.answer(old, f)
	}
	m.res.call.one()
	sh.h.release(m.r)
}

// admit makes m a member, if the room is live: it is in the table and counted before the head is read, so no wake-up is
// lost. From then on the join stands; what it resumes comes after.
func (sh *shard) admit(m *member) {
	s, r := m.s, m.r
	now := sh.h.feed.Now() // the feed is asked holding nothing
	r.mu.Lock()
	if r.lone != nil {
		r.wake(sh.h)
	}
	if !r.live {
		sh.park(m)
		r.mu.Unlock()
		return
	}
	pos := r.base
	if r.body != nil {
		pos = r.log.pos
	}
	asked := m.res.asked
	unknown := asked && m.res.from.Position > max(pos, now.After(ahead))
	if asked && (unknown || m.res.from.Position < r.base) {
		r.wake(sh.h) // there is a gap to be told, or history to be read
	}
	quiet := r.body == nil
	sh.enter(m)
	if !asked || unknown {
		m.at = pos
		m.res.from.Position = pos
	} else if m.at > pos {
		m.lag |= lagAhead
	}
	r.mu.Unlock()
	if s.here != nil {
		s.here.Joined(r.name)
	}
	sh.stood(m)
	switch { // what is sent may find the socket dead, and then m is a member no more: nothing of it is looked at afterwards
	case !asked:
		sh.stand(m)
	case quiet: // there is nothing behind its place: flush says that it stands
	case unknown:
		sh.skipGap(m, message.GapUnknownPosition, m.pos) // it stands at its head: flush says so
	default:
		sh.await(m)
	}
}

// enter makes m a member of the room, whose lock is held, at its head.
func (sh *shard) enter(m *member) {
	r, s := m.r, m.s
	var head int64
	if r.body == nil {
		r.lone, m.idx = m, 0
	} else {
		t := r.table(sh)
		head, m.idx, m.gen = r.log.head, int32(len(t.members)), r.log.falls
		t.members = append(t.members, m)
		if t.size++; t.size == 1 {
			t.done = head
		}
		r.count.Add(1)
		if !m.sees {
			r.log.blind++
		}
	}
	m.res.join, m.pos = head, head
	s.mu.Lock()
	m.in = true
	s.mu.Unlock()
}

// stood tells the join's asker that it has its head; those of Open have the reading begin.
func (sh *shard) stood(m *member) {
	call, s := m.res.call, m.s
	if call.one() && s.opening.Load() == call {
		s.opening.Store(nil)
		s.mode |= modeReply
	}
}

// live admits the joins that waited for the room.
func (sh *shard) live(e *event) {
	waiting := e.ms // of a quiet room
	if e.t != nil {
		waiting = slices.Clone(e.t.parked)
	}
	for _, m := range waiting {
		if m.park < 0 || m.in {
			continue
		}
		m.r.mu.Lock()
		sh.unpark(m)
		m.r.mu.Unlock()
		sh.admit(m)
		sh.flush(m.s)
	}
}

// stand ends a resume: the member is at its join head, and is told.
func (sh *shard) stand(m *member) {
	s, res := m.s, m.res
	m.res = nil
	if res.holds {
		s.resuming--
	}
	if res.frame == nil {
		if res.asked {
			sh.h.stats.replay(res.gap)
		}
		return
	}
	f := res.frame
	if f.Resumed = res.asked; res.asked {
		f.Recovered, f.Replayed, f.Reason, f.OldestID = res.gap == "", res.replayed, res.gap, res.oldest
		sh.h.stats.replay(res.gap)
	}
	sh.answer(m, f)
}

// answer sends a member its subscribed frame: where it stands now, and who is there.
func (sh *shard) answer(m *member, f *frame.Subscribed) {
	f.LastID = message.ID{Position: m.at, Low: sh.h.minter.Low(m.r.tag, true)}
	if count := sh.h.cfg.Count; f.Counts && count != nil {
		many := false
		if f.Users, f.Sessions, many = count(m.r.name); many && f.Presence == "events" {
			f.Presence = "counts"
		}
	}
	b := f.Append(nil, time.Now().UnixMilli())
	m.s.owed.Add(int32(len(b)))
	sh.send(m.s, m.r.name, b)
}

// leave ends one membership; what was written of the room lies before f.
func (sh *shard) leave(s *Session, name message.Room, f []byte) {
	m := s.findLocked(name)
	if m == nil || s.mode&(modeClosing|modeDead) != 0 {
		s.owed.Add(int32(-len(f)))
		return
	}
	sh.stamp(s, name, f)
	sh.remove(m, lossLeft)
	sh.queue(s, f)
	sh.flush(s)
}

// see changes whether a member sees presence entries.
func (sh *shard) see(s *Session, name message.Room, sees bool) {
	m := s.findLocked(name)
	if m == nil || m.sees == sees {
		return
	}
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.sees = sees
	switch {
	case !m.in || m.r.body == nil: // it is counted when it is admitted, or the room wakes
	case sees:
		m.r.log.blind--
	default:
		m.r.log.blind++
	}
}

func (sh *shard) leaveAll(s *Session) {
	for s.first != nil {
		sh.remove(s.first, lossClosed)
	}
	s.waits, s.resuming, s.behindAt = 0, 0, 0
}

// remove takes a member out of everything. What it had not been written is counted as lost for why.
func (sh *shard) remove(m *member, why loss) {
	s, r := m.s, m.r
	if m.res != nil {
		if !m.in {
			m.res.call.err.Store(true)
			m.res.call.one()
		}
		if m.res.holds {
			s.resuming--
		}
		m.res = nil
	}
	sh.caughtUp(m)
	stood := m.in
	r.mu.Lock()
	sh.unpark(m)
	if r.body == nil {
		if r.lone == m {
			r.lone = nil
		}
	} else {
		t := r.table(sh)
		if stood {
			last := len(t.members) - 1
			t.members[m.idx] = t.members[last]
			t.members[m.idx].idx = m.idx
			t.members[last] = nil
			t.members = t.members[:last]
			t.size--
			r.count.Add(-1)
			if !m.sees {
				r.log.blind--
			}
			if owed := r.log.head - m.pos; owed > 0 {
				sh.n.lost[why] += uint64(owed)
			}
		}
		r.dropEmpty(t)
	}
	s.mu.Lock()
	for p := &s.first; *p != nil; p = &(*p).next {
		if *p == m {
			*p = m.next
			break
		}
	}
	if m.in = false; s.anchor == m {
		s.anchor = s.heir()
	}
	s.mu.Unlock()
	r.mu.Unlock()
	if why == lossClosed && stood {
		if l, ok := s.w.(Leaver); ok {
			l.Left(r.name, m.at)
		}
	}
	if stood && s.here != nil {
		s.here.Left(r.name, why == lossClosed)
	}
	sh.h.release(r)
}
