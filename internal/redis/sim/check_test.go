package sim

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/slack5/realtime/internal/message"
)

// rand is a source for one of the plan's parts.
func (p *plan) rand(part uint64) *rand.Rand { return rand.New(rand.NewPCG(p.seed, 100+part)) }

// room is what is known of a room at the end.
type room struct {
	stored map[message.Low]message.Entry
	order  []message.Low
	cut    message.Position
}

// check checks what everybody has seen.
func (w *world) check() {
	rooms := make(map[message.Room]*room)
	for _, name := range w.plan.rooms {
		rooms[name] = w.checkHistory(name)
	}
	outage := slices.ContainsFunc(w.sent, func(s *sent) bool { return s.receipt.Degraded })
	for _, p := range w.peers {
		for _, l := range p.lines {
			outage = outage || l.event.Name == "degraded"
			switch l.event.Name {
			case "":
			case "gap":
				w.told["gap "+string(l.event.Reason)]++
			default:
				w.told[l.event.Name]++
			}
		}
	}
	for _, p := range w.peers {
		for _, name := range p.rooms {
			w.checkPeer(p, name, rooms[name], outage)
		}
	}
}

// checkHistory reads the room's history over each node: the same everywhere, each message once, in order, and what was
// acknowledged is there unless it was trimmed or deleted.
func (w *world) checkHistory(name message.Room) *room {
	r := &room{stored: make(map[message.Low]message.Entry)}
	for i, n := range w.nodes {
		es, cut, err := w.stored(n, name)
		if err != nil {
			w.t.Errorf("%s: History of %s = %v", n.name, name, err)
			return r
		}
		if i > 0 {
			if len(es) != len(r.order) {
				w.t.Errorf("%s has %d entries of %s, %s has %d", n.name, len(es), name, w.nodes[0].name, len(r.order))
			}
			continue
		}
		r.cut = cut
		last := message.Position(0)
		for _, e := range es {
			low := identity(e.Message.ID.Low)
			if _, ok := r.stored[low]; ok {
				w.t.Errorf("history of %s has %s twice", name, where(e.Message.ID))
			}
			if e.Message.ID.Position <= last {
				w.t.Errorf("history of %s has %s behind %d", name, where(e.Message.ID), last.Millis())
			}
			last = e.Message.ID.Position
			r.stored[low], r.order = e, append(r.order, low)
		}
	}
	for _, s := range w.sent {
		_, stored := r.stored[s.low]
		switch {
		case s.room != name || s.ephemeral || stored:
		case !s.done:
			w.t.Errorf("%s/%d was never answered", s.by, s.number)
		case s.err != nil || w.plan.trims || w.deleted(s, r) || w.plan.deletes && s.receipt.Degraded:
		default:
			w.t.Errorf("%s/%d was acknowledged as %s and is not in history", s.by, s.number, where(s.receipt.ID))
		}
	}
	return r
}

// deleted tells whether a message may have been deleted. A server that has lost where does not tell.
func (w *world) deleted(s *sent, r *room) bool {
	return s.receipt.ID.Position <= r.cut || w.plan.lossy && s.deleted
}

// checkPeer checks what one has seen of a room.
func (w *world) checkPeer(p *peer, name message.Room, r *room, outage bool) {
	seen := make(map[message.Low]bool)
	number := make(map[string]int)         // of each publisher, the largest that was seen
	last := make(map[int]message.Position) // per connection
	once := make(map[int]map[message.Low]bool)
	told := make(map[int]bool) // over which connections he was told of a gap: what lies in it may yet come
	var gaps []line
	for _, l := range p.lines {
		if l.room != name {
			continue
		}
		if l.event.Name == "gap" {
			gaps = append(gaps, l)
			told[l.conn] = true
		}
		if l.event.Name != "" || l.from == "" {
			continue
		}
		low := identity(l.id.Low)
		s := w.low[low]
		if s == nil {
			w.t.Errorf("%s reads %s, which nobody has published", p.name, where(l.id))
			continue
		}
		if once[l.conn] == nil {
			once[l.conn] = make(map[message.Low]bool)
			clear(number)
			if !outage {
				last[l.conn] = last[l.conn-1]
			}
		}
		// In an outage, or when something is put back, he may read what he saw before it was stored, or put back, once more, if
		// he has fallen off the log or resumed.
		repeats := (outage || w.plan.lossy) && (w.plan.logBytes < 1<<20 || l.conn > 1)
		if once[l.conn][low] && !repeats || seen[low] && !s.ephemeral && !outage && !w.plan.lossy {
			w.t.Errorf("%s reads %s/%d twice", p.name, s.by, s.number)
		}
		once[l.conn][low] = true
		switch {
		case !s.taken() || s.receipt.Degraded || s.ephemeral:
		case l.id != s.receipt.ID && !outage && !w.plan.deletes && !w.plan.lossy:
			// In an outage it may be shown before its place is known; and if what a first try has stored is deleted or lost,
			// the next try stores it anew.
			w.t.Errorf("%s reads %s/%d as %s, its publisher was told %s", p.name, s.by, s.number, where(l.id), where(s.receipt.ID))
		case l.id != s.receipt.ID:
		case l.id.Position <= last[l.conn] && !w.plan.lossy && !(w.plan.trims && told[l.conn]): // it was told as trimmed, and yet came
			w.t.Errorf("%s reads %s/%d, %s, behind what lies at %d", p.name, s.by, s.number, where(l.id), last[l.conn].Millis()%1e6)
		default:
			last[l.conn] = l.id.Position
		}
		if seen[low] {
			continue
		}
		seen[low] = true
		if n, _ := strconv.Atoi(l.number); s.taken() && !s.ephemeral && !w.plan.lossy {
			// Who comes in an outage finds what was shown here before what was not, because nobody was here.
			if n <= number[s.by] && !told[l.conn] && (l.conn == 1 || !outage) {
				w.t.Errorf("%s reads %s/%d behind %d", p.name, s.by, n, number[s.by])
			}
			number[s.by] = n
		}
	}
	w.checkGaps(p, name, gaps)
	for _, s := range w.sent {
		if s.room == name && s.taken() && !s.ephemeral && !seen[s.low] && !w.excused(s, r, gaps) && !w.passed(p, s) {
			w.t.Errorf("%s has not seen %s/%d, %s, degraded %v", p.name, s.by, s.number, where(s.receipt.ID), s.receipt.Degraded)
		}
	}
}

// excused tells whether somebody was told that he might miss a message.
func (w *world) excused(s *sent, r *room, gaps []line) bool {
	at := s.receipt.ID.Position
	e, kept := r.stored[s.low]
	switch {
	case kept:
		at = e.Message.ID.Position
	case s.receipt.Degraded: // where it was stored when the server was back, nobody knows any more
		return len(gaps) > 0
	case w.plan.trims && w.plan.lossy: // what would be put back is trimmed too: nothing names it
		return true
	}
	for _, g := range gaps {
		if g.event.Reason == message.GapDeleted && (w.deleted(s, r) || s.receipt.Degraded) { // a first try may have been deleted
			return true
		}
		if g.event.Reason == message.GapLimit && s.at <= g.at { // of an outage, whose messages had no places yet
			return true
		}
		if at > g.event.After.Position && (g.event.Before.IsZero() || at <= g.event.Before.Position) {
			return true
		}
	}
	return false
}

// passed tells whether somebody has read past the place of a message that was lost then, and left before it came when it was
// put back: it lies before where he goes on.
func (w *world) passed(p *peer, s *sent) bool {
	low := s.low
	if s.receipt.Degraded {
		low = s.receipt.ID.Low
	}
	at, ok := w.model.PutBack(string(binary.BigEndian.AppendUint64(nil, uint64(low))))
	if !ok || w.plan.mute { // what is put back while nobody may publish is not said
		return ok
	}
	for _, l := range p.lines {
		if l.room == s.room && l.id.Position > s.receipt.ID.Position {
			end, cut := p.ends[l.conn]
			return cut && end < at+heal
		}
	}
	return false
}

// checkGaps checks that nobody was told of a loss that cannot have been.
func (w *world) checkGaps(p *peer, name message.Room, gaps []line) {
	for _, g := range gaps {
		switch why := g.event.Reason; {
		case why == message.GapLimit: // history was not to be read in time
		case why == message.GapDeleted && w.plan.deletes:
		case why == message.GapExpired && w.plan.trims:
		case w.plan.lossy:
		default:
			w.t.Errorf("%s is told of a gap in %s, %s, where nothing can be missing: %s to %s", p.name, name, why, where(g.event.After), where(g.event.Before))
		}
	}
}
