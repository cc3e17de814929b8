package hub

import (
	"slices"
	"sort"

	"github.com/slack5/realtime/internal/message"
)

// What an entry is.
const (
	stored    uint8 = 1 << iota // in the room's history, at pos
	degraded                    // delivered while the broker was away
	belated                     // restored behind newer ones
	ephemeral                   // in no history
	presence                    // for members that may see presence
	excluding                   // not for everyone: see log.masked
	notice                      // gap, degraded, restored: the server's own
)

// rec is an entry of the index, 32 bytes.
type rec struct {
	pos   message.Position // last stored position at or before it
	off   int64            // byte offset of its frame
	when  int64            // Unix ms of its append
	chunk int32
	flags uint8
}

const (
	pageBits  = 8
	pageSize  = 1 << pageBits
	firstPage = 16 // a small room's index: it grows to a page
	recBytes  = 32
)

// index maps entry numbers [front, head) to where they lie. Entries never change place: pages are only added at either end,
// and the table is replaced, not changed, where a snapshot could see it.
type index struct {
	pages       [][]rec
	page0       int64 // number of pages[0]
	front, head int64
	fallen      int64  // what lies below is history that was put in the place of entries which had fallen off
	falls       uint32 // how often some have
}

func (x *index) at(n int64) *rec {
	return &x.pages[n>>pageBits-x.page0][n&(pageSize-1)]
}

// push adds an entry behind the newest and returns the bytes it made the index grow by.
func (x *index) push(e rec) (grown int64) {
	n := x.head
	if len(x.pages) == 0 {
		x.page0 = n >> pageBits
	}
	switch i := n>>pageBits - x.page0; {
	case i == int64(len(x.pages)):
		size := pageSize
		if len(x.pages) == 0 && n&(pageSize-1) < firstPage {
			size = firstPage
		}
		x.pages = append(x.pages, make([]rec, size))
		grown = int64(size) * recBytes
	case n&(pageSize-1) >= int64(len(x.pages[i])):
		old := x.pages[i]
		page := make([]rec, min(pageSize, 4*len(old)))
		copy(page, old)
		x.pages = slices.Clone(x.pages)
		x.pages[i] = page
		grown = int64(len(page)-len(old)) * recBytes
	}
	x.head++
	*x.at(n) = e
	return grown
}

// own replaces the oldest page by a copy before entries are put in front: their numbers may have been others', evicted
// since, which a snapshot still reads.
func (x *index) own() {
	if len(x.pages) > 0 {
		x.pages = slices.Clone(x.pages)
		x.pages[0] = slices.Clone(x.pages[0])
	}
}

// unshift adds an entry before the oldest; own was called since the last snapshot could be taken.
func (x *index) unshift(e rec) (grown int64) {
	n := x.front - 1
	if p := n >> pageBits; len(x.pages) == 0 || p < x.page0 {
		x.pages = append([][]rec{make([]rec, pageSize)}, x.pages...)
		x.page0 = p
		grown = pageSize * recBytes
	}
	x.front = n
	*x.at(n) = e
	return grown
}

// shift drops entries before n and returns the bytes given back.
func (x *index) shift(n int64) (freed int64) {
	if n > x.front {
		x.falls++
		x.front, x.fallen = n, max(n, x.fallen)
	}
	k := 0
	for k < len(x.pages) && (x.page0+int64(k)+1)<<pageBits <= n {
		freed += int64(len(x.pages[k])) * recBytes
		k++
	}
	if k > 0 {
		x.pages = slices.Clone(x.pages[k:])
		x.page0 += int64(k)
	}
	return freed
}

// holds tells whether the entry that had number n after so many falls is there, and has that number.
func (x *index) holds(n int64, falls uint32) bool {
	return n >= x.front && (n >= x.fallen || falls == x.falls)
}

// search returns the first entry with a position of at least p, else head.
func (x *index) search(p message.Position) int64 {
	return x.front + int64(sort.Search(int(x.head-x.front), func(i int) bool { return x.at(x.front+int64(i)).pos >= p }))
}

// snap is what one traversal writes from: taken once under the room's lock, read without it.
type snap struct {
	index
	chunks []*chunk
	first  int32
	used   int   // of the newest chunk, when the snapshot was taken
	end    int64 // byte offset behind the newest frame
	pos    message.Position
	base   message.Position
	mixed  bool // some entries are not for everyone

	// what run found last: most members of a room ask the same
	from, to int64
	b        []byte
}

// take copies what the snapshot needs; the room's lock is held.
func (s *snap) take(l *log) {
	s.index, s.chunks, s.first = l.index, l.chunks, l.first
	s.pos, s.base, s.mixed, s.end = l.pos, l.base, l.mixed(), l.end()
	s.used = 0
	if k := len(l.chunks); k > 0 {
		s.used = l.chunks[k-1].used
	}
	s.from, s.to, s.b = 0, 0, nil
}

// run returns the frames from entry n to the end of its chunk, and the number behind them.
func (s *snap) run(n int64) ([]byte, int64) {
	if s.b != nil && n == s.from {
		return s.b, s.to
	}
	e := s.at(n)
	i := int(e.chunk - s.first)
	c := s.chunks[i]
	used, to := s.used, s.head
	if i < len(s.chunks)-1 {
		used, to = c.used, c.end
	}
	s.from, s.to, s.b = n, to, c.b[e.off-c.base:used]
	return s.b, to
}

// upto shortens what run returned so that it ends before entry k.
func (s *snap) upto(b []byte, n, k, to int64) ([]byte, int64) {
	if k >= to {
		return b, to
	}
	return b[:s.at(k).off-s.at(n).off], k
}

// written returns the first entry from n on of which not all of the k bytes behind n's begin were written, and how many
// bytes of it were.
func (s *snap) written(n, to int64, k int) (next int64, part int) {
	start := s.at(n).off
	i := sort.Search(int(to-n), func(i int) bool { return s.at(n+int64(i)).off-start > int64(k) })
	next = n + int64(i) - 1 // the last one that begins at or before the k-th byte
	return next, k - int(s.at(next).off-start)
}

// posBefore is the stored position delivered to one who stands before entry n.
func (s *snap) posBefore(n int64) message.Position {
	switch {
	case n == s.head:
		return s.pos
	case n > s.front:
		return s.at(n - 1).pos
	}
	return s.base
}
