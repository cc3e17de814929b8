package hub

import (
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

const (
	// Inexact is what a position loses when it stands for another room: the write timeout, and detection and healing of an
	// outage.
	Inexact = 30 * time.Second
	// ahead is how far beyond the broker's clock a position may lie: further on, it was not made here.
	ahead = 10 * time.Second
)

// await finds the place of a member that comes with a position: in the log, or else it waits for a filler, or is moved over
// what cannot be had. That history was not to be read is final only for who has waited for it.
func (sh *shard) await(m *member) {
	r := m.r
	r.mu.Lock()
	l := &r.log
	q := m.at
	limit := 0
	if m.res != nil {
		limit = sh.h.cfg.ResumeLimit
	}
	n, why, found := l.locate(q, m.given(), m.until(), limit, m.park >= 0)
	if m.res == nil {
		n = min(n, l.fallen) // what has not fallen off it has not had, wherever that lies
		if m.pos < l.strayEnd && m.gen < l.strayFalls {
			why = message.GapLimit // whatever else is missing
		}
	}
	switch {
	case found && why == "":
		sh.dropped(m, n)
		m.pos, m.gen = n, l.falls
		sh.placed(m, l, n)
		sh.unpark(m)
		r.mu.Unlock()
	case found:
		sh.dropped(m, n)
		sh.unpark(m)
		r.mu.Unlock()
		sh.skipGap(m, why, n)
	default:
		l.bottom, l.limited = false, false // a new attempt
		sh.park(m)
		r.demand.add(q, m.until(), m.res == nil)
		r.mu.Unlock()
		sh.h.fill.request(r)
	}
}

// dropped counts what a member that was connected all the time will not be written: entries that fell off the log and that
// history does not have.
func (sh *shard) dropped(m *member, n int64) {
	if m.res == nil && n > m.pos {
		sh.n.lost[lossDropped] += uint64(n - m.pos)
	}
}

// given is the position a member's owner named, by which it is judged whether he may have missed something that nobody
// knows of any more: an inexact one is looked for further back, but says no less.
func (m *member) given() message.Position {
	if m.res != nil && m.res.from.Low == 0 && m.at == m.res.from.Position {
		return m.at.After(Inexact)
	}
	return m.at
}

// until is the number a resume ends at.
func (m *member) until() int64 {
	if m.res != nil {
		return m.res.join
	}
	return m.pos
}

// placed completes a resume that has its place: of a degraded time that ends behind it, all is owed.
func (sh *shard) placed(m *member, l *log, n int64) {
	if m.res == nil {
		return
	}
	m.res.behind = n
	for _, st := range l.stretches {
		if st.from < n && st.from >= l.front && (st.to == 0 || st.to > n) {
			m.pos = st.from
		}
	}
}

// locate finds where one who has received everything up to q goes on. found with a reason: the entries before n cannot be
// had. Not found: history has to be read. limit bounds what lies between place and until; 0: no bound.
// waited: the answer of the last attempt to read history is his.
func (l *log) locate(q, given message.Position, until int64, limit int, waited bool) (n int64, why message.GapReason, found bool) {
	known := l.bottom && (waited || !l.limited)
	if q >= l.base {
		n = l.place(q)
	} else if n = l.front; known {
		why = l.missing(q, given)
	}
	if l.torn(n) { // whatever else is missing
		why = message.GapLimit
	}
	if limit > 0 && until > n {
		if tail, cut := l.tail(until, limit); cut && tail > n {
			return tail, message.GapLimit, true
		}
	}
	if q < l.base && !known {
		return 0, "", false
	}
	return n, why, true
}

// torn tells whether who stands before entry n is owed a degraded time of which something has fallen off.
func (l *log) torn(n int64) bool {
	for _, st := range l.stretches {
		if st.torn && (st.to == 0 || st.to > n) {
			return true
		}
	}
	return false
}

// missing judges one who stands at q below the front when history has been read to its end.
func (l *log) missing(q, given message.Position) message.GapReason {
	switch {
	case l.link != 0 && l.link <= q:
		return ""
	case q < l.cut:
		return message.GapDeleted
	case l.limited:
		return message.GapLimit
	case l.link == 0 && given >= l.since:
		return ""
	case l.link == 0:
		return message.GapUnknownPosition
	case l.lost:
		return message.GapLost
	}
	return message.GapExpired
}

// skipGap moves a member over a hole to entry n and tells it with a frame that lies exactly there.
func (sh *shard) skipGap(m *member, why message.GapReason, n int64) {
	r := m.r
	g := frame.Gap{Room: r.name, Reason: why, After: sh.h.id(r, m.at)}
	r.mu.Lock()
	l := &r.log
	told := n < l.head && l.at(n).flags&notice != 0 && why == message.GapDeleted // everyone is told by the entry there
	if n < l.head {
		g.Before, _ = frame.ReadID(l.frame(n))
	}
	m.pos, m.gen = n, l.falls
	m.at = max(m.at, l.before(n))
	if m.res != nil {
		m.res.behind, m.res.gap, m.res.oldest = n, why, g.Before
		if m.res.from.Position > m.at { // a position that never was here
			m.res.from.Position = m.at
		}
	}
	r.mu.Unlock()
	sh.h.stats.gap(why)
	if !told {
		f := g.Append(nil, time.Now().UnixMilli())
		m.s.owed.Add(int32(len(f)))
		sh.send(m.s, r.name, f)
	}
}

// frame returns entry n's bytes.
func (l *log) frame(n int64) []byte {
	e := l.at(n)
	c := l.chunks[e.chunk-l.first]
	return c.b[e.off-c.base : c.used]
}

// before is the stored position in front of entry n.
func (l *log) before(n int64) message.Position {
	switch {
	case n == l.head:
		return l.pos
	case n > l.front:
		return l.at(n - 1).pos
	}
	return l.base
}

// park has a member wait; the room's lock is held.
func (sh *shard) park(m *member) {
	if m.park >= 0 {
		return
	}
	if r := m.r; r.body == nil {
		m.park, r.lone = 0, m
	} else {
		t := r.table(sh)
		m.park = int32(len(t.parked))
		t.parked = append(t.parked, m)
	}
	m.s.waits++
	m.s.mode |= modeHeld
	sh.watched[m.s] = struct{}{}
}

func (sh *shard) unpark(m *member) {
	if m.park < 0 {
		return
	}
	if m.r.body == nil {
		m.r.lone = nil
	} else {
		t := m.r.table(sh)
		last := len(t.parked) - 1
		t.parked[m.park] = t.parked[last]
		t.parked[m.park].park = m.park
		t.parked[last] = nil
		t.parked = t.parked[:last]
	}
	m.park = -1
	m.s.waits--
}

// refilled lets members go on for which history now suffices, or is known to end.
func (sh *shard) refilled(t *table) {
	for _, m := range append([]*member(nil), t.parked...) {
		if m.park < 0 || !m.in {
			continue
		}
		sh.await(m)
		if m.park < 0 {
			sh.flush(m.s)
		}
	}
}
