package hub

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Back-pressure bounds the delay that a saturated room builds up: what a room owes its members is time they are late.
const (
	beginWithin  = 100 * time.Millisecond // a shard that has not begun to write an entry of this age holds publishers up
	roomLate     = 128 << 20              // divided by the members: from here on behind, a member is late. At 1 GB/s of writes, 130 ms
	minLate      = 64 << 10
	unbegunShare = 4 // a shard that has not begun a quarter of what makes a member late holds publishers up, too
	maxLate      = 512 << 10
	lateFor      = 2 * time.Second       // a member counts as late for so long, then it is merely slow until it has caught up
	readyWithin  = time.Second           // a publisher waits no longer
	readyRecheck = 10 * time.Millisecond // for members that are late no longer; a shard that begins is told of at once
)

// Ready waits until the room's members on this node can take another message. It returns nil at once in all but a saturated
// room; ErrOverloaded after a second, or ctx's error. A minority of slow members never makes it wait.
func (h *Hub) Ready(ctx context.Context, name message.Room) error {
	r := h.lookup(name)
	if r == nil {
		return nil
	}
	begun := r.overloaded(time.Now())
	if begun == nil {
		return nil
	}
	h.stats.waits.Add(1)
	end := time.NewTimer(readyWithin)
	defer end.Stop()
	again := time.NewTicker(readyRecheck)
	defer again.Stop()
	for begun != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return ErrOverloaded
		case <-begun:
		case <-again.C:
		}
		begun = r.overloaded(time.Now())
	}
	return nil
}

// overloaded returns nil, or what is closed when a shard begins with what it has not begun.
func (r *room) overloaded(now time.Time) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return nil
	}
	over := 2*r.late.Load() > r.count.Load()
	limit, bytes := now.Add(-beginWithin).UnixMilli(), lateBytes(r.count.Load())/unbegunShare
	for _, t := range r.tables {
		if since := t.since.Load(); since != 0 && (since < limit || r.log.end()-t.begun > bytes) {
			over = true
		}
	}
	if !over {
		return nil
	}
	if r.begun == nil {
		r.begun = make(chan struct{})
	}
	return r.begun
}

// lateBytes is how far behind a member of a room of n is late.
func lateBytes(n int32) int64 {
	return min(max(roomLate/int64(max(n, 1)), minLate), maxLate)
}
