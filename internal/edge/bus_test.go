package edge

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// bus is a broker and publisher of one node, as small as the edge's tests need: it keeps everything.
type bus struct {
	minter *message.Minter
	fail   atomic.Pointer[func() error] // what Publish does instead

	mu    sync.Mutex
	sink  *hub.Hub
	now   message.Position
	since message.Position
	rooms map[message.Room]*kept
	late  map[message.Room]bool // Live is withheld
}

type kept struct {
	entries []message.Entry
	tip     message.Position
	live    bool
	keys    map[string]broker.Receipt
}

func newBus(m *message.Minter) *bus {
	return &bus{minter: m, rooms: make(map[message.Room]*kept), late: make(map[message.Room]bool), now: message.At(time.Now().UnixMilli(), 0)}
}

func (b *bus) room(name message.Room) *kept {
	r := b.rooms[name]
	if r == nil {
		r = &kept{keys: make(map[string]broker.Receipt)}
		b.rooms[name] = r
	}
	return r
}

func (b *bus) Subscribe(name message.Room) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(name)
	if r.live = !b.late[name]; r.live {
		b.sink.Live(name, r.tip, false)
	}
}

func (b *bus) Unsubscribe(name message.Room) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room(name).live = false
}

func (b *bus) Now() message.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = max(b.now, message.At(time.Now().UnixMilli()-1, 4095))
	return b.now
}

func (b *bus) History(_ context.Context, q message.Query) (p message.Page, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(q.Room)
	p.Tip, p.Since = r.tip, b.since
	for _, e := range r.entries {
		at := e.Message.ID.Position
		if !q.Backward && at > q.From || q.Backward && (q.From == 0 || at < q.From) {
			p.Entries = append(p.Entries, e)
		}
	}
	if n := len(p.Entries); n > q.Limit {
		p.More = true
		if q.Backward {
			p.Entries = p.Entries[n-q.Limit:]
		} else {
			p.Entries = p.Entries[:q.Limit]
		}
	}
	return p, nil
}

func (b *bus) Publish(_ context.Context, m *message.Message, caller, key string) (broker.Receipt, error) {
	if f := b.fail.Load(); f != nil {
		return broker.Receipt{}, (*f)()
	}
	if err := m.Check(message.DefaultMaxDataBytes); err != nil {
		return broker.Receipt{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.room(m.Room)
	if rc, ok := r.keys[caller+"\x00"+key]; ok && key != "" {
		rc.Duplicate = true
		return rc, nil
	}
	c := *m
	c.Timestamp = time.Now().UnixMilli()
	e := message.Entry{Message: &c, Prev: r.tip}
	c.ID.Low = b.minter.Low(m.Room.Tag(), m.Ephemeral)
	if m.Ephemeral {
		e.Flags, e.Prev, c.ID.Position = message.Ephemeral, 0, max(r.tip, b.now)
	} else {
		b.now = max(b.now.Next(), message.At(time.Now().UnixMilli(), 0))
		c.ID.Position, r.tip = b.now, b.now
		r.entries = append(r.entries, e)
	}
	if r.live {
		b.sink.Append(e)
	}
	rc := broker.Receipt{ID: c.ID, Timestamp: c.Timestamp}
	r.keys[caller+"\x00"+key] = rc
	return rc, nil
}

// instead has Publish do this; nil: what it should.
func (b *bus) instead(f func() error) {
	if f == nil {
		b.fail.Store(nil)
		return
	}
	b.fail.Store(&f)
}

// open makes a withheld room live.
func (b *bus) open(name message.Room) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.late, name)
	b.room(name).live = true
	b.sink.Live(name, b.room(name).tip, false)
}

// put publishes from the backend's side.
func (b *bus) put(room message.Room, text string) message.ID {
	r, err := b.Publish(context.Background(), &message.Message{Type: message.TypeChat, Room: room, From: "backend", Data: []byte(text)}, "", "")
	if err != nil {
		panic(err)
	}
	return r.ID
}
