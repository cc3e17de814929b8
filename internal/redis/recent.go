package redis

import (
	"time"

	"github.com/slack5/realtime/internal/message"
)

// A room remembers the identities of what it has delivered: so many, or so long, whichever is more, but never more than
// recentMost.
const (
	recentLeast = 512
	recentFor   = 60 * time.Second
	recentMost  = 1 << 16
)

// recent remembers what was delivered lately.
type recent struct {
	known  map[message.Low]int // how often it is in order
	order  []seen              // oldest first
	forgot message.Position    // of the stored ones that were forgotten: all that was delivered behind it is known
}

type seen struct {
	low message.Low
	pos message.Position // 0: it is not stored, or not yet
	at  time.Duration
}

func (r *recent) has(low message.Low) bool {
	_, ok := r.known[low]
	return ok
}

// add remembers an identity from now on, a time since the broker's start, even if it was known. keep: none is forgotten for
// its age.
func (r *recent) add(low message.Low, pos message.Position, now time.Duration, keep bool) {
	if r.known == nil {
		r.known = make(map[message.Low]int)
	}
	r.known[low]++
	r.order = append(r.order, seen{low, pos, now})
	for n := len(r.order); n > recentLeast && (n > recentMost || !keep && r.order[0].at < now-recentFor); n-- {
		first := r.order[0]
		if r.known[first.low]--; r.known[first.low] == 0 {
			delete(r.known, first.low)
			r.forgot = max(r.forgot, first.pos)
		}
		r.order = r.order[1:] // the array is left behind when it next grows
	}
}
