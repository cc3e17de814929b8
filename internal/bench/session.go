package bench

import (
	"math/rand/v2"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// state is where a session's connection stands.
type state uint8

const (
	waiting state = iota // until due, then it is dialled
	dialling
	opening // connected; until due for `subscribed`
	live
	closing // a close frame was sent; until due for the server's
	ended   // it will not come back
)

// session is one connection after the other that hold one place in one room. All but the first group belongs to the
// session's reader; while it is dialled the dialler sees a job, not the session.
type session struct {
	room   *room
	number int
	target int // among the swarm's; where it is connected, or will be
	slow   bool
	flaps  bool

	state   state
	opened  bool // it was live once
	fd      int
	due     int64 // nanoseconds; of a live session when it drops its connection, 0: never
	attempt int   // since the last welcome
	tries   int   // connections that ended, or did not come about
	carry   []byte
	mine    bool // the session itself is ending the connection

	// Where to resume.
	id  message.ID // of the last frame seen, if own
	own bool       // it was not a message of the room: those are found by place

	replaying bool // a resumed connection before `subscribed`
	mayRepeat bool // and one whose position was not exact
	record
}

// resume is the last_id for the next connection; zero: nothing was seen.
func (s *session) resume() message.ID {
	if i := s.lastSeen(); !s.own && i != unknown {
		id, _ := message.ParseID(s.room.order[i].id[:])
		return id
	}
	return s.id
}

// connected begins, now, a connection that resumes from id.
func (s *session) connected(fd int, now int64, id message.ID) {
	s.state, s.fd, s.due, s.mine = opening, fd, now+int64(openTimeout), false
	s.replaying = !id.IsZero()
	// An id of another room, or one seen during an outage, brings back more than was missed.
	s.mayRepeat = s.replaying && (id.Low.Tag() != s.room.tag || s.room.disturbed(now))
}

const (
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
)

// backoff is the protocol's: full jitter, 1 s doubling to 30 s, begun anew after welcome.
func backoff(attempt int, rng *rand.Rand) time.Duration {
	most := lastBackoff
	if attempt < 5 {
		most = firstBackoff << attempt
	}
	return time.Duration(rng.Int64N(int64(most)))
}

// comesBack tells by a close code whether a session may reconnect, and whether at once. 0 is a connection that broke. A
// token that expired (4500) cannot be replaced here.
func comesBack(code int) (again, atOnce bool) {
	switch {
	case code == 1012:
		return true, true
	case code == 0, code == 1001, code == 1005, code == 1006, code == 1011, code == 1013, code >= 4000 && code <= 4499:
		return true, false
	}
	return false, false
}
