package brokertest

import (
	"hash/maphash"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// police is a Sink that reports each breach of the contract and keeps what it was told for the cases to look at. It knows
// no outages: the buses under test are up.
type police struct {
	report func(format string, args ...any)
	seed   maphash.Seed

	mu    sync.Mutex
	ended bool
	beats map[message.Room]*beat
}

var _ broker.Sink = (*police)(nil)

// beat is what the police knows of a room.
type beat struct {
	busy    atomic.Bool // a call is under way
	lives   []message.Position
	last    message.Position // the next stored entry must follow it
	highest message.Position // of any entry, ephemeral ones included
	entries []message.Entry
	sums    []uint64 // of the entries' messages when they came
	lows    map[message.Low]bool
	deleted []message.Position
}

func newPolice(report func(format string, args ...any)) *police {
	return &police{report: report, seed: maphash.MakeSeed(), beats: make(map[message.Room]*beat)}
}

// enter notes that a call for the room has begun; the function it returns, that it ends. In between p.mu is held.
func (p *police) enter(call string, room message.Room) (*beat, func()) {
	p.mu.Lock()
	b := p.beats[room]
	if b == nil {
		b = &beat{lows: make(map[message.Low]bool)}
		p.beats[room] = b
	}
	if p.ended {
		p.report("%s(%q) after Run had returned", call, room)
	}
	p.mu.Unlock()
	if b.busy.Swap(true) {
		p.report("%s(%q) while another call for the room was under way", call, room)
	}
	runtime.Gosched() // so that two at once are seen
	p.mu.Lock()
	return b, func() {
		p.mu.Unlock()
		b.busy.Store(false)
	}
}

// Append implements broker.Sink.
func (p *police) Append(e message.Entry) {
	m := e.Message
	b, leave := p.enter("Append", m.Room)
	defer leave()
	at := m.ID.Position
	if len(b.lives) == 0 {
		p.report("Append(%q) of %v before Live", m.Room, m.ID)
	}
	if b.lows[m.ID.Low] {
		p.report("Append(%q): %v a second time", m.Room, m.ID)
	}
	ephemeral := e.Flags&message.Ephemeral != 0
	if ephemeral != m.Ephemeral || ephemeral != m.ID.Low.Unstored() {
		p.report("Append(%q) of %v: flagged ephemeral %v, message says %v, bit P %v", m.Room, m.ID, ephemeral, m.Ephemeral, m.ID.Low.Unstored())
	}
	switch {
	case e.Flags&^message.Ephemeral != 0:
		p.report("Append(%q) of %v: flags %b though there is no outage", m.Room, m.ID, e.Flags)
	case ephemeral && b.last != 0 && at != b.last:
		p.report("Append(%q) of ephemeral %v: position %d, the stored entry before it has %d", m.Room, m.ID, at, b.last)
	case ephemeral && (at == 0 || e.Prev != 0):
		p.report("Append(%q) of ephemeral %v: position %d, prev %d", m.Room, m.ID, at, e.Prev)
	case !ephemeral && at <= b.highest:
		p.report("Append(%q) of %v: position %d is not above %d, which was seen before", m.Room, m.ID, at, b.highest)
	case !ephemeral && e.Prev != b.last:
		p.report("Append(%q) of %v: prev %d, the entry before it has %d", m.Room, m.ID, e.Prev, b.last)
	}
	if !ephemeral {
		b.last = at
	}
	b.highest = max(b.highest, at)
	b.lows[m.ID.Low] = true
	b.entries = append(b.entries, e)
	b.sums = append(b.sums, p.sum(m))
}

// Live implements broker.Sink.
func (p *police) Live(room message.Room, tip message.Position, degraded bool) {
	b, leave := p.enter("Live", room)
	defer leave()
	if degraded {
		p.report("Live(%q) degraded though there is no outage", room)
	}
	if tip < b.last {
		p.report("Live(%q) with tip %d, but %d was seen before", room, tip, b.last)
	}
	b.last, b.highest = tip, max(b.highest, tip)
	b.lives = append(b.lives, tip)
}

// Deleted implements broker.Sink.
func (p *police) Deleted(room message.Room, upTo message.Position) {
	b, leave := p.enter("Deleted", room)
	defer leave()
	if upTo == 0 || len(b.lives) == 0 {
		p.report("Deleted(%q) up to %d, after %d calls of Live", room, upTo, len(b.lives))
	}
	b.last, b.highest = max(b.last, upTo), max(b.highest, upTo)
	b.deleted = append(b.deleted, upTo)
}

// Gap implements broker.Sink.
func (p *police) Gap(room message.Room, after, before message.Position, why message.GapReason) {
	p.report("Gap(%q) from %d to %d, %s, though nothing was lost", room, after, before, why)
}

// Degraded implements broker.Sink.
func (p *police) Degraded(room message.Room) {
	p.report("Degraded(%q) though there is no outage", room)
}

// Restored implements broker.Sink.
func (p *police) Restored(room message.Room) {
	p.report("Restored(%q) though there was no outage", room)
}

// end is called when Run has returned: from now on every call is a breach. The messages must be what they were when they
// came.
func (p *police) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for room, b := range p.beats {
		for i, e := range b.entries {
			if p.sum(e.Message) != b.sums[i] {
				p.report("room %q: %v was changed after it had been handed to Append", room, e.Message.ID)
			}
		}
	}
}

func (p *police) sum(m *message.Message) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	maphash.WriteComparable(&h, m.ID)
	maphash.WriteComparable(&h, m.Timestamp)
	texts := append(append([]string{string(m.Room), string(m.Type), m.From, string(m.Data)}, m.ExcludeSessions...), m.ExcludeUsers...)
	for _, s := range texts {
		maphash.WriteComparable(&h, s)
	}
	return h.Sum64()
}

// entries are those of a room so far.
func (p *police) entries(room message.Room) []message.Entry {
	return look(p, room, func(b *beat) []message.Entry { return b.entries })
}

// lives are the tips that Live has named so far.
func (p *police) lives(room message.Room) []message.Position {
	return look(p, room, func(b *beat) []message.Position { return b.lives })
}

// deleted are the positions that Deleted has named so far.
func (p *police) deleted(room message.Room) []message.Position {
	return look(p, room, func(b *beat) []message.Position { return b.deleted })
}

func look[T any](p *police, room message.Room, what func(*beat) []T) []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.beats[room]; b != nil {
		return slices.Clone(what(b))
	}
	return nil
}
