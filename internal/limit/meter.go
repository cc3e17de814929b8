package limit

import (
	"sync/atomic"
	"time"
)

// Rate is so much a second, after a first burst. The zero Rate is no limit. It is what many Meters are held to, so that each
// need not carry it.
type Rate struct{ cost, depth int64 } // nanoseconds that one costs, and that a full burst does

// Per makes a Rate: burst at once, then perSecond. With either not above 0 it is no limit.
func Per(perSecond, burst int) Rate {
	if perSecond <= 0 || burst <= 0 {
		return Rate{}
	}
	cost := max(1, int64(time.Second)/int64(perSecond))
	return Rate{cost, int64(burst) * cost}
}

// None tells whether it is no limit.
func (r Rate) None() bool { return r.depth == 0 }

// Share is a node's part of a rate that holds over so many nodes.
func (r Rate) Share(nodes int) Rate {
	if nodes > 1 {
		r.cost *= int64(nodes)
		r.depth = max(r.depth, r.cost)
	}
	return r
}

// spend tells when a meter that is full again at due would be so after n more. More than the burst are admitted when it is
// full, and paid off before the next one is. now may not be below 0.
func (r Rate) spend(due, now int64, n int) (then int64, retry time.Duration) {
	due = max(due, now)
	least := min(int64(n)*r.cost, r.depth)
	return due + int64(n)*r.cost, time.Duration(max(0, due+least-now-r.depth))
}

// Meter is what one peer has used of a Rate: eight bytes, and full at first. One goroutine at a time may use it. Times are
// nanoseconds since whenever the caller's clock began.
type Meter struct{ due int64 }

// Take admits n events together, or tells how long until they would be. It never waits, and what it refuses costs nothing.
func (m *Meter) Take(r Rate, now int64, n int) (retry time.Duration, ok bool) {
	then, retry := r.spend(m.due, now, n)
	if retry > 0 {
		return retry, false
	}
	m.due = then
	return 0, true
}

// Shared is a Meter that may be used concurrently.
type Shared struct{ due atomic.Int64 }

// Take is that of Meter.
func (s *Shared) Take(r Rate, now int64, n int) (retry time.Duration, ok bool) {
	for {
		due := s.due.Load()
		then, retry := r.spend(due, now, n)
		if retry > 0 {
			return retry, false
		}
		if s.due.CompareAndSwap(due, then) {
			return 0, true
		}
	}
}

// Peek tells what Take would of one event, and takes nothing.
func (s *Shared) Peek(r Rate, now int64) (retry time.Duration, ok bool) {
	_, retry = r.spend(s.due.Load(), now, 1)
	return retry, retry == 0
}
