package hub

import (
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

type roomState uint8

const (
	roomNew        roomState = iota // not asked for
	roomSubscribed                  // asked for; live once Live came
	roomLeaving                     // being unsubscribed: who comes meanwhile has it asked for again
)

// room is a room as this node has it. One with a single member, or one who waits, of which nothing came yet is quiet and
// has no body: so a user's own room, of which there are as many as sessions, costs next to nothing.
type room struct {
	name message.Room
	tag  uint16

	state   roomState // guarded by its stripe's lock, as the two below are
	live    bool
	known   bool   // of a quiet room that is live: base is a stored message's position
	refs    int32  // joins asked for and members
	emptied uint32 // how often it had none left

	mu sync.Mutex // taken after its stripe's lock and before a shard's queue lock; nothing else is taken under it
	// base is what the log will begin with; before the room is live, the broker's time before it was asked for. Like what
	// follows without meaning once there is a body.
	base message.Position
	lone *member // nil: nobody
	*body
}

// body is what wake gives a room: a log and, per shard with members, a table. It stays. Who has not seen it under the room's
// lock must not look at its fields.
type body struct {
	h      *Hub
	log    log
	asked  message.Position // the broker's time before it was asked for the room
	tables []*table
	demand demand        // who waits for history
	begun  chan struct{} // closed when a shard begins a traversal: publishers wait for it; nil: none does
	pin    time.Time     // the front stays until then: members that a filler served are passing
	traced []traced      // messages on their way whose spans have not ended, oldest first

	count  atomic.Int32 // members on all shards
	late   atomic.Int32 // of these, late ones
	behind atomic.Int32 // of these, behind or waiting
}

// table holds a room's members of one shard. Without a mark, fields are the shard's.
type table struct {
	sh   *shard
	room *room

	members []*member
	parked  []*member // wait for the room to be live, or for history
	trav    *snap     // of the traversal under way
	cursor  int       // members below it are still to be served
	begun   int64     // byte offset up to which traversals have begun. Guarded by the room's lock
	done    int64     // who is not behind stands here or further. Guarded by the room's lock
	size    int       // members; written by the shard under the room's lock

	dirty atomic.Bool  // a traversal is queued or under way
	since atomic.Int64 // Unix ms of the oldest entry whose traversal has not begun; 0: none
}

// wake gives the room its body, if it has none: an entry comes, or history is asked for, or a second member; the lock is
// held. The place of the only member, or of one who waits, is its shard's; here it is only looked at.
func (r *room) wake(h *Hub) {
	if r.body != nil {
		return
	}
	r.body = &body{h: h, asked: r.base}
	if r.live {
		r.begin(r.base, r.known)
	}
	m := r.lone
	if r.lone = nil; m == nil {
		return
	}
	t := r.table(m.s.sh)
	if !m.in {
		t.parked = append(t.parked, m)
		return
	}
	t.members = append(t.members, m)
	t.size = 1
	r.count.Store(1)
	if !m.sees {
		r.log.blind = 1
	}
}

// begin begins the log behind base; the lock is held.
func (r *room) begin(base message.Position, known bool) {
	l := &r.log
	if l.base, l.pos = base, base; known {
		l.link = base
	}
}

// present returns how many members the room has here.
func (r *room) present() int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.body != nil:
		return r.count.Load()
	case r.lone != nil && r.lone.in:
		return 1
	}
	return 0
}

// table returns the shard's table, made if need be; the lock is held.
func (r *room) table(sh *shard) *table {
	for _, t := range r.tables {
		if t.sh == sh {
			return t
		}
	}
	t := &table{sh: sh, room: r, done: r.log.head, begun: r.log.end()}
	r.tables = append(r.tables, t)
	return t
}

// dropEmpty takes a table without members off the room's list, which others may be reading; the lock is held.
func (r *room) dropEmpty(t *table) {
	if t.size > 0 || len(t.parked) > 0 {
		return
	}
	var rest []*table
	for _, o := range r.tables {
		if o != t {
			rest = append(rest, o)
		}
	}
	r.tables = rest
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Append renders the entry once for all members and wakes the shards that have any.
func (h *Hub) Append(e message.Entry) {
	m := e.Message
	r := h.lookup(m.Room)
	if r == nil {
		return
	}
	if e.Flags&message.Shown != 0 {
		r.pass(m.ID.Position, e.Prev)
		return
	}
	buf := buffers.Get().(*[]byte)
	*buf = frame.AppendMessage((*buf)[:0], m)
	var flags uint8
	switch {
	case e.Flags&message.Ephemeral != 0:
		flags = ephemeral
	case e.Flags&message.Degraded != 0:
		flags = degraded
	case e.Flags&message.Belated != 0:
		flags = belated | stored
	default:
		flags = stored
	}
	if m.Type == message.TypePresence {
		flags |= presence
	}
	mask := m
	if m.HasExclusions() {
		flags |= excluding
	} else {
		mask = nil
	}
	var span trace.Span
	if m.Trace != nil {
		span = h.fanOut(r, m)
	}
	h.append(r, *buf, arrival{flags: flags, pos: m.ID.Position, prev: e.Prev, mask: mask, span: span})
	buffers.Put(buf)
}

// pass notes that what was shown in a degraded time has its place now: with it, the log is complete up to there.
func (r *room) pass(pos, prev message.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := &r.log; r.live {
		l.follow(prev)
		l.pos = max(l.pos, pos)
	}
}

// Announce appends a message of this node's own that no history keeps, for the members here. Its id is the place that the
// room has reached.
func (h *Hub) Announce(m *message.Message) {
	r := h.lookup(m.Room)
	if r == nil {
		return
	}
	flags := ephemeral
	if m.Type == message.TypePresence {
		flags |= presence
	}
	h.append(r, frame.AppendMessage(nil, m), arrival{flags: flags, own: true})
}

// notice appends a frame that tells of a change of the log, in one act with it.
func (h *Hub) notice(r *room, f []byte, change func(l *log)) {
	h.append(r, f, arrival{flags: notice, own: true, change: change})
}

// arrival is what comes with a frame.
type arrival struct {
	flags     uint8
	pos, prev message.Position // of one that is stored
	mask      *message.Message // its exclusions; nil: it is for everyone
	span      trace.Span       // ends when the frame has reached every shard's members; nil: it is not traced
	own       bool             // the server's: it gets the log's place as its id
	change    func(l *log)     // of the log, before it; nil: none
}

// append adds a frame to the log. Between its place and its id nothing else can come.
func (h *Hub) append(r *room, f []byte, a arrival) {
	now := time.Now().UnixMilli()
	r.mu.Lock()
	r.wake(h)
	l := &r.log
	was := l.bytes
	if a.change != nil {
		a.change(l)
	}
	if !r.live {
		grown := l.bytes - was
		r.mu.Unlock()
		h.charge(grown)
		if a.span != nil {
			a.span.End()
		}
		return
	}
	if a.own {
		frame.Stamp(f, message.ID{Position: max(l.pos, 1), Low: h.minter.Low(r.tag, true)})
	}
	e := rec{pos: l.pos, when: now, flags: a.flags}
	if a.flags&stored != 0 && a.flags&belated == 0 {
		l.follow(a.prev)
		e.pos = max(a.pos, l.pos)
	}
	n := l.add(f, e)
	if a.flags&belated != 0 {
		l.strays++
	}
	if a.mask != nil {
		l.mask(n, a.mask)
	} else if a.flags&presence != 0 {
		l.news++
	}
	var arrived []traced
	if a.span != nil {
		r.follow(n, a.span)
		arrived = r.arrived() // the last member may have left meanwhile
	}
	r.trim(now)
	grown := l.bytes - was
	h.stats.appended.Add(1)
	tables := r.tables
	for _, t := range tables {
		if t.since.Load() == 0 {
			t.since.Store(now)
		}
	}
	r.mu.Unlock()
	endAll(arrived)
	for _, t := range tables {
		if !t.dirty.Swap(true) {
			t.sh.post(event{kind: evDirty, t: t})
		}
	}
	h.charge(grown)
}

// Live opens the room: its log begins behind tip.
func (h *Hub) Live(name message.Room, tip message.Position, down bool) {
	r := h.lookup(name)
	if r == nil {
		return
	}
	r.mu.Lock()
	if r.live {
		r.mu.Unlock()
		return
	}
	if down {
		r.wake(h)
	}
	if r.live = true; r.body == nil {
		if r.known = tip != 0; r.known {
			r.base = tip
		}
		m := r.lone
		r.mu.Unlock()
		if m != nil { // it waits
			m.s.sh.post(event{kind: evLive, ms: []*member{m}})
		}
		return
	}
	base := r.asked
	if tip != 0 {
		base = tip
	}
	r.begin(base, tip != 0)
	if l := &r.log; down {
		l.stretches = append(l.stretches, stretch{from: l.head})
	}
	tables := r.tables
	r.mu.Unlock()
	for _, t := range tables {
		t.sh.post(event{kind: evLive, t: t})
	}
}

// Gap tells members of a hole that healing could not fill.
func (h *Hub) Gap(name message.Room, after, before message.Position, why message.GapReason) {
	r := h.lookup(name)
	if r == nil {
		return
	}
	h.stats.gap(why)
	g := frame.Gap{Room: name, After: h.id(r, after), Before: h.id(r, before), Reason: why}
	h.notice(r, g.Append(nil, time.Now().UnixMilli()), nil)
}

// id names a position of the room of which the message is not known.
func (h *Hub) id(r *room, p message.Position) message.ID {
	if p == 0 {
		return message.ID{}
	}
	return message.ID{Position: p, Low: h.minter.Low(r.tag, true)}
}

// Deleted drops what the log holds and tells everyone with one entry.
func (h *Hub) Deleted(name message.Room, upTo message.Position) {
	r := h.lookup(name)
	if r == nil {
		return
	}
	h.stats.gap(message.GapDeleted)
	g := frame.Gap{Room: name, After: h.id(r, upTo), Reason: message.GapDeleted}
	h.notice(r, g.Append(nil, time.Now().UnixMilli()), func(l *log) { l.clear(upTo) })
}

// Degraded begins a time without the broker.
func (h *Hub) Degraded(name message.Room) { h.outage(name, false) }

// Restored ends it.
func (h *Hub) Restored(name message.Room) { h.outage(name, true) }

func (h *Hub) outage(name message.Room, over bool) {
	for _, r := range h.named(name) {
		o := frame.Outage{Room: name, Restored: over}
		h.notice(r, o.Append(nil, time.Now().UnixMilli()), func(l *log) {
			k := len(l.stretches)
			open := k > 0 && l.stretches[k-1].to == 0
			switch {
			case over && open:
				l.stretches[k-1].to = l.head + 1 // the notice itself ends it
			case !over && !open:
				l.stretches = append(l.stretches, stretch{from: l.head})
			}
		})
	}
}

// named returns the room, or all for "".
func (h *Hub) named(name message.Room) (rs []*room) {
	if name != "" {
		if r := h.lookup(name); r != nil {
			rs = append(rs, r)
		}
		return rs
	}
	for i := range h.rooms {
		st := &h.rooms[i]
		st.mu.RLock()
		for _, r := range st.rooms {
			rs = append(rs, r)
		}
		st.mu.RUnlock()
	}
	return rs
}

// Away tells whether the room reaches this node's members only: a degraded time has begun and not ended.
func (h *Hub) Away(name message.Room) bool {
	r := h.lookup(name)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.body == nil {
		return false
	}
	k := len(r.log.stretches)
	return k > 0 && r.log.stretches[k-1].to == 0
}
