package edge

import "github.com/slack5/realtime/internal/frame"

// closeJunk is how much a session may still send after our close frame. It is read so that the close frame is not lost in
// a reset, but not for ever.
const closeJunk = 256 << 10

// The states of a session's ping.
const (
	pingNone    = uint32(iota)
	pingQueued  // with the shard: no deadline runs before it is written
	pingWritten // at pingAt: no sign of life since
)

// due is the wheel's: it does what is due of the session at now and says when to ask again.
func (s *session) due(now tick) tick {
	w := s.e.wheel
	if at := tick(s.shutAt.Load()); at != 0 {
		if now >= at+w.close {
			s.cut()
		}
		return max(at+w.close, now+w.second)
	}
	if s.closing.Load() {
		return now + w.second
	}
	next := s.idle(now)
	if end := s.expiry(now); end != 0 && (next == 0 || end < next) {
		next = end
	}
	if ping := s.life(now); next == 0 || ping < next {
		next = ping
	}
	return next
}

// life looks after what shows that the peer is there, and says when to ask again.
func (s *session) life(now tick) tick {
	w := s.e.wheel
	// A busy session's pong may lie unread, a blocked one is the hub's to judge.
	if s.busy.Load() || s.blocked.Load() {
		return now + w.second
	}
	if at := tick(s.partAt.Load()); at != 0 && now >= at+w.assembly {
		s.close(CloseTimeout, "message not complete")
		return now + w.second
	}
	return s.keepalive(now)
}

// clock is the earliest deadline that others than the wheel have set, 0 if there is none.
func (s *session) clock() (at tick) {
	w := s.e.wheel
	if p := tick(s.partAt.Load()); p != 0 {
		at = p + w.assembly
	}
	if end := tick(s.expires.Load()); end != 0 && (at == 0 || end < at) {
		at = end
		if warn := tick(s.warnAt.Load()); warn != 0 {
			at = min(at, max(warn, w.now()+1))
		}
	}
	if p := tick(s.shutAt.Load()); p != 0 {
		at = p + w.close
	}
	return at
}

func (s *session) keepalive(now tick) tick {
	w := s.e.wheel
	switch s.ping.Load() {
	case pingNone:
		if seen := tick(s.seen.Load()); now < seen+w.ping {
			return seen + w.ping
		}
		s.ping.Store(pingQueued)
		s.h.Send("", frame.AppendPing(nil))
		return now + w.pong
	case pingWritten:
		at := tick(s.pingAt.Load()) + w.pong
		if now < at {
			return at
		}
		s.close(CloseTimeout, "")
	}
	return now + w.second
}

// close ends the session with a close frame behind the replies posted so far. The first call counts: only it returns true.
// reason "" is the code's own.
func (s *session) close(code CloseCode, reason string) bool {
	if s.closing.Swap(true) {
		return false
	}
	if reason == "" {
		reason = code.reason()
	}
	s.e.metrics.closed(code)
	s.closes(code, reason)
	if code.misconduct() {
		s.e.log.Info("session closed", "session_id", s.h.ID, "code", int(code), "reason", reason)
	}
	s.h.Close(frame.AppendClose(nil, int(code), reason))
	return true
}

// answerClose ends the session as its peer asked, with the peer's code.
func (s *session) answerClose(code uint16, reason string) {
	if s.closing.Swap(true) {
		return
	}
	s.e.metrics.closed(CloseCode(code))
	s.closes(CloseCode(code), reason)
	s.h.Close(frame.AppendClose(nil, int(code), ""))
}

// alive notes a sign of life: a received byte, or room in a socket that was full.
func (s *session) alive() {
	s.seen.Store(uint32(s.e.wheel.now()))
	if s.ping.Load() != pingNone {
		s.ping.Store(pingNone)
	}
}

// wrote is told of each write that took all bytes: an own ping among them begins its deadline.
func (s *session) wrote() {
	if s.ping.Load() == pingQueued {
		s.pingAt.Store(uint32(s.e.wheel.now()))
		s.ping.CompareAndSwap(pingQueued, pingWritten)
	}
}
