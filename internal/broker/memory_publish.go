package broker

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Subscribe implements Broker. Live has been called when it returns.
func (b *Memory) Subscribe(name message.Room) {
	for {
		if r := b.find(name); r != nil {
			defer r.mu.Unlock()
			if s := b.sink.Load(); s != nil {
				r.subscribed = true
				(*s).Live(r.name, r.tip, false)
			}
			return
		}
		if b.subscribeBare(name) {
			return
		}
	}
}

// subscribeBare subscribes a room that has no record; false: it has one now. What makes the record comes behind Live, for
// the stripe's lock is held.
func (b *Memory) subscribeBare(name message.Room) bool {
	st := b.stripe(name)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.rooms[name] != nil {
		return false
	}
	if s := b.sink.Load(); s != nil {
		st.subscribed[name] = struct{}{}
		(*s).Live(name, 0, false)
	}
	return true
}

// Unsubscribe implements Broker. No entry arrives after it has returned.
func (b *Memory) Unsubscribe(name message.Room) {
	st := b.stripe(name)
	st.mu.Lock()
	delete(st.subscribed, name)
	st.mu.Unlock()
	if r := b.find(name); r != nil {
		r.subscribed = false
		r.mu.Unlock()
	}
}

// Publish implements Broker. It waits for nothing but the room's lock; its context is looked at once, at the beginning.
func (b *Memory) Publish(ctx context.Context, p Publication) (Receipt, error) {
	if err := b.open(ctx); err != nil {
		return Receipt{}, err
	}
	if b.bytes.Load() > b.cfg.MaxBytes { // the janitor does not keep up
		b.shrink()
	}
	r := b.room(p.Message.Room)
	defer r.mu.Unlock()
	s := b.sink.Load()
	if s == nil {
		return Receipt{}, ErrClosed
	}
	// The clock is read under the lock: else a position could lie before a Now that was asked for while this one waited.
	now := time.Now()
	if p.Key == "" {
		return b.place(r, *s, p.Message, now), nil
	}
	b.keys.Add(-r.keys.expire(now.Sub(b.start)))
	key := hashKey(p.Caller, p.Key)
	if first, ok := r.keys.receipts[key]; ok {
		first.Duplicate = true
		return first, nil
	}
	if b.keys.Add(1) > b.cfg.MaxKeys {
		b.keys.Add(-1)
		return Receipt{}, ErrOverloaded
	}
	receipt := b.place(r, *s, p.Message, now)
	r.keys.add(key, receipt, now.Sub(b.start)+b.cfg.IdempotencyTTL)
	return receipt, nil
}

// place gives a message its position, keeps it unless it is ephemeral, and hands it on; the room's lock is held.
func (b *Memory) place(r *memoryRoom, s Sink, published *message.Message, now time.Time) Receipt {
	m := *published
	m.Room = r.name // so a kept message does not keep its own copy of the name
	e := message.Entry{Message: &m}
	if m.Ephemeral {
		e.Flags = message.Ephemeral
		if m.ID.Position = r.tip; r.tip == 0 {
			m.ID.Position = b.Now()
		}
	} else {
		ms := b.clock.read(now)
		m.ID.Position = max(message.At(ms, 0), r.tip.Next())
		e.Prev, r.tip = r.tip, m.ID.Position
		m.Data = compact(m.Data)
		if b.bytes.Add(r.keep(&m, ms)) > b.cfg.MaxBytes-b.cfg.MaxBytes/16 {
			select {
			case b.nudge <- struct{}{}:
			default:
			}
		}
	}
	if r.subscribed {
		s.Append(e)
	}
	return Receipt{ID: m.ID, Timestamp: m.Timestamp}
}

// compact returns data without the rest of a larger buffer, which history would keep alive with it.
func compact(data []byte) []byte {
	if cap(data)-len(data) > len(data)/4+64 {
		return bytes.Clone(data)
	}
	return data
}

// Now implements Broker.
func (b *Memory) Now() message.Position {
	return message.At(b.clock.read(time.Now())-1, 4095)
}

// Delete implements Broker. A room that never had a message has nothing to tell.
func (b *Memory) Delete(ctx context.Context, name message.Room) error {
	if err := b.open(ctx); err != nil {
		return err
	}
	r := b.find(name)
	if r == nil {
		return nil
	}
	defer r.mu.Unlock()
	s := b.sink.Load()
	if s == nil {
		return ErrClosed
	}
	if r.tip == 0 {
		return nil
	}
	b.bytes.Add(-r.clear())
	if r.subscribed {
		(*s).Deleted(r.name, r.cut)
	}
	return nil
}

// History implements Broker.
func (b *Memory) History(ctx context.Context, q message.Query) (message.Page, error) {
	if err := b.open(ctx); err != nil {
		return message.Page{}, err
	}
	var p message.Page
	ms := b.clock.read(time.Now())
	if r := b.find(q.Room); r != nil {
		b.bytes.Add(-r.trim(ms))
		p = r.page(q)
		r.mu.Unlock()
	}
	// Read after the room was looked for: what is forgotten is noted before the room goes.
	early := message.Position(b.forgotten.Load())
	p.Since = max(b.born, early, message.At(ms, 0).Before(b.retention(q.Room).remembered()))
	return p, nil
}

// Rooms implements Broker.
func (b *Memory) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	var names []message.Room
	ms := b.clock.read(time.Now())
	for i := range b.stripes {
		for _, r := range b.stripes[i].list() {
			if r.name <= after || !r.name.Ordinary() || !strings.HasPrefix(string(r.name), prefix) {
				continue
			}
			r.mu.Lock()
			b.bytes.Add(-r.trim(ms))
			if r.entries.n > 0 {
				names = append(names, r.name)
			}
			r.mu.Unlock()
		}
	}
	slices.Sort(names)
	return names[:min(len(names), limit)], nil
}

// remembered is how long after its newest message a room may be forgotten.
func (keep Retention) remembered() time.Duration { return max(keep.Age, 0) + vouchFor }
