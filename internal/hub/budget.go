package hub

import (
	"context"
	"sort"
	"sync"
	"time"
)

// What a room's log keeps.
const (
	behindTimes = 8   // Config.RoomBytes while members are behind and less than half of the node's budget is spent
	calmEntries = 256 // trimmed to these, or to calmAge, whichever keeps more, while nobody is behind
	calmAge     = 60 * time.Second
	sweepEvery  = 5 * time.Second
)

// trim drops what the log need not keep; the lock is held.
func (r *room) trim(now int64) {
	l := &r.log
	for len(l.chunks) > 1 {
		c := l.chunks[0]
		over := l.bytes > r.h.cfg.RoomBytes
		// A chunk of which the end of a degraded time has taken the last has nothing left to look at.
		old := c.end <= l.front || l.head-c.end >= calmEntries && l.at(c.end-1).when < now-calmAge.Milliseconds()
		if !over && !old || !r.mayDrop(c, now) {
			return
		}
		l.evict()
	}
}

// mayDrop tells whether nobody needs the chunk, or the room may not hold it for those who do.
func (r *room) mayDrop(c *chunk, now int64) bool {
	if r.pin.UnixMilli() > now {
		return false
	}
	if r.behind.Load() == 0 && r.passed(c.end) {
		return true
	}
	return r.log.bytes > behindTimes*r.h.cfg.RoomBytes || r.log.bytes > r.h.cfg.RoomBytes && r.h.used.Load() > r.h.cfg.LogBytes/2
}

// passed tells whether all members that are not behind stand at n or further.
func (r *room) passed(n int64) bool {
	for _, t := range r.tables {
		if t.size > 0 && t.done < n {
			return false
		}
	}
	return true
}

// charge adds to what all logs hold and has the sweeper look when the budget is spent.
func (h *Hub) charge(n int64) {
	if n != 0 && h.used.Add(n) > h.cfg.LogBytes {
		h.nudge()
	}
}

func (h *Hub) nudge() {
	select {
	case h.sweep <- struct{}{}:
	default:
	}
}

// runSweeper trims logs that nobody appends to, makes room when the budget is spent, and ends empty rooms.
func (h *Hub) runSweeper(ctx context.Context) {
	tick := time.NewTicker(min(sweepEvery, max(h.cfg.Linger/4, time.Millisecond)))
	defer tick.Stop()
	calm := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.sweep:
		}
		now := time.Now()
		h.endEmpty(now)
		if h.used.Load() > h.cfg.LogBytes {
			h.makeRoom(now)
		}
		if now.Sub(calm) >= sweepEvery {
			calm = now
			for _, r := range h.awake() {
				r.shrink(now, func(*log) bool { return false })
			}
		}
	}
}

// awake lists the rooms that are not quiet.
func (h *Hub) awake() (rs []*room) {
	for _, r := range h.named("") {
		r.mu.Lock()
		if r.body != nil {
			rs = append(rs, r)
		}
		r.mu.Unlock()
	}
	return rs
}

// shrink trims the log, and drops chunks while more says so.
func (r *room) shrink(now time.Time, more func(l *log) bool) {
	r.mu.Lock()
	was := r.log.bytes
	r.trim(now.UnixMilli())
	for len(r.log.chunks) > 1 && more(&r.log) {
		r.log.evict()
	}
	freed := was - r.log.bytes
	r.mu.Unlock()
	r.h.used.Add(-freed)
}

// makeRoom goes from what is missed least to what is missed most, until a sixteenth of the budget is free: logs nobody is
// behind in down to their last chunk, then what lies above a calm log's size, then pinned fronts, the oldest pin first.
func (h *Hub) makeRoom(now time.Time) {
	goal := h.cfg.LogBytes - h.cfg.LogBytes/16
	over := func() bool { return h.used.Load() > goal }
	rs := h.awake()
	pinned := make(map[*room]time.Time)
	for _, r := range rs {
		r.mu.Lock()
		pin := r.pin
		r.mu.Unlock()
		switch {
		case pin.After(now):
			pinned[r] = pin
		case over() && r.behind.Load() == 0:
			r.shrink(now, func(*log) bool { return true })
		}
	}
	for _, r := range rs {
		if _, ok := pinned[r]; !ok && over() {
			r.shrink(now, func(l *log) bool { return l.bytes > h.cfg.RoomBytes })
		}
	}
	sort.Slice(rs, func(i, j int) bool { return pinned[rs[i]].Before(pinned[rs[j]]) })
	for _, r := range rs {
		if _, ok := pinned[r]; ok && over() {
			r.mu.Lock()
			r.pin = time.Time{}
			r.mu.Unlock()
			r.shrink(now, func(l *log) bool { return l.bytes > h.cfg.RoomBytes })
		}
	}
}

// lingering are rooms that became empty, in the order in which their linger ends.
type lingering struct {
	mu sync.Mutex
	q  []emptied
}

type emptied struct {
	r     *room
	times uint32 // room.emptied then
	end   time.Time
}

func (q *lingering) add(e emptied) {
	q.mu.Lock()
	q.q = append(q.q, e)
	q.mu.Unlock()
}

func (q *lingering) due(now time.Time) (e emptied, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.q) == 0 || q.q[0].end.After(now) {
		return e, false
	}
	e = q.q[0]
	q.q[0] = emptied{}
	if q.q = q.q[1:]; len(q.q) == 0 {
		q.q = nil
	}
	return e, true
}

// endEmpty unsubscribes rooms whose linger is over. Between the state roomLeaving and its end the room is not live, so who
// joins meanwhile waits, and has it asked for again behind the Unsubscribe.
func (h *Hub) endEmpty(now time.Time) {
	for e, ok := h.empty.due(now); ok; e, ok = h.empty.due(now) {
		r, st := e.r, h.stripe(e.r.name)
		st.mu.Lock()
		idle := r.refs == 0 && r.state == roomSubscribed && r.emptied == e.times
		if idle {
			r.state = roomLeaving
			h.reset(r) // at once: who joined the log as it is would miss what is not fed from here on
		}
		st.mu.Unlock()
		if !idle { // it has members again, or emptied once more since
			continue
		}
		h.feed.Unsubscribe(r.name)
		st.mu.Lock()
		wanted := r.refs > 0
		if wanted {
			r.state = roomSubscribed
		} else {
			delete(st.rooms, r.name)
		}
		st.mu.Unlock()
		if wanted {
			h.subscribe(r)
		}
	}
}

// reset forgets the log; numbers go on.
func (h *Hub) reset(r *room) {
	r.mu.Lock()
	if r.live = false; r.body != nil {
		h.used.Add(-r.log.bytes)
		r.log = log{index: index{front: r.log.head, head: r.log.head, fallen: r.log.head, falls: r.log.falls + 1}}
	}
	r.mu.Unlock()
}
