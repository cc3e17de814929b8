package bench

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/slack5/realtime/internal/wire"
)

// tick does what is due.
func (r *reader) tick(now int64) {
	p := r.swarm.at()
	drained := p == draining && r.phase != draining
	r.phase = p
	slow := now >= r.slowAt
	if slow {
		r.slowAt = now + int64(slowEvery)
	}
	for _, s := range r.mine {
		if s.slow && s.state > dialling && s.state != ended {
			if drained {
				_ = r.watch(s.fd) // if it cannot be read, that shows as loss
			} else if slow && p != draining {
				r.read(s, slowBytes)
			}
		}
		r.due(s, now)
	}
}

func (r *reader) due(s *session, now int64) {
	switch s.state {
	case waiting:
		if now >= s.due {
			s.state = dialling
			r.swarm.jobs <- job{session: s, target: r.swarm.targets[s.target], room: s.room.name, number: s.number, slow: s.slow, last: s.resume(), answer: r.answer}
		}
	case opening:
		if now >= s.due {
			r.swarm.blame(fmt.Errorf("not subscribed within %v of the handshake", openTimeout))
			r.gone(s, "no subscribed", true, false)
		}
	case closing:
		if now >= s.due {
			r.gone(s, "own", true, s.flaps)
		}
	case live:
		if r.phase != churning || r.swarm.churn == 0 && !s.flaps {
			s.due = 0
		} else if s.due == 0 {
			s.due = now + max(1, r.life(s))
		} else if now >= s.due {
			r.drop(s, now)
		}
	}
}

// life is how long a connection is to live.
func (r *reader) life(s *session) int64 {
	if s.flaps {
		return int64((0.5 + r.rng.Float64()) * float64(r.swarm.flapEvery))
	}
	return int64(r.rng.ExpFloat64() * float64(r.swarm.churn))
}

// drop ends a connection in one of the ways connections end: cut, ended without a word, closed politely.
func (r *reader) drop(s *session, now int64) {
	switch r.rng.IntN(3) {
	case 0:
		// The peer gets a reset, and what it sent meanwhile is lost.
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		r.gone(s, "own", true, s.flaps)
	case 1:
		r.gone(s, "own", true, s.flaps)
	default:
		r.notLive(s)
		s.state, s.due, s.mine = closing, now+int64(closeTimeout), true
		r.send(s, wire.OpClose, []byte{1001 >> 8, 1001 & 0xff})
	}
}

// closed: the server ended the connection, with a code or, 0, without.
func (r *reader) closed(s *session, code int) {
	if s.mine {
		r.gone(s, "own", true, s.flaps)
		return
	}
	again, atOnce := comesBack(code)
	cause := "cut"
	if code != 0 {
		cause = strconv.Itoa(code)
	}
	if !again {
		r.swarm.blame(fmt.Errorf("the server closed a session with %d", code))
	}
	r.gone(s, cause, again, atOnce)
}

// gone gives the connection up.
func (r *reader) gone(s *session, cause string, again, atOnce bool) {
	r.notLive(s)
	r.causes[cause]++
	delete(r.table, int32(s.fd))
	_ = unix.Close(s.fd)
	s.fd, s.carry = -1, nil
	r.later(s, again, atOnce, r.swarm.clock.now())
}

func (r *reader) notLive(s *session) {
	if s.state == live {
		r.liveNow.Add(-1)
	}
}

// later plans the next connection, if there is to be one.
func (r *reader) later(s *session, again, atOnce bool, now int64) {
	if s.tries++; !again || !s.opened && s.tries >= openAttempts {
		s.state = ended
		r.swarm.gone.Add(1)
		return
	}
	if s.flaps {
		s.target = (s.target + 1) % len(r.swarm.targets)
	}
	s.state, s.due = waiting, now
	if !atOnce {
		s.due += int64(backoff(s.attempt, r.rng))
		s.attempt++
	}
}
