package edge

import (
	"sync"
	"sync/atomic"
	"time"
)

// tick counts units of the wheel's time, from 1: 0 is "not".
type tick uint32

const (
	slots = 256 // a deadline beyond them is looked at once on the way

	coarse = 250 * time.Millisecond // the unit, unless configured times ask for a finer one
	fine   = 2 * time.Millisecond
)

// wheel holds each session in the slot of its next deadline, of whatever kind: an idle session costs its two links and no
// timer. One goroutine turns it and asks each session of a slot what is due. It also is the edge's coarse clock, and its
// list of sessions.
type wheel struct {
	unit    time.Duration
	started time.Time
	clock   atomic.Uint32

	// static: the deadlines in units
	second, ping, pong, assembly, close, warn, away tick

	mu     sync.Mutex
	slots  [slots]*session // heads of lists through session.next
	sealed bool            // a drain has listed the sessions
}

func newWheel(c *Config) *wheel {
	w := &wheel{started: time.Now()}
	shortest := min(c.PingInterval, c.PongTimeout, c.AssemblyTimeout, c.CloseTimeout)
	w.unit = min(max(shortest/8, fine), coarse)
	w.second = w.ticks(time.Second)
	w.ping, w.pong = w.ticks(c.PingInterval), w.ticks(c.PongTimeout)
	w.assembly, w.close = w.ticks(c.AssemblyTimeout), w.ticks(c.CloseTimeout)
	w.warn, w.away = w.ticks(warnBefore), w.ticks(max(c.AwayAfter, 0))
	w.clock.Store(1)
	return w
}

// ticks rounds up, so that nobody gets less time than promised: the current unit has begun already.
func (w *wheel) ticks(d time.Duration) tick { return tick((d+w.unit-1)/w.unit) + 1 }

func (w *wheel) now() tick { return tick(w.clock.Load()) }

func (w *wheel) run(stop <-chan struct{}) {
	t := time.NewTicker(w.unit)
	defer t.Stop()
	var due []*session
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		// A late tick is made up for: the ticker drops what it could not deliver.
		for end := tick(time.Since(w.started)/w.unit) + 1; w.now() < end; {
			due = w.turn(due)
		}
	}
}

// turn goes on by one slot. The sessions stay in the list while they are asked, so that all and Drain see every one.
func (w *wheel) turn(due []*session) []*session {
	now := tick(w.clock.Add(1))
	w.mu.Lock()
	for s := w.slots[now%slots]; s != nil; s = s.next {
		if s.at == now {
			due = append(due, s)
		}
	}
	w.mu.Unlock()
	for _, s := range due {
		next := s.due(now)
		w.mu.Lock()
		if s.linked && s.at == now { // nobody has moved or removed it meanwhile
			w.unlink(s)
			w.link(s, next, now)
		}
		w.mu.Unlock()
	}
	clear(due)
	return due[:0]
}

// add takes a session in, to be asked at at. late: a drain has listed the sessions before, and this one is not among them.
func (w *wheel) add(s *session, at tick) (late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link(s, at, w.now())
	return w.sealed
}

// seal lists the sessions for a drain; add tells of those that come after.
func (w *wheel) seal() []*session {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sealed = true
	return w.allLocked()
}

// hasten moves a session's deadline to at, unless it comes earlier anyway. It must have been added.
func (w *wheel) hasten(s *session, at tick) {
	w.mu.Lock()
	if s.linked && s.at > at {
		w.unlink(s)
		w.link(s, at, w.now())
	}
	w.mu.Unlock()
}

func (w *wheel) remove(s *session) {
	w.mu.Lock()
	if s.linked {
		w.unlink(s)
	}
	w.mu.Unlock()
}

func (w *wheel) all() []*session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allLocked()
}

func (w *wheel) allLocked() (list []*session) {
	for _, s := range w.slots {
		for ; s != nil; s = s.next {
			list = append(list, s)
		}
	}
	return list
}

// link puts s where at falls, within the slots ahead. The lock is held. A clock may have been set while s was not linked,
// or still in its old slot, so that hasten left it alone.
func (w *wheel) link(s *session, at, now tick) {
	if c := s.clock(); c > now {
		at = min(at, c)
	}
	s.at = min(max(at, now+1), now+slots-1)
	s.linked = true
	head := &w.slots[s.at%slots]
	s.prev, s.next = nil, *head
	if s.next != nil {
		s.next.prev = s
	}
	*head = s
}

// unlink takes s out. The lock is held.
func (w *wheel) unlink(s *session) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		w.slots[s.at%slots] = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next, s.linked = nil, nil, false
}
