package redis

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/broker"
)

// isAway tells whether what a channel lies in is away.
func (b *Broker) isAway(ch string) bool {
	return b.away.Load() && b.gone.Load().has(slotOf(ch))
}

// isPartAway tells whether that is a part of Redis which is away while others are not.
func (b *Broker) isPartAway(ch string) bool { return b.wire.cluster() != nil && b.isAway(ch) }

// partOf is what has failed when a publish in a channel has: where keys are on their way to another primary it is their slot.
func (b *Broker) partOf(ch string, err error) part {
	p := b.wire.part(ch)
	if text, ok := answered(err); ok && strings.HasPrefix(text, "TRYAGAIN") {
		p.slots = slots{}
	}
	p.slots.add(slotOf(ch))
	return p
}

// lose begins the outage of a part: from now on nothing waits for it, until watch has found it again.
func (b *Broker) lose(p part, err error) {
	b.outbox.mu.Lock()
	was := b.lacks()
	fresh := p.slots.without(&was)
	if fresh == (slots{}) {
		b.outbox.mu.Unlock()
		return
	}
	now := was.with(&fresh)
	b.gone.Store(&now)
	if !b.away.Swap(true) {
		b.stats.away(b.elapsed())
	}
	b.outbox.mu.Unlock()
	all := p.slots == allSlots
	if all {
		b.log.Warn("redis is away: messages reach this node's sessions alone until it is back", "error", err)
		b.sink.Degraded("")
	} else {
		b.log.Warn("a part of redis is away: messages of its rooms reach this node's sessions alone until it is back",
			"primary", p.addr, "slots", fresh.count(), "error", err)
	}
	b.tell(&fresh, all)
	if b.presence != nil {
		signal(b.presence.news)
	}
	signal(b.lost)
}

// found ends the outage of a part, and tells whether there was one; the outbox's lock is held, and the outbox has nothing of
// the part.
func (b *Broker) found(p part) bool {
	was := b.lacks()
	now := was.without(&p.slots)
	if now == was {
		return false
	}
	b.gone.Store(&now)
	if now == (slots{}) {
		b.away.Store(false)
		b.stats.reachable(b.elapsed())
	}
	maps.DeleteFunc(b.outbox.keys, func(key string, _ broker.Receipt) bool {
		gone := p.slots.has(slotOf(key))
		if gone {
			b.outbox.bytes -= keyCost
		}
		return gone
	})
	return true
}

// lacks is what is away.
func (b *Broker) lacks() (s slots) {
	if gone := b.gone.Load(); gone != nil {
		s = *gone
	}
	return s
}

// lacksAny tells whether any of these slots is away.
func (b *Broker) lacksAny(of *slots) bool {
	lacks := b.lacks()
	return lacks.without(of) != lacks
}

// tell tells the Sink of the rooms in some slots whether Redis is away for them. all: it was told of all rooms at once.
func (b *Broker) tell(of *slots, all bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, r := range b.order {
		if of.has(slotOf(r.ch)) {
			r.tell(all)
		}
	}
}

// tell tells the Sink whether Redis is away for the room, if that is news and it was not told already.
func (r *room) tell(told bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	away := r.b.isAway(r.ch)
	if r.dead || away == r.down && r.live {
		return
	}
	if news := away != r.down; news && !told && r.live {
		if away {
			r.b.sink.Degraded(r.name)
		} else {
			r.b.sink.Restored(r.name)
		}
	}
	r.down = away
	if away && !r.live {
		r.liveBlind()
	}
}

// watch ends outages, and puts back what Redis has lost, until the context ends; an error is one that no trying again cures.
func (b *Broker) watch(ctx context.Context) error {
	var begin time.Time // of the last try
	rest := time.Duration(0)
	for {
		var todo slots // what is to be compared with the journal
		select {
		case <-ctx.Done():
			return nil
		case <-b.lost:
		case <-b.kicked:
			if !b.rest(ctx, rest-time.Since(begin)) {
				return nil
			}
			todo = allSlots
		}
		for wait := redialFirst; ; wait = min(2*wait, redialMost) {
			begin = time.Now()
			if !b.wire.opened.Load() {
				if err := b.connect(ctx); refused(err) {
					return refusal(err)
				}
			}
			var took time.Duration // without what the end of an outage waits for: what is lost meanwhile does not
			if gone := b.lacks(); b.wire.opened.Load() {
				todo, took = b.regainAll(ctx, todo.with(&gone))
			}
			// However often Redis loses something, most of its time is for others.
			if rest = max(kickPause, 11*took); todo == (slots{}) && !b.away.Load() {
				break
			}
			if !pause(ctx, wait) {
				return nil
			}
			if time.Since(begin) > rest {
				select {
				case <-b.kicked:
					todo = allSlots
				default:
				}
			}
		}
	}
}

// rest pauses, unless an outage begins; false: the context has ended.
func (b *Broker) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-b.lost:
	case <-t.C:
	}
	return true
}

// regainAll ends the outages of those parts of some slots that answer again, and puts back what they have lost. It returns
// what does not answer, and how long Redis was asked.
func (b *Broker) regainAll(ctx context.Context, of slots) (left slots, took time.Duration) {
	b.wire.doubt()
	begin, before := time.Now(), b.restored.Load()
	parts := b.wire.parts(of)
	left = of
	var mu sync.Mutex // guards left and took
	var tries sync.WaitGroup
	for _, p := range parts {
		tries.Go(func() {
			compared, ended := b.regain(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			if took = max(took, compared.Sub(begin)); ended {
				left = left.without(&p.slots)
			}
		})
	}
	tries.Wait()
	if n := b.restored.Load() - before; n > 0 {
		b.log.Warn("redis had lost messages: they are back in their places", "count", n, "took", time.Since(begin))
	}
	return left, took
}

// regain puts back what a part has lost, which it is compared for until the time that is returned, and ends its outage if there
// is one; false: it does not answer.
func (b *Broker) regain(ctx context.Context, p part) (compared time.Time, ended bool) {
	ok := b.reaches(ctx, p) == nil && b.reconcile(ctx, p)
	if compared = time.Now(); !ok {
		return compared, false
	}
	back, ended := b.flush(ctx, p)
	if !back {
		return compared, ended
	}
	all := p.slots == allSlots
	if all {
		b.log.Info("redis is back")
		b.sink.Restored("")
	} else {
		b.log.Info("a part of redis is back", "primary", p.addr, "slots", p.slots.count())
	}
	b.tell(&p.slots, all)
	if b.presence != nil {
		signal(b.presence.news)
		signal(b.presence.flush)
	}
	return compared, true
}

// reaches asks a part for a sign of life, and gives one where that is to be given.
func (b *Broker) reaches(ctx context.Context, p part) error {
	if p.slots.has(slotOf(b.keys.control())) {
		_, err := b.beat(ctx)
		return err
	}
	return b.wire.answers(ctx, p)
}

// pulses looks after the primaries of a cluster, as often as the node's heart beats, which looks after one of them. Where
// nothing is published nobody else would see that one is away.
func (b *Broker) pulses(ctx context.Context) {
	failed := make(map[string]int)
	for rest := b.cfg.Beat; pause(ctx, rest); {
		rest = b.cfg.Beat
		if b.wire.cluster() == nil {
			continue
		}
		parts := b.wire.parts(allSlots)
		errs := make([]error, len(parts))
		var asked sync.WaitGroup
		for i, p := range parts {
			slot, _ := p.slots.first()
			if gone := b.lacks(); !gone.has(slot) {
				asked.Go(func() { errs[i] = b.wire.answers(ctx, p) })
			}
		}
		asked.Wait()
		if ctx.Err() != nil {
			return
		}
		now := make(map[string]int)
		for i, p := range parts {
			if errs[i] == nil {
				continue
			}
			rest = min(rest, beatAgain)
			b.wire.doubt()
			if now[p.addr] = failed[p.addr] + 1; now[p.addr] >= beatFailures {
				b.lose(p, errs[i])
			}
		}
		failed = now
	}
}
