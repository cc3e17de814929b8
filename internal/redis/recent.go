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
	known map[message.Low]struct{}
	order []seen // oldest first
}

type seen struct {
	low message.Low
	at  time.Duration
}

func (r *recent) has(low message.Low) bool {
	_, ok := r.known[low]
	return ok
}

// add remembers an identity that is not known; now is the time since the broker's start.
func (r *recent) add(low message.Low, now time.Duration) {
	if r.known == nil {
		r.known = make(map[message.Low]struct{})
	}
	r.known[low] = struct{}{}
	r.order = append(r.order, seen{low, now})
	for n := len(r.order); n > recentLeast && (n > recentMost || r.order[0].at < now-recentFor); n-- {
		delete(r.known, r.order[0].low)
		r.order = r.order[1:] // the array is left behind when it next grows
	}
}
