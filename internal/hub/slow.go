package hub

import (
	"time"

	"github.com/slack5/realtime/internal/frame"
)

// Close codes of the hub's own, as the protocol has them.
const (
	closeSlow     = 4000 // a slow consumer
	closeTryLater = 1013 // a room that could not be joined in time
)

// tick looks at the few sessions that are not simply up to date, and at the members counted as late.
func (sh *shard) tick(now int64) {
	for len(sh.late) > 0 && sh.late[0].until <= now {
		m := sh.late[0].m
		sh.late = sh.late[1:]
		if m.lag&lagLate != 0 && m.in {
			m.lag = m.lag&^lagLate | lagSlow
			m.r.late.Add(-1)
		}
	}
	if len(sh.late) == 0 {
		sh.late = nil
	}
	blocked := 0
	for s := range sh.watched {
		if s.mode&modeBlocked != 0 {
			blocked++
		}
		sh.look(s, now)
	}
	sh.n.blocked = blocked
	sh.n.publish(&sh.h.stats)
}

// look judges a watched session's deadlines.
func (sh *shard) look(s *Session, now int64) {
	c := &sh.h.cfg
	past := func(since int64, d time.Duration) bool { return now-since >= d.Milliseconds() }
	switch {
	case s.mode&modeDead != 0:
		delete(sh.watched, s)
	case s.mode&modeClosing != 0:
		if past(s.closingAt, c.CloseTimeout) {
			sh.shut(s)
		}
	case s.mode&modeBlocked != 0 && past(s.progress, c.WriteTimeout):
		sh.cut(s, closeSlow, "slow consumer: nothing read in time")
	case s.behindAt != 0 && past(s.behindAt, c.BehindTimeout):
		sh.cut(s, closeSlow, "slow consumer: behind for too long")
	case s.waits > 0 && sh.joinLate(s, now):
		sh.cut(s, closeTryLater, "room not available, try again later")
	case s.mode == 0 && s.behindAt == 0 && s.waits == 0:
		delete(sh.watched, s)
	}
}

// cut closes a session for the hub's own reason.
func (sh *shard) cut(s *Session, code int, reason string) {
	if s.mode&(modeClosing|modeDead) == 0 {
		s.code = uint16(code)
		sh.close(s, frame.AppendClose(nil, code, reason))
	}
}

// joinLate tells whether a join has waited too long for its room to be live.
func (sh *shard) joinLate(s *Session, now int64) bool {
	for m := s.first; m != nil; m = m.next {
		if !m.in && now-m.res.since >= sh.h.cfg.JoinTimeout.Milliseconds() {
			return true
		}
	}
	return false
}
