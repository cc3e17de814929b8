package bench

import (
	"cmp"
	"slices"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// receipt is what a publisher was told of a message that was taken.
type receipt struct {
	room  int
	by    author
	id    message.ID
	sent  int64
	loose bool // the broker was away: its place among the messages of other publishers is not promised
}

// faults are what the sessions' records and the publishers' receipts come to, each message counted once per session.
type faults struct {
	Lost       int64 `json:"lost"`
	Duplicated int64 `json:"duplicated"`
	Reordered  int64 `json:"reordered"`
	Repeated   int64 `json:"repeated"` // by a replay that may: the session's id was not exact
	Gapped     int64 `json:"gapped"`   // missing, but told by a gap frame
	Spilled    int64 `json:"unjudged"` // frames of sessions whose faults were too many to remember
}

// none tells whether the server kept its promises.
func (f *faults) none() bool {
	return f.Lost == 0 && f.Duplicated == 0 && f.Reordered == 0 && f.Spilled == 0
}

func (f *faults) add(g faults) {
	f.Lost += g.Lost
	f.Duplicated += g.Duplicated
	f.Reordered += g.Reordered
	f.Repeated += g.Repeated
	f.Gapped += g.Gapped
	f.Spilled += g.Spilled
}

// fact is what the judge knows of a message in a room's order of first sight.
type fact struct {
	what     uint32 // number of the message: what has the same author is the same message
	position message.Position
	by       author
	strike   int // under which it was sent
	loose    bool
	wrongID  bool // its receipt has another identity
}

// debt is a message that sessions are owed, because its publisher has a receipt.
type debt struct {
	what     uint32
	position message.Position
	low      message.Low
	strike   int
	loose    bool
}

// judge holds one room's order against its receipts, and then each session against both. A room's order is that of the
// positions in the ids, the same for all; within a publisher's messages it is also that of its sequence numbers, because
// it waits for each receipt. Not safe for concurrent use.
type judge struct {
	facts []fact   // by place in the room's order
	debts []debt   // by position
	sums  []faults // of all sessions so far, by strike: 0 is what was sent before the first

	// Of the session under judgement.
	stamp   uint32
	seen    []uint32 // by message: the stamp of the last session that saw it
	lastSeq []uint32 // by publisher: one above the highest number seen
}

// newJudge takes a room and the receipts for it, and the times of what befell the server meanwhile.
func newJudge(rm *room, receipts []receipt, publishers int, strikes []int64) *judge {
	j := &judge{facts: make([]fact, len(rm.order)), sums: make([]faults, len(strikes)+1), lastSeq: make([]uint32, publishers)}
	under := func(sent int64) int {
		n, _ := slices.BinarySearch(strikes, sent+int64(underWay)+1)
		return n
	}
	numbers := make(map[author]uint32, len(receipts))
	number := func(a author) uint32 {
		n, ok := numbers[a]
		if !ok {
			n = uint32(len(numbers))
			numbers[a] = n
		}
		return n
	}
	for _, r := range receipts {
		j.debts = append(j.debts, debt{number(r.by), r.id.Position, r.id.Low, under(r.sent), r.loose || r.id.Low.Unstored()})
	}
	for s, i := range rm.index {
		n := number(s.by)
		f := fact{what: n, position: s.id.Position, by: s.by, strike: under(rm.order[i].sent), loose: s.id.Low.Unstored()}
		if int(n) < len(j.debts) { // debts are numbered before they are sorted: the n-th is that of message n
			f.loose = f.loose || j.debts[n].loose
			f.wrongID = j.debts[n].low != s.id.Low
		}
		j.facts[i] = f
	}
	j.seen = make([]uint32, len(numbers))
	slices.SortFunc(j.debts, func(a, b debt) int { return cmp.Compare(a.position, b.position) })
	return j
}

// room judges what no session is needed for: receipts that give two messages one identity, so that sessions that go by
// it drop the second.
func (j *judge) room() {
	lows := make(map[message.Low]struct{}, len(j.debts))
	for _, d := range j.debts {
		if _, again := lows[d.low]; again {
			j.sums[d.strike].Duplicated++
		}
		lows[d.low] = struct{}{}
	}
}

// underWay: a message may be harmed by what happens so long after it was sent.
const underWay = 500 * time.Millisecond

// session judges one session's record.
func (j *judge) session(c *record) {
	c.split()
	j.stamp++
	clear(j.lastSeq)
	last := message.Position(0)
	for _, r := range c.runs {
		for _, x := range j.facts[r.from:r.to] {
			f := &j.sums[x.strike]
			switch {
			case x.wrongID:
				f.Duplicated++
			case j.seen[x.what] != j.stamp:
				j.seen[x.what] = j.stamp
				if !j.inOrder(x, &last) {
					f.Reordered++
				}
			case r.inexact:
				f.Repeated++
			default:
				f.Duplicated++
			}
		}
	}
	j.sums[0].Spilled += c.spilled
	if c.begun {
		j.missing(c)
	}
}

// inOrder tells whether x may come after all that the session saw, and moves the marks.
func (j *judge) inOrder(x fact, last *message.Position) bool {
	ok := true
	if p := x.by.publisher(); p < len(j.lastSeq) {
		if ok = x.by.seq() >= j.lastSeq[p]; ok {
			j.lastSeq[p] = x.by.seq() + 1
		}
	}
	if x.loose {
		return ok
	}
	if x.position <= *last {
		return false
	}
	*last = x.position
	return ok
}

// missing counts the debts that were not paid.
func (j *judge) missing(c *record) {
	first, _ := slices.BinarySearchFunc(j.debts, c.start+1, func(d debt, p message.Position) int { return cmp.Compare(d.position, p) })
	for _, d := range j.debts[first:] {
		switch {
		case c.spilled > 0 && d.position >= c.until:
			return
		case j.seen[d.what] == j.stamp:
		case slices.ContainsFunc(c.holes, func(h hole) bool { return h.after < d.position && d.position < h.before }):
			j.sums[d.strike].Gapped++
		default:
			j.sums[d.strike].Lost++
		}
	}
}
