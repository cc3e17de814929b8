package broker

import (
	"sort"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// sweep forgets what is too old in a stripe: entries, keys, and rooms of which Page.Since tells as much as their tip did.
func (b *Memory) sweep(st *memoryStripe) {
	ms, now := b.clock.read(time.Now()), time.Since(b.start)
	var empty []emptyRoom
	for _, r := range st.list() {
		r.mu.Lock()
		b.bytes.Add(-r.trim(ms))
		b.keys.Add(-r.keys.expire(now))
		if r.empty() {
			empty = append(empty, emptyRoom{r, r.tip})
		}
		r.mu.Unlock()
	}
	gone := empty[:0]
	sort.Slice(empty, func(i, j int) bool { return empty[i].tip < empty[j].tip })
	for i, e := range empty {
		switch at := message.At(ms, 0); {
		case e.tip < at.Before(e.r.retention.remembered()):
		case i < len(empty)-b.maxEmpty && e.tip < at: // its positions go on from the clock
			b.forgotten.Store(max(b.forgotten.Load(), uint64(e.tip)))
		default:
			continue
		}
		gone = append(gone, e)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, e := range gone {
		e.r.mu.Lock()
		if e.r.empty() && e.r.tip == e.tip { // nobody has come meanwhile
			e.r.dead = true
			delete(st.rooms, e.r.name)
		}
		e.r.mu.Unlock()
	}
}

type emptyRoom struct {
	r   *memoryRoom
	tip message.Position // when it was looked at
}

// shrink takes the oldest entries of the largest rooms until an eighth of the bound is free: so the rooms are looked
// through once for many messages. All rooms above one size come down to it, the others keep what they have.
func (b *Memory) shrink() {
	b.shrinking.Lock()
	defer b.shrinking.Unlock()
	goal := b.cfg.MaxBytes - b.cfg.MaxBytes/8
	if b.bytes.Load() <= goal {
		return // another has done it
	}
	var rs []sizedRoom
	total := int64(0)
	for i := range b.stripes {
		for _, r := range b.stripes[i].list() {
			r.mu.Lock()
			n := r.bytes
			r.mu.Unlock()
			if n > 0 {
				rs = append(rs, sizedRoom{r, n})
				total += n
			}
		}
	}
	excess := total - goal
	level := levelFor(rs, excess)
	for _, s := range rs {
		if s.bytes <= level || excess <= 0 {
			break
		}
		s.r.mu.Lock()
		freed := s.r.shrink(level)
		s.r.mu.Unlock()
		b.bytes.Add(-freed)
		excess -= freed
	}
	if now := time.Now(); now.Sub(b.warned) >= time.Minute {
		b.warned = now
		b.cfg.Logger.Warn("history is above its bound: the largest rooms lose their oldest messages", "limit_bytes", b.cfg.MaxBytes)
	}
}

type sizedRoom struct {
	r     *memoryRoom
	bytes int64 // when it was looked at
}

// levelFor sorts the rooms, largest first, and returns the size to which those above it have to come down for excess to be
// freed.
func levelFor(rs []sizedRoom, excess int64) int64 {
	sort.Slice(rs, func(i, j int) bool { return rs[i].bytes > rs[j].bytes })
	above := int64(0)
	for i := range rs {
		above += rs[i].bytes
		next := int64(0)
		if i+1 < len(rs) {
			next = rs[i+1].bytes
		}
		if k := int64(i + 1); above-k*next >= excess {
			return (above - excess) / k
		}
	}
	return 0
}
