package hub

import (
	"slices"

	"github.com/slack5/realtime/internal/message"
)

const (
	minChunk = 1 << 10
	maxChunk = 64 << 10
)

// chunk holds whole frames. Its array is never replaced and a byte once written never changes, so those who took a
// snapshot read it without a lock.
type chunk struct {
	b    []byte // all of the array
	base int64  // byte offset of b[0] in the log
	used int    // bytes filled; final once a newer chunk exists. Guarded by the room's lock
	end  int64  // number behind its last entry; final like used
}

// log is a room's frames, oldest first, numbered on this node by its own signed count. It grows at both ends: Append adds
// at the head, fillers put pages of history in front. Guarded by the room's lock.
type log struct {
	index
	chunks []*chunk
	first  int32                      // number of chunks[0]
	bytes  int64                      // what the chunks and index pages hold, charged to the node's budget
	masked map[int64]*message.Message // exclusions of the entries that have some, by entry number
	news   int                        // presence entries
	blind  int                        // members that do not see those
	strays int                        // belated entries
	// Of the belated entries that fell off, which no place of a member tells of: behind the newest of them, and how often some
	// had fallen when it did.
	strayEnd   int64
	strayFalls uint32
	// base: everything at or before it is not in the log. It is the stored position before the front, or, of a room
	// without history, the broker's time when the room was asked for.
	base message.Position
	// link is the position that the first stored entry names as its predecessor; without one, the room's tip. 0: none.
	link message.Position
	pos  message.Position // of the newest stored entry, else base
	// bottom: history has been read to its end and what lies below the front cannot be had.
	bottom    bool
	cut       message.Position // with bottom: history was deleted up to here
	since     message.Position // with bottom: the broker vouches from here
	lost      bool             // with bottom: what lies below the front was lost, not let go
	limited   bool             // with bottom: history has more, but it was not to be read
	stretches []stretch        // degraded times, oldest first
}

// stretch is a time in which the broker was away: entries [from, to). Open while to is 0. torn: it began before, but that has
// fallen off.
type stretch struct {
	from, to int64
	torn     bool
}

// follow notes the predecessor of a stored entry; that of the first one of a room that had no tip is its link.
func (l *log) follow(prev message.Position) {
	if l.link == 0 && prev != 0 && l.pos == l.base {
		l.link = prev
	}
}

// add appends a frame as the next entry and returns its number.
func (l *log) add(f []byte, e rec) (n int64) {
	c := l.room(len(f))
	n = l.head
	e.off, e.chunk = c.base+int64(c.used), l.first+int32(len(l.chunks))-1
	c.used += copy(c.b[c.used:], f)
	l.bytes += l.push(e)
	l.pos = e.pos
	c.end = l.head
	return n
}

// room returns the newest chunk with at least n bytes free, making one if need be.
func (l *log) room(n int) *chunk {
	var last *chunk
	size, base := minChunk, int64(0)
	if k := len(l.chunks); k > 0 {
		last = l.chunks[k-1]
		if len(last.b)-last.used >= n {
			return last
		}
		size, base = 2*len(last.b), last.base+int64(last.used)
	}
	c := &chunk{b: make([]byte, max(n, min(max(size, 4*n), maxChunk))), base: base, end: l.head}
	l.chunks = append(l.chunks, c)
	l.bytes += int64(len(c.b))
	return c
}

// splice puts frames in front: they lie one after another in b, es tells where. They get the numbers below the front, so
// nothing changes its place.
func (l *log) splice(b []byte, es []rec, base, link message.Position) {
	if len(es) > 0 {
		at := int64(0)
		if len(l.chunks) > 0 {
			at = l.chunks[0].base
		}
		c := &chunk{b: b, base: at - int64(len(b)), used: len(b), end: l.front}
		l.first--
		l.chunks = append([]*chunk{c}, l.chunks...)
		l.bytes += int64(cap(b))
		l.own()
		for _, e := range slices.Backward(es) {
			e.off += c.base
			e.chunk = l.first
			l.bytes += l.unshift(e)
		}
	}
	l.base, l.link = base, link
}

// evict drops the oldest chunk, and what else is left of a degraded time that it cuts into: half of one cannot be placed. One
// that is not over yet goes on, for those who have seen what it began with.
func (l *log) evict() {
	c, n := l.chunks[0], l.chunks[0].end
	for _, st := range l.stretches {
		if st.from < n && st.to > n {
			n = st.to
		}
	}
	if n > l.front {
		if p := l.at(n - 1).pos; p > l.base {
			l.base, l.link = p, p
		}
	}
	l.bottom, l.limited = false, false
	l.dropTo(max(n, l.front))
	for i := range l.stretches {
		if st := &l.stretches[i]; st.from < l.front {
			st.from, st.torn = l.front, true
		}
	}
	l.chunks = slices.Clone(l.chunks[1:])
	l.first++
	l.bytes -= int64(cap(c.b))
}

// mixed tells whether some entries are not for every member.
func (l *log) mixed() bool { return len(l.masked) > 0 || l.news > 0 && l.blind > 0 }

// mask notes an entry's exclusions.
func (l *log) mask(n int64, m *message.Message) {
	if l.masked == nil {
		l.masked = make(map[int64]*message.Message)
	}
	l.masked[n] = m
}

// dropTo moves the front.
func (l *log) dropTo(n int64) {
	if l.news+len(l.masked)+l.strays > 0 {
		for i := l.front; i < n; i++ {
			flags := l.at(i).flags
			switch {
			case flags&excluding != 0:
				delete(l.masked, i)
			case flags&presence != 0:
				l.news--
			}
			if flags&belated != 0 {
				l.strays--
				l.strayEnd, l.strayFalls = i+1, l.falls+1
			}
		}
	}
	l.bytes -= l.shift(n)
	for len(l.stretches) > 0 && l.stretches[0].to != 0 && l.stretches[0].to <= n {
		l.stretches = l.stretches[1:]
	}
}

// clear drops everything up to pos, which history no longer has.
func (l *log) clear(pos message.Position) {
	for len(l.chunks) > 0 {
		l.evict()
	}
	if k := len(l.stretches); k > 0 && l.stretches[k-1].to == 0 { // what was shown in it is not stored yet, nor deleted
		l.stretches = []stretch{{from: l.head, torn: l.stretches[k-1].torn || l.head > l.stretches[k-1].from}}
	} else {
		l.stretches = nil
	}
	l.base = max(l.base, pos)
	l.link, l.pos = l.base, max(l.pos, l.base)
	l.bottom, l.limited, l.lost, l.cut, l.since = true, false, false, l.base, 0
}

// end is the byte offset behind the newest frame.
func (l *log) end() int64 {
	if len(l.chunks) == 0 {
		return 0
	}
	c := l.chunks[len(l.chunks)-1]
	return c.base + int64(c.used)
}

// place is where one who has received everything up to q goes on: behind the stored entry q, or behind the last one
// before it. q must not lie below base.
func (l *log) place(q message.Position) int64 {
	hi := l.search(q + 1)
	if hi == l.front {
		return hi
	}
	lo := l.search(l.at(hi - 1).pos)
	if l.at(lo).flags&stored != 0 {
		return lo + 1
	}
	return lo
}

// tail returns the number after which at most keep stored entries lie before j.
func (l *log) tail(j int64, keep int) (n int64, cut bool) {
	for n = j; n > l.front; n-- {
		if l.at(n-1).flags&stored != 0 {
			if keep--; keep < 0 {
				return n, true
			}
		}
	}
	return n, false
}
