package redis

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// What is kept while Redis is away.
const (
	outboxRoom = 10_000 // messages of one room
	outboxFor  = 5 * time.Minute
	keyCost    = 256                  // bytes of a key that is remembered
	unstored   = message.Low(1 << 61) // the bit P
	passFor    = 5 * time.Second      // so long the end of an outage waits for rooms that cannot be read
)

// outbox is what was shown on this node while Redis was away, and is stored when it is back.
type outbox struct {
	mu    sync.Mutex
	rooms map[message.Room][]*parked
	order []message.Room // those rooms, in the order in which their first message came
	bytes int64
	keys  map[string]broker.Receipt
}

// parked is a message in the outbox.
type parked struct {
	job
	since time.Time        // when it came
	floor message.Position // it may be stored behind this already; 0: it was never sent
	shown *room            // where it was shown; nil: nowhere
}

// full tells whether a message cannot be kept any more, or its key; the lock is held.
func (o *outbox) full(name message.Room, j *job, limit int64) bool {
	size := int64(0)
	if j.key != "" {
		size += keyCost
	}
	if !j.m.Ephemeral {
		size += int64(len(j.env)) + 8 // the position at which it is shown
	}
	late := len(o.rooms[name]) > 0 && time.Since(o.rooms[name][0].since) > outboxFor
	return size > 0 && (late || o.bytes+size > limit) || !j.m.Ephemeral && len(o.rooms[name]) >= outboxRoom
}

// put keeps messages that were stored once, before what came later.
func (o *outbox) put(name message.Room, ps []*parked) {
	if len(ps) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rooms[name] == nil {
		o.order = append(o.order, name)
	}
	o.rooms[name] = append(ps, o.rooms[name]...)
	for _, p := range ps {
		o.bytes += int64(len(p.env))
	}
}

// parkAll keeps a batch for when Redis is back and shows it on this node; false: it is back. tried is the position behind
// which it may be stored already; 0: it was never sent.
func (b *Broker) parkAll(name message.Room, ch string, batch []*job, tried message.Position) bool {
	if reject, _ := b.cfg.Reject.Lookup(name); reject || !b.open.Load() {
		b.refuse(batch, notExecuted, broker.ErrUnavailable)
		return true
	}
	b.outbox.mu.Lock()
	defer b.outbox.mu.Unlock()
	if !b.isAway(ch) {
		return false
	}
	for _, j := range batch {
		receipt, err := b.park(name, ch, j, tried)
		j.done <- outcome{receipt: receipt, err: err}
	}
	return true
}

// park keeps one message; the outbox's lock is held.
func (b *Broker) park(name message.Room, ch string, j *job, tried message.Position) (broker.Receipt, error) {
	o := &b.outbox
	if first, ok := o.keys[j.key]; ok && j.key != "" {
		first.Duplicate = true
		return first, nil
	}
	if o.full(name, j, b.cfg.MaxOutbox) {
		return broker.Receipt{}, broker.ErrOverloaded
	}
	m := *j.m // the Sink's own
	if tried == 0 {
		m.ID.Low |= unstored
	}
	kept := m
	m.ID.Position = message.At(b.clock.millis()-10_000, 0)
	shown := b.find(ch)
	if shown != nil && !shown.show(&m) {
		shown = nil
	}
	kept.ID.Position = m.ID.Position
	receipt := broker.Receipt{ID: m.ID, Timestamp: m.Timestamp, Degraded: true}
	if j.key != "" {
		o.keys[j.key] = receipt
		o.bytes += keyCost
	}
	if m.Ephemeral {
		return receipt, nil
	}
	p := &parked{
		job:   job{m: &kept, env: string(appendEnv(nil, &kept, kept.ID.Position)), key: j.key},
		since: time.Now(), floor: tried, shown: shown,
	}
	if o.rooms[name] == nil {
		o.order = append(o.order, name)
	}
	o.rooms[name] = append(o.rooms[name], p)
	o.bytes += int64(len(p.env))
	return receipt, nil
}

// flush stores what the outbox has of a part, room by room in order, and ends its outage if there is one; false: it has not
// ended. back: there was one.
func (b *Broker) flush(ctx context.Context, p part) (back, ended bool) {
	for {
		b.outbox.mu.Lock()
		name, batch := b.outbox.next(func(name message.Room) bool { return p.slots.has(slotOf(b.keys.channel(name))) })
		if len(batch) == 0 {
			back = b.found(p)
			b.outbox.mu.Unlock()
			if back && !b.settle(ctx, p) {
				return false, false
			}
			return back, true
		}
		b.outbox.mu.Unlock()
		if !b.unpark(ctx, name, batch) {
			return false, false
		}
	}
}

// next is the next batch to store of those rooms, which stays where it is; the lock is held.
func (o *outbox) next(of func(message.Room) bool) (message.Room, []*parked) {
	i := slices.IndexFunc(o.order, of)
	if i < 0 {
		return "", nil
	}
	name := o.order[i]
	ps := o.rooms[name]
	n, size := 0, 0
	for n < len(ps) && n < batchMessages && (n == 0 || size+len(ps[n].env) <= batchBytes) {
		size += len(ps[n].env)
		n++
	}
	return name, ps[:n:n]
}

// count is how many messages it has.
func (o *outbox) count() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ps := range o.rooms {
		n += len(ps)
	}
	return n
}

// drop takes the first n messages of the room out that next gave.
func (o *outbox) drop(name message.Room, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ps := o.rooms[name]
	for _, p := range ps[:n] {
		o.bytes -= int64(len(p.env))
	}
	if o.rooms[name] = ps[n:]; len(ps) == n {
		delete(o.rooms, name)
		i := slices.Index(o.order, name)
		o.order = slices.Delete(o.order, i, i+1)
	}
}

// unpark stores a batch. If the outcome is unknown, the next try looks for it first.
func (b *Broker) unpark(ctx context.Context, name message.Room, batch []*parked) bool {
	ctx, end := b.span(ctx, "redis flush", name)
	ch := b.keys.channel(name)
	f := floors{guard: b.least(name, ch)}
	jobs := make([]*job, len(batch))
	for i, p := range batch {
		if p.shown != nil {
			p.shown.rememberShown(p.m.ID.Low)
		}
		jobs[i] = &p.job
		if p.floor != 0 && (f.retry == 0 || p.floor < f.retry) {
			f.retry = p.floor
		}
	}
	known := b.position(ch)
	keys, args := b.publishArgs(name, ch, jobs, f)
	reply, err := b.wire.script(ctx, ScriptPublish, keys, args)
	end(err)
	if err != nil {
		b.stats.publishErrors.Add(1)
	}
	switch {
	case err == nil:
	case judge(err) == hopeless:
		b.log.Error("messages of an outage are lost: a key of their room holds something else", "room", string(name), "count", len(batch), "error", err)
		b.outbox.drop(name, len(batch))
		return true
	default:
		for _, p := range batch {
			if p.floor == 0 {
				p.floor = known
			}
		}
		b.refused.warn(b.log, "messages of an outage could not be stored yet", "error", err)
		return false
	}
	results, pushes, err := readReply(jobs, reply, b.clock.now)
	if err != nil {
		b.refused.warn(b.log, "the answer to messages of an outage is not understood", "error", err)
	} else {
		b.record(name, jobs, reply)
	}
	if r := b.find(ch); r != nil {
		for _, o := range results {
			r.awaitOwn(o.receipt)
		}
	}
	b.touch(name)
	b.own(ch, pushes)
	b.outbox.drop(name, len(batch))
	return true
}

// settle waits until a part's rooms have passed what was stored of an outage, so that what others had stored before it is
// delivered before the outage is over: who resumes from there is owed all that was shown meanwhile. False: the part is away
// again.
func (b *Broker) settle(ctx context.Context, p part) bool {
	for begin := time.Now(); time.Since(begin) < passFor; {
		late := false
		b.mu.RLock()
		for _, r := range b.order {
			if p.slots.has(slotOf(r.ch)) {
				late = r.behindOwn() || late
			}
		}
		b.mu.RUnlock()
		if !late {
			break
		}
		if !pause(ctx, ownLead) || b.lacksAny(&p.slots) {
			return false
		}
	}
	return !b.lacksAny(&p.slots)
}

// awaitOwn notes where a message was stored that had been shown before.
func (r *room) awaitOwn(receipt broker.Receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live && !receipt.Duplicate {
		r.own = max(r.own, receipt.ID.Position)
	}
}

// behindOwn tells whether the room has not come to what is awaited; then it is healed.
func (r *room) behindOwn() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.own <= r.last {
		return false
	}
	r.b.heal(r, HealBehind)
	return true
}

// attachBlind makes the room live though nothing is known of it. What is stored from now on will be read when Redis is back.
func (r *room) attachBlind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.live {
		return
	}
	r.down = true
	r.liveBlind()
}

// liveBlind makes the room live without its tip; the lock is held.
func (r *room) liveBlind() {
	r.live, r.blind, r.base = true, true, r.since
	r.b.sink.Live(r.name, 0, true)
}

// show delivers a message that is not stored yet. It bears the position of what was delivered before it. What this node has
// published before, and what waits because something of others is missing, goes before. False: nobody was there to see it.
func (r *room) show(m *message.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.ID.Position = cmp.Or(r.last, r.since)
	if r.dead || !r.live {
		return false
	}
	for _, w := range r.waiting {
		for _, it := range w.items {
			if w.own && it.m != nil {
				before := *it.m
				r.showNow(&before)
			}
		}
	}
	r.showNow(m)
	return true
}

// showNow delivers a message that is stored elsewhere or nowhere yet; the lock is held.
func (r *room) showNow(m *message.Message) {
	if r.recent.has(m.ID.Low) {
		return
	}
	r.remember(m.ID.Low, 0)
	m.ID.Position = cmp.Or(r.last, r.since)
	e := message.Entry{Message: m, Flags: message.Degraded}
	if m.Ephemeral {
		e.Flags = message.Ephemeral
	}
	r.b.sink.Append(e)
}
