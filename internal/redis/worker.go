package redis

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

const (
	workerBytes = 64 << 20
	maxHealers  = 256 // rooms whose streams are read at once
	manyNodes   = 20  // more of them do not all read at once what they have missed together
	maxJitter   = 500 * time.Millisecond
	healPage    = 256
	ownLead     = 30 * time.Millisecond // by so much a reply of ours may overtake the push of what lies before it
	sweepEvery  = time.Second
)

// worker puts what the channels of its rooms bring into order. What it cannot take is dropped, and read from the stream
// when it has caught up: nobody ever waits for it.
type worker struct {
	b     *Broker
	in    chan frame
	bytes atomic.Int64 // in it

	mu    sync.Mutex
	dirty []*room // rooms of which something was dropped, each once
}

type frame struct {
	r    *room
	text string
}

func newWorker(b *Broker) *worker {
	return &worker{b: b, in: make(chan frame, b.cfg.Backlog)}
}

// receive takes a message from a connection; it never waits.
func (b *Broker) receive(ch, text string) {
	r := b.find(ch)
	if r == nil {
		if ch == b.keys.control() || ch == b.keys.node(b.inc) {
			select {
			case b.control <- text:
			default: // it is asked again, or named as unreached
			}
		}
		return
	}
	w := r.worker
	if w.bytes.Add(int64(len(text))) <= workerBytes {
		select {
		case w.in <- frame{r, text}:
			return
		default:
		}
	}
	w.bytes.Add(-int64(len(text)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if !r.lossy {
		r.lossy = true
		w.dirty = append(w.dirty, r)
	}
	r.lossyBack = r.lossyBack || isRestored(text)
}

func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-w.in:
			w.bytes.Add(-int64(len(f.text)))
			w.b.handle(f.r, f.text)
			if len(w.in) == 0 {
				w.recover()
			}
		}
	}
}

// recover heals the rooms of which something was dropped.
func (w *worker) recover() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.dirty {
		back := r.lossyBack
		r.lossy, r.lossyBack = false, false
		if back {
			r.readAgain()
		} else {
			w.b.heal(r, HealDropped)
		}
	}
	w.dirty = nil
}

// handle reads a frame and offers it.
func (b *Broker) handle(r *room, text string) {
	var p push
	var err error
	if text != "" && text[0] == '{' {
		var it item
		if it, err = parseForeign(text, r.name, time.Now()); err == nil {
			it.m.ID.Low = b.cfg.Minter.Low(r.name.Tag(), true)
			p.items = []item{it}
		}
	} else {
		p, err = parsePush(text, r.name)
	}
	if err != nil {
		b.junk.warn(b.log, "what came on a room's channel is not understood and is left out", "room", string(r.name), "error", err)
		return
	}
	r.offer(p, false)
}

// heals are the rooms whose streams are to be read, each once, and how many are being read.
type heals struct {
	mu      sync.Mutex
	rooms   []*room
	healers int
}

// heal asks for the room's stream to be read. r.mu may be held or not.
func (b *Broker) heal(r *room, cause HealCause) {
	if r.queued.Swap(true) {
		return
	}
	b.stats.heals[cause].Add(1)
	b.heals.mu.Lock()
	defer b.heals.mu.Unlock()
	b.heals.rooms = append(b.heals.rooms, r)
	if b.heals.healers < maxHealers && b.running.Err() == nil {
		b.heals.healers++
		b.loops.Go(func() { b.healAll(b.running) })
	}
}

// next is the next room to heal; none: the healer that asked ends.
func (h *heals) next() (r *room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.rooms) == 0 {
		h.healers--
		return nil
	}
	r, h.rooms = h.rooms[0], h.rooms[1:]
	return r
}

// healAll reads streams as long as there are some to be read.
func (b *Broker) healAll(ctx context.Context) {
	wait := redialFirst
	for r := b.heals.next(); r != nil; r = b.heals.next() {
		r.queued.Store(false)
		if b.readMissing(ctx, r) {
			wait = redialFirst
			continue
		}
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, redialMost)
		b.heal(r, HealAgain)
	}
}

// jitter is how long a node waits before it reads what it has missed when connections broke, as others may have.
func (b *Broker) jitter() time.Duration {
	if nodes := b.nodes.Load(); nodes == nil || len(*nodes) <= manyNodes {
		return 0
	}
	return time.Duration(b.chanceOf(uint64(maxJitter)))
}

// readMissing delivers what the room's stream has behind what was delivered.
func (b *Broker) readMissing(ctx context.Context, r *room) bool {
	keep := b.retention(r.name)
	ctx, end := b.span(ctx, "redis heal", r.name)
	from, more := r.begin()
	if !more {
		return true
	}
	for more {
		h, err := b.wire.read(ctx, r.name, r.ch, from, 0, false, healPage)
		var first message.Position
		if err == nil && len(h.entries) > 0 && h.entries[0].prev > from && h.length >= int64(keep.Messages) {
			first, err = b.firstOf(ctx, r.name, r.ch)
		}
		if err != nil {
			end(err)
			r.end(false)
			return false
		}
		from, more = r.fill(h, first, keep.Messages)
	}
	end(nil)
	r.end(true)
	return true
}

// laterList is rooms whose hole may close by itself. Each waits equally long, so they come out in the order they went in.
type laterList struct {
	mu   *sync.Mutex
	due  []dueRoom
	some chan struct{}
}

type dueRoom struct {
	r  *room
	at time.Time
}

func newLaterList() laterList { return laterList{mu: new(sync.Mutex), some: make(chan struct{}, 1)} }

func (b *Broker) wakeLater(r *room) {
	b.later.mu.Lock()
	defer b.later.mu.Unlock()
	b.later.due = append(b.later.due, dueRoom{r, time.Now().Add(ownLead)})
	signal(b.later.some)
}

func (l *laterList) run(ctx context.Context) {
	for {
		l.mu.Lock()
		var first dueRoom
		if len(l.due) > 0 {
			first = l.due[0]
		}
		l.mu.Unlock()
		if first.r == nil {
			select {
			case <-ctx.Done():
				return
			case <-l.some:
			}
			continue
		}
		if !pause(ctx, time.Until(first.at)) {
			return
		}
		l.mu.Lock()
		l.due = l.due[1:]
		l.mu.Unlock()
		first.r.awaited()
	}
}

// sweep compares rooms' tips with what was delivered, a hundredth of them each second, and writes down which have history.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.journal.expire(b.elapsed(), func(name message.Room) bool { return b.isAway(b.keys.channel(name)) })
		if err := b.touched.flush(ctx, b); err != nil && ctx.Err() == nil {
			b.undone.warn(b.log, "the list of rooms with history could not be written", "error", err)
		}
		some := b.nextSwept()
		if len(some) == 0 {
			continue
		}
		for _, part := range b.wire.divide(some) {
			b.sweepPart(ctx, part)
		}
	}
}

func (b *Broker) sweepPart(ctx context.Context, channels []string) {
	lasts := make([]message.Position, len(channels))
	for i, ch := range channels {
		lasts[i] = b.delivered(ch)
	}
	tips, err := b.wire.tips(ctx, channels)
	if err != nil {
		return
	}
	for i, ch := range channels {
		if r := b.find(ch); r != nil {
			r.sweep(tips[i], lasts[i])
		}
	}
}

// nextSwept are the channels of the rooms to compare next.
func (b *Broker) nextSwept() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.order)/100+1, tipBatch, len(b.order))
	some := make([]string, 0, n)
	for range n {
		b.swept = (b.swept + 1) % len(b.order)
		some = append(some, b.order[b.swept].ch)
	}
	return some
}

// sweep is the comparison of anti-entropy: what is missing is given a moment to come.
func (r *room) sweep(t tipCut, before message.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.dead || !r.live || r.blind || r.healing:
	case t.cut > r.cut:
		r.b.heal(r, HealBehind)
	case t.tip > r.last:
		r.missing(t.tip, true)
	default:
		r.regressed(t, before)
	}
}

// limited logs at most once in a while, and counts.
type limited struct {
	n    atomic.Int64
	next atomic.Int64 // Unix milliseconds
}

func (l *limited) warn(log *slog.Logger, text string, args ...any) {
	n, now := l.n.Add(1), time.Now().UnixMilli()
	if next := l.next.Load(); now >= next && l.next.CompareAndSwap(next, now+10_000) {
		log.Warn(text, append(args, "count", n)...) //nolint:sloglint // the callers' texts are constants
	}
}

// touched is the rooms published in that are to be written into the list of rooms with history.
type touched struct {
	mu    sync.Mutex
	rooms map[message.Room]time.Time // when they were noted last
	todo  map[message.Room]struct{}
}

const (
	touchEvery = time.Minute
	touchMost  = 1 << 16
)

// add notes a publication.
func (t *touched) add(name message.Room) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.rooms[name]; ok && now.Sub(at) < touchEvery {
		return
	}
	if t.rooms == nil || len(t.rooms) >= touchMost { // forgetting them costs a write too many
		t.rooms = make(map[message.Room]time.Time)
	}
	if t.todo == nil {
		t.todo = make(map[message.Room]struct{})
	}
	t.rooms[name] = now
	t.todo[name] = struct{}{}
}

// flush writes what was noted; if that fails, it is kept for the next time.
func (t *touched) flush(ctx context.Context, b *Broker) (err error) {
	t.mu.Lock()
	todo := t.todo
	t.todo = nil
	t.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	if err = b.list(ctx, todo); err == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.todo {
		todo[name] = struct{}{}
	}
	if t.todo = todo; len(todo) >= touchMost { // Redis is away for long: who publishes again is noted again
		t.rooms, t.todo = nil, nil
	}
	return err
}
