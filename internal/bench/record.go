package bench

import (
	"bytes"
	"slices"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// entry is a message as the first session of its room saw it.
type entry struct {
	id   idText
	mark [markBytes]byte
	size uint32 // of the whole frame's JSON
	sent int64  // nanoseconds on the publishers' clock
}

// sight is what makes two frames the same: one id and one author.
type sight struct {
	id message.ID
	by author
}

// room is what sessions saw of one room. It belongs to the reader of its sessions; the judge reads it when that has ended.
type room struct {
	name    string
	number  int
	tag     uint16
	members atomic.Int64 // sessions that were live in it once

	order  []entry          // every message, each once, in the order of first sight
	index  map[sight]uint32 // place in order
	away   int64            // when a session was told last that the broker is away, or back; nanoseconds
	middle []byte           // what stands between id and mark in every message of the room; empty: not learned yet
}

func newRoom(name string, number int) *room {
	return &room{name: name, number: number, tag: message.Room(name).Tag(), index: map[sight]uint32{}}
}

// afterOutage is how long after one a message may still come again to who reconnects: what was lost may be put back.
const afterOutage = 30 * time.Second

// disturbed tells whether there is an outage, or was one not long ago. Its end is told as well as its beginning.
func (r *room) disturbed(now int64) bool { return r.away != 0 && now-r.away < int64(afterOutage) }

// is tells, by comparing alone, whether p is the frame of e.
func (e *entry) is(p, middle []byte) bool {
	const m = idAt + message.IDBytes
	at := m + len(middle)
	return len(p) == int(e.size) && len(p) >= at+markBytes && len(middle) > 0 &&
		string(p[idAt:m]) == string(e.id[:]) && string(p[at:at+markBytes]) == string(e.mark[:]) && bytes.Equal(p[m:at], middle)
}

// place returns where the message is in the room's order, which it enters if nobody saw it before.
func (r *room) place(s sight, e entry, p []byte) uint32 {
	if i, ok := r.index[s]; ok {
		return i
	}
	i := uint32(len(r.order))
	r.order = append(r.order, e)
	r.index[s] = i
	if len(r.middle) == 0 {
		r.learn(&e, p)
	}
	return i
}

// learn finds out what all frames of the room have in common. A server that puts a frame together in another order is
// read all the same, at more cost.
func (r *room) learn(e *entry, p []byte) {
	const m = idAt + message.IDBytes
	if at := bytes.Index(p, e.mark[:]); at > m && string(p[idAt:m]) == string(e.id[:]) {
		r.middle = bytes.Clone(p[m:at])
	}
}

// run is a stretch of a room's order as a session saw it, without a hole or a repeat.
type run struct {
	from, to uint32
	inexact  bool // part of a replay that may repeat
}

// hole is what a gap frame told: nothing between the two positions can be had.
type hole struct{ after, before message.Position }

// unknown is no place in any order.
const unknown = ^uint32(0)

// openEnd: what follows the hole is not known yet.
const openEnd = ^message.Position(0)

// record is everything a session saw of its room, exactly: runs over the room's order. A session that saw what the
// others saw has one. It belongs to the session's reader.
type record struct {
	from, next uint32           // the run under way; next is unknown while there is none
	seen       uint32           // place of the message seen last; kept while there is no run under way
	top        uint32           // one above the highest place seen
	inexact    bool             // the run under way is
	open       bool             // the last hole waits for what follows it
	begun      bool             // start is known
	start      message.Position // what is behind it is owed
	runs       []run            // those before the one under way
	holes      []hole

	most    int              // runs
	spilled int64            // frames seen when there were that many: not recorded
	until   message.Position // position of the first of them: nothing from there on is judged
}

// What a server that is wrong all the time can make a session remember, and a node that shows its own members' messages
// first while Redis is away: each of those is a run then.
const (
	maxRuns      = 1 << 12
	maxRunsFault = 1 << 17
)

func newRecord(most int) record { return record{next: unknown, seen: unknown, most: most} }

// step notes that the session saw the message at place i, whose position is p.
func (c *record) step(i uint32, p message.Position, inexact bool) {
	if c.open {
		c.holes[len(c.holes)-1].before = p
		c.open = false
	}
	if i == c.next && inexact == c.inexact {
		c.next++
		return
	}
	c.split()
	n := len(c.runs)
	if n >= c.most {
		if c.spilled++; c.spilled == 1 {
			c.until = p
		}
		return
	}
	c.from, c.next, c.inexact = i, i+1, inexact
	if n > 0 && c.runs[n-1].to == i && c.runs[n-1].inexact == inexact {
		c.from = c.runs[n-1].from
		c.runs = c.runs[:n-1]
	}
}

// split ends the run under way: the next frame is looked up.
func (c *record) split() {
	if c.next == unknown {
		return
	}
	c.runs = append(c.runs, run{c.from, c.next, c.inexact})
	c.seen, c.next = c.next-1, unknown
}

// gap notes a hole at this place; a before of 0 is the position of what will be seen next.
func (c *record) gap(after, before message.Position) {
	c.open = before == 0
	if c.open {
		before = openEnd
	}
	c.holes = append(c.holes, hole{after, before})
	c.split()
}

// has tells whether the session saw the message at place i, in the last lookBack runs: it is for figures, not for the verdict.
func (c *record) has(i uint32) bool {
	const lookBack = 256
	latest := c.runs[max(0, len(c.runs)-lookBack):]
	return c.next != unknown && c.from <= i && i < c.next || slices.ContainsFunc(latest, func(r run) bool { return r.from <= i && i < r.to })
}

// fresh tells whether the message at place i is new to the session, which is about to see it.
func (c *record) fresh(i uint32) bool {
	if i >= c.top {
		c.top = i + 1
		return true
	}
	return !c.has(i)
}

// lastSeen is the place of the message seen last, or unknown.
func (c *record) lastSeen() uint32 {
	if c.next != unknown {
		return c.next - 1
	}
	return c.seen
}
