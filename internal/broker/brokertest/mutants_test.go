package brokertest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// mutant is an end of a bus that breaks one promise. What has no hook is done rightly.
type mutant struct {
	broker.Broker
	hooks
	sink broker.Sink // set by Run
}

type hooks struct {
	run         func(m *mutant)
	sink        func(s broker.Sink) broker.Sink
	now         func(p message.Position) message.Position
	subscribe   func(m *mutant, room message.Room)
	unsubscribe func(m *mutant, room message.Room)
	publish     func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error)
	history     func(m *mutant, ctx context.Context, q message.Query) (message.Page, error)
	rooms       func(names []message.Room) []message.Room
	remove      func(m *mutant, ctx context.Context, room message.Room) error
	ask         func(m *mutant, ctx context.Context, r broker.Request) ([]broker.Reply, []string, error)
	revoke      func(r broker.Revocation) broker.Revocation
	version     func(v uint64) uint64
}

func (m *mutant) Run(ctx context.Context, s broker.Sink, ready func()) error {
	if m.hooks.sink != nil {
		s = m.hooks.sink(s)
	}
	m.sink = s
	if m.run != nil {
		m.run(m)
	}
	return m.Broker.Run(ctx, s, ready)
}

func (m *mutant) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	names, err := m.Broker.Rooms(ctx, prefix, after, limit)
	if m.rooms != nil {
		names = m.rooms(names)
	}
	return names, err
}

func (m *mutant) Now() message.Position {
	if m.now != nil {
		return m.now(m.Broker.Now())
	}
	return m.Broker.Now()
}

func (m *mutant) Subscribe(room message.Room) {
	if m.subscribe != nil {
		m.subscribe(m, room)
		return
	}
	m.Broker.Subscribe(room)
}

func (m *mutant) Unsubscribe(room message.Room) {
	if m.unsubscribe != nil {
		m.unsubscribe(m, room)
		return
	}
	m.Broker.Unsubscribe(room)
}

func (m *mutant) Publish(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
	if m.publish != nil {
		return m.publish(m, ctx, p)
	}
	return m.Broker.Publish(ctx, p)
}

func (m *mutant) History(ctx context.Context, q message.Query) (message.Page, error) {
	if m.history != nil {
		return m.history(m, ctx, q)
	}
	return m.Broker.History(ctx, q)
}

func (m *mutant) Delete(ctx context.Context, room message.Room) error {
	if m.remove != nil {
		return m.remove(m, ctx, room)
	}
	return m.Broker.Delete(ctx, room)
}

func (m *mutant) Ask(ctx context.Context, r broker.Request) ([]broker.Reply, []string, error) {
	if m.ask != nil {
		return m.ask(m, ctx, r)
	}
	return m.Broker.Ask(ctx, r)
}

func (m *mutant) Revoke(ctx context.Context, r broker.Revocation) error {
	if m.hooks.revoke != nil {
		r = m.hooks.revoke(r)
	}
	return m.Broker.Revoke(ctx, r)
}

func (m *mutant) Revocations(ctx context.Context) ([]broker.Revocation, uint64, error) {
	rs, v, err := m.Broker.Revocations(ctx)
	if m.version != nil {
		v = m.version(v)
	}
	return rs, v, err
}

// twisted is a Sink that passes on something else than it was told.
type twisted struct {
	broker.Sink
	append  func(s broker.Sink, e message.Entry)
	live    func(s broker.Sink, room message.Room, tip message.Position)
	deleted func(s broker.Sink, room message.Room, upTo message.Position)
}

func (w twisted) Append(e message.Entry) {
	if w.append != nil {
		w.append(w.Sink, e)
		return
	}
	w.Sink.Append(e)
}

func (w twisted) Live(room message.Room, tip message.Position, degraded bool) {
	if w.live != nil {
		w.live(w.Sink, room, tip)
		return
	}
	w.Sink.Live(room, tip, degraded)
}

func (w twisted) Deleted(room message.Room, upTo message.Position) {
	if w.deleted != nil {
		w.deleted(w.Sink, room, upTo)
		return
	}
	w.Sink.Deleted(room, upTo)
}

// appending twists the entries, of which it gets the number.
func appending(f func(s broker.Sink, e message.Entry, number int)) hooks {
	var mu sync.Mutex
	number := 0
	return hooks{sink: func(s broker.Sink) broker.Sink {
		return twisted{Sink: s, append: func(s broker.Sink, e message.Entry) {
			mu.Lock()
			number++
			i := number
			mu.Unlock()
			f(s, e, i)
		}}
	}}
}

// twistMessage twists what is published.
func twistMessage(f func(m *message.Message)) hooks {
	return hooks{publish: func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error) {
		c := *p.Message
		f(&c)
		p.Message = &c
		return m.Broker.Publish(ctx, p)
	}}
}

// twistPage twists what history answers.
func twistPage(f func(q message.Query, p *message.Page)) hooks {
	return hooks{history: func(m *mutant, ctx context.Context, q message.Query) (message.Page, error) {
		p, err := m.Broker.History(ctx, q)
		f(q, &p)
		return p, err
	}}
}

// twistKey twists caller and key.
func twistKey(f func(p *broker.Publication)) hooks {
	return hooks{publish: func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error) {
		f(&p)
		return m.Broker.Publish(ctx, p)
	}}
}

func swapNeighbours() hooks {
	var mu sync.Mutex
	held := make(map[message.Room]message.Entry)
	return appending(func(s broker.Sink, e message.Entry, number int) {
		mu.Lock()
		before, swap := held[e.Message.Room]
		if delete(held, e.Message.Room); !swap && number%10 == 0 {
			held[e.Message.Room] = e
			mu.Unlock()
			return
		}
		mu.Unlock()
		s.Append(e)
		if swap {
			s.Append(before)
		}
	})
}

func compactData(m *message.Message) {
	v := jsontext.Value(append([]byte(nil), m.Data...))
	if v.Compact() == nil {
		m.Data = v
	}
}

func withoutContexts() hooks {
	return hooks{
		publish: func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error) {
			return m.Broker.Publish(context.WithoutCancel(ctx), p)
		},
		history: func(m *mutant, ctx context.Context, q message.Query) (message.Page, error) {
			return m.Broker.History(context.WithoutCancel(ctx), q)
		},
	}
}

func fromInclusive() hooks {
	return hooks{history: func(m *mutant, ctx context.Context, q message.Query) (message.Page, error) {
		switch {
		case q.From == 0:
		case q.Backward:
			q.From++
		default:
			q.From--
		}
		return m.Broker.History(ctx, q)
	}}
}

func mixedAnswers() hooks {
	var mu sync.Mutex
	var last []byte
	return hooks{ask: func(m *mutant, ctx context.Context, r broker.Request) ([]broker.Reply, []string, error) {
		mu.Lock()
		defer mu.Unlock()
		replies, unreached, err := m.Broker.Ask(ctx, r)
		for i := range replies {
			last, replies[i].Body = replies[i].Body, last
		}
		return replies, unreached, err
	}}
}

// afterEnd does something when a publication is refused because Run has ended.
func afterEnd(f func(m *mutant, room message.Room) error) hooks {
	return hooks{publish: func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error) {
		r, err := m.Broker.Publish(ctx, p)
		if errors.Is(err, broker.ErrClosed) {
			err = f(m, p.Message.Room)
		}
		return r, err
	}}
}

func lowerCase(m *message.Message) { m.Room = message.Room(strings.ToLower(string(m.Room))) }

const later = message.Position(time.Second/time.Millisecond) << 12
