package broker

import (
	"sort"
	"sync"

	"github.com/slack5/realtime/internal/message"
)

// memoryRoom is guarded by its lock. The Sink is called under it, so it hears of the room in position order.
type memoryRoom struct {
	name      message.Room
	retention Retention

	mu         sync.Mutex
	subscribed bool
	dead       bool // no longer in the stripe: look again
	tip, cut   message.Position
	before     message.Position       // of the entry before the first one kept
	entries    ring[*message.Message] // kept, oldest first; their Prev is their neighbour's position
	bytes      int64                  // charged for them, and for the room if there are any
	keys       memoryKeys
}

// What a kept message occupies besides its texts: the struct, the allocator's rounding of the texts, and its place in the
// ring, which may be half empty.
const (
	messageCost = 160 + 16 + 16
	textCost    = 16
	// roomCost is a room's own: the struct, its name, its place in the stripe, the smallest ring.
	roomCost = 288
)

// cost is what a kept message is charged: it does not change while it is kept.
func cost(m *message.Message) int64 {
	n := messageCost + cap(m.Data) + len(m.From)
	for _, texts := range [...][]string{m.ExcludeSessions, m.ExcludeUsers} {
		for _, s := range texts {
			n += 16 + textCost + len(s)
		}
	}
	return int64(n)
}

// keep appends a message and lets go of what the retention does not cover any more. It returns by how much the room has
// grown.
func (r *memoryRoom) keep(m *message.Message, ms int64) int64 {
	n := cost(m)
	if r.entries.n == 0 {
		n += roomCost
	}
	r.bytes += n
	r.entries.push(m)
	return n - r.trim(ms)
}

// trim lets go of what is too much or too old, and returns what that frees.
func (r *memoryRoom) trim(ms int64) (freed int64) {
	oldest := message.At(ms, 0).Before(max(r.retention.Age, 0))
	for r.entries.n > 0 && (r.entries.n > r.retention.Messages || r.entries.at(0).ID.Position < oldest) {
		freed += r.drop()
	}
	return freed
}

// drop lets go of the oldest entry.
func (r *memoryRoom) drop() (freed int64) {
	m := r.entries.pop()
	r.before = m.ID.Position
	freed = cost(m)
	if r.entries.n == 0 {
		freed += roomCost
	}
	r.bytes -= freed
	return freed
}

// shrink lets go of the oldest entries until no more than bytes are charged.
func (r *memoryRoom) shrink(bytes int64) (freed int64) {
	for r.bytes > bytes && r.entries.n > 0 {
		freed += r.drop()
	}
	return freed
}

// clear deletes the history.
func (r *memoryRoom) clear() (freed int64) {
	freed = r.bytes
	r.entries, r.bytes = ring[*message.Message]{}, 0
	r.before, r.cut = r.tip, r.tip
	return freed
}

// empty tells that the room is nothing but its tip.
func (r *memoryRoom) empty() bool {
	return !r.subscribed && r.entries.n == 0 && r.keys.order.n == 0
}

// page answers a query.
func (r *memoryRoom) page(q message.Query) message.Page {
	p := message.Page{Tip: r.tip, Cut: r.cut}
	n, size := 0, 0
	fits := func(m *message.Message) bool {
		if q.Limit > 0 && n == q.Limit {
			return false
		}
		size += len(m.Data) + len(m.From) + len(m.Type) + len(m.Room)
		return n == 0 || q.Bytes <= 0 || size <= q.Bytes
	}
	var first int
	if q.Backward {
		end := r.entries.n
		if q.From != 0 {
			end = r.after(q.From - 1)
		}
		for n < end && fits(r.entries.at(end-n-1)) {
			n++
		}
		first = end - n
		p.More = first > 0
	} else {
		first = r.after(q.From)
		for first+n < r.entries.n && fits(r.entries.at(first+n)) {
			n++
		}
		p.More = first+n < r.entries.n
	}
	if n == 0 {
		return p
	}
	prev := r.before
	if first > 0 {
		prev = r.entries.at(first - 1).ID.Position
	}
	p.Entries = make([]message.Entry, n)
	for i := range p.Entries {
		m := r.entries.at(first + i)
		p.Entries[i] = message.Entry{Message: m, Prev: prev}
		prev = m.ID.Position
	}
	return p
}

// after is the index of the first entry behind pos.
func (r *memoryRoom) after(pos message.Position) int {
	return sort.Search(r.entries.n, func(i int) bool { return r.entries.at(i).ID.Position > pos })
}
