package hub

import (
	"context"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

const (
	fillerPool = 4 // rooms whose history is read at once
	pageLimit  = 256
	pageBytes  = 512 << 10
)

// demand is what a room's waiting members need, as numbers: who they are the shards know. Guarded by the room's lock.
type demand struct {
	stays  message.Position // lowest position of members that were connected; 0: none waits. They are owed all there is
	resume message.Position // lowest of members that resume; they are owed the newest Config.ResumeLimit before join
	join   int64
	queued bool
}

func (d *demand) add(q message.Position, join int64, stays bool) {
	q = max(q, 1)
	p := &d.resume
	if stays {
		p = &d.stays
	} else if d.resume == 0 || join < d.join {
		d.join = join
	}
	if *p == 0 || q < *p {
		*p = q
	}
}

// unmet tells whether the log does not yet reach far enough.
func (d *demand) unmet(l *log, limit int) bool {
	if l.bottom {
		return false
	}
	if d.stays != 0 && d.stays < l.base {
		return true
	}
	if d.resume == 0 || d.resume >= l.base {
		return false
	}
	_, cut := l.tail(max(d.join, l.front), limit)
	return !cut
}

// fillers is the queue of rooms that want history; a bounded pool works it off.
type fillers struct {
	mu   sync.Mutex
	q    []*room
	wake chan struct{}
}

// request queues the room once.
func (f *fillers) request(r *room) {
	r.mu.Lock()
	was := r.demand.queued
	r.demand.queued = true
	r.mu.Unlock()
	if was {
		return
	}
	f.mu.Lock()
	f.q = append(f.q, r)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fillers) take() *room {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.q) == 0 {
		return nil
	}
	r := f.q[0]
	f.q[0] = nil
	if f.q = f.q[1:]; len(f.q) == 0 {
		f.q = nil
	}
	return r
}

func (h *Hub) runFiller(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.fill.wake:
		}
		for r := h.fill.take(); r != nil && ctx.Err() == nil; r = h.fill.take() {
			h.fillRoom(ctx, r)
		}
	}
}

// fillRoom reads history from the log's front towards the past and puts it in front, page by page, until the lowest that
// waits is reached, history ends, or the budget does. Members that waited pass meanwhile; the front is pinned for them.
func (h *Hub) fillRoom(ctx context.Context, r *room) {
	h.admission(ctx)
	for ctx.Err() == nil {
		r.mu.Lock()
		r.pin = time.Now().Add(h.cfg.WriteTimeout)
		if !r.demand.unmet(&r.log, h.cfg.ResumeLimit) {
			r.demand = demand{}
			r.mu.Unlock()
			r.wakeParked()
			return
		}
		base, link, size := r.log.base, r.log.link, r.log.bytes
		r.mu.Unlock()
		if size >= h.cfg.LogBytes/4 || h.used.Load() >= h.cfg.LogBytes {
			r.atBottom(base, nil)
			continue
		}
		pc, cancel := context.WithTimeout(ctx, h.cfg.JoinTimeout)
		page, err := h.feed.History(pc, message.Query{Room: r.name, From: base.Next(), Backward: true, Limit: pageLimit, Bytes: pageBytes})
		cancel()
		if err != nil {
			h.log.Warn("history not read; members are told of the gap", "room", string(r.name), "err", err)
			r.atBottom(base, nil)
			continue
		}
		h.putInFront(r, base, link, page)
		r.wakeParked()
	}
}

// admission holds a filler back while more than half of the budget is spent, for the write timeout at most: so a herd of
// resumes is let in at the rate at which it is served.
func (h *Hub) admission(ctx context.Context) {
	if h.used.Load() <= h.cfg.LogBytes/2 {
		return
	}
	h.nudge()
	end := time.NewTimer(h.cfg.WriteTimeout)
	defer end.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for h.used.Load() > h.cfg.LogBytes/2 {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			return
		case <-again.C:
		}
	}
}

// atBottom notes that nothing below the front can be had: history has ended there, or (no page) is not to be read.
func (r *room) atBottom(base message.Position, page *message.Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.log
	if l.base != base { // the front has moved: not about this one
		return
	}
	l.bottom, l.limited = true, page == nil
	if page != nil {
		l.cut, l.since, l.lost = page.Cut, page.Since, page.Lost
	}
}

// wakeParked has the shards look at those who wait.
func (r *room) wakeParked() {
	r.mu.Lock()
	tables := r.tables
	r.mu.Unlock()
	for _, t := range tables {
		t.sh.post(event{kind: evRefilled, t: t})
	}
}

// putInFront renders a page and splices it, unless the front has moved meanwhile.
func (h *Hub) putInFront(r *room, base, link message.Position, page message.Page) {
	b := builder{r: r}
	from, last := base, message.Position(0)
	for i, e := range page.Entries {
		if i > 0 && e.Prev > last {
			b.hole(last, e.Message.ID, page.Cut)
		}
		b.add(e.Message)
		last = e.Message.ID.Position
	}
	if k := len(page.Entries); k > 0 {
		if link != 0 && last < link {
			b.hole(last, h.id(r, base), page.Cut)
		}
		first := page.Entries[0]
		if link = first.Prev; link != 0 {
			base = link
		} else {
			base = first.Message.ID.Position - 1
		}
	}
	r.mu.Lock()
	l := &r.log
	if l.base != from { // dropped: the filler reads on from the new front
		r.mu.Unlock()
		return
	}
	was := l.bytes
	l.splice(b.b, b.recs, base, link)
	for i, m := range b.masks {
		l.mask(l.front+int64(i), m)
	}
	grown := l.bytes - was
	r.mu.Unlock()
	h.charge(grown)
	if !page.More {
		r.atBottom(base, &page)
	}
}

// builder renders a page of history into one private piece.
type builder struct {
	r     *room
	b     []byte
	recs  []rec
	masks map[int]*message.Message
}

func (b *builder) add(m *message.Message) {
	e := rec{pos: m.ID.Position, off: int64(len(b.b)), when: m.ID.Position.Millis(), flags: stored}
	if m.HasExclusions() {
		e.flags |= excluding
		if b.masks == nil {
			b.masks = make(map[int]*message.Message)
		}
		b.masks[len(b.recs)] = m
	}
	b.b = frame.AppendMessage(b.b, m)
	b.recs = append(b.recs, e)
}

// hole tells of stored entries that history does not have any more, between two that it has.
func (b *builder) hole(after message.Position, before message.ID, cut message.Position) {
	why := message.GapLost
	if after < cut {
		why = message.GapDeleted
	}
	b.r.h.stats.gap(why)
	e := rec{pos: after, off: int64(len(b.b)), when: after.Millis(), flags: notice}
	g := frame.Gap{Room: b.r.name, After: b.r.h.id(b.r, after), Before: before, Reason: why}
	b.b = g.Append(b.b, time.Now().UnixMilli())
	frame.Stamp(b.b[e.off:], message.ID{Position: after, Low: b.r.h.minter.Low(b.r.tag, true)})
	b.recs = append(b.recs, e)
}
