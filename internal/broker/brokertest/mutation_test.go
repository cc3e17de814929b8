package brokertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// mutation is a way to break the contract, and the cases that must see it.
type mutation struct {
	name   string
	hooks  func() hooks
	config func(*broker.MemoryConfig)
	seen   []contractFunc
	alone  bool // it looks at more than its own bus
}

type contractFunc = func(t testing.TB, f Factory)

// mutations show of every case that it can fail.
var mutations = []mutation{
	{name: "Now is a second ahead", hooks: func() hooks {
		return hooks{now: func(p message.Position) message.Position { return p + later }}
	}, seen: []contractFunc{afterNow, ephemeralNow, twoNow}},
	{name: "some entries come twice", hooks: func() hooks {
		return appending(func(s broker.Sink, e message.Entry, i int) {
			s.Append(e)
			if i%5 == 0 {
				s.Append(e)
			}
		})
	}, seen: []contractFunc{oneOrder, twoOneOrder, manyRooms}},
	{name: "some entries are lost", hooks: func() hooks {
		return appending(func(s broker.Sink, e message.Entry, i int) {
			if i%5 != 0 {
				s.Append(e)
			}
		})
	}, seen: []contractFunc{oneOrder, liveUnderLoad, manyRooms, deleteUnderLoad}},
	{name: "neighbours change places", hooks: swapNeighbours, seen: []contractFunc{publisherOrder, oneOrder, twoOneOrder}},
	{name: "entries do not name the one before", hooks: func() hooks {
		return appending(func(s broker.Sink, e message.Entry, _ int) {
			e.Prev = 0
			s.Append(e)
		})
	}, seen: []contractFunc{oneOrder, liveTip, keptByCount, deleteTells}},
	{name: "calls for one room overlap", hooks: func() hooks {
		return appending(func(s broker.Sink, e message.Entry, _ int) {
			var wg sync.WaitGroup
			wg.Go(func() { s.Append(e) })
			wg.Go(func() { s.Deleted(e.Message.Room, 1) })
			wg.Wait()
		})
	}, seen: []contractFunc{oneOrder}},
	{name: "the bus sets the timestamp", hooks: func() hooks {
		return twistMessage(func(m *message.Message) { m.Timestamp = time.Now().UnixMilli() })
	}, seen: []contractFunc{unchanged}},
	{name: "the message given is changed", hooks: func() hooks {
		return twistKey(func(p *broker.Publication) { p.Message.ID.Position = 7 })
	}, seen: []contractFunc{unchanged}},
	{name: "data is written anew", hooks: func() hooks { return twistMessage(compactData) }, seen: []contractFunc{unchanged, largeData}},
	{name: "exclusions are forgotten", hooks: func() hooks {
		return twistMessage(func(m *message.Message) { m.ExcludeSessions, m.ExcludeUsers = nil, nil })
	}, seen: []contractFunc{exclusions}},
	{name: "ephemeral messages are kept", hooks: func() hooks {
		return twistMessage(func(m *message.Message) { m.Ephemeral = false })
	}, seen: []contractFunc{ephemeralPosition, ephemeralNow, ephemeralNotKept, emptyPage}},
	{name: "ephemeral messages are not delivered", hooks: func() hooks {
		return appending(func(s broker.Sink, e message.Entry, _ int) {
			if e.Flags == 0 {
				s.Append(e)
			}
		})
	}, seen: []contractFunc{ephemeralPosition, ephemeralNow, twoEphemeral}},
	{name: "contexts are not looked at", hooks: withoutContexts, seen: []contractFunc{endedContext, endedRead}},
	{name: "names are told apart without their case", hooks: func() hooks { return twistMessage(lowerCase) }, seen: []contractFunc{oddRooms}},

	{name: "keys are ignored", hooks: func() hooks {
		return twistKey(func(p *broker.Publication) { p.Key = "" })
	}, seen: []contractFunc{repeatedKey, racingKeys, ephemeralKey, keyOutlivesDelete, keyExpires, twoRacingKeys}},
	{name: "callers share their keys", hooks: func() hooks {
		return twistKey(func(p *broker.Publication) { p.Caller = "" })
	}, seen: []contractFunc{separateKeys}},
	{name: "caller and key run together", hooks: func() hooks {
		return twistKey(func(p *broker.Publication) { p.Caller, p.Key = "", p.Caller+p.Key })
	}, seen: []contractFunc{separateKeys}},
	{name: "keys are kept for ever", config: func(c *broker.MemoryConfig) { c.IdempotencyTTL = time.Hour }, seen: []contractFunc{keyExpires}},

	{name: "Live names no tip", hooks: func() hooks {
		return hooks{sink: func(s broker.Sink) broker.Sink {
			return twisted{Sink: s, live: func(s broker.Sink, room message.Room, _ message.Position) { s.Live(room, 0, false) }}
		}}
	}, seen: []contractFunc{liveTip, resubscribe, liveUnderLoad, twoHistory}},
	{name: "Live names a tip where there is none", hooks: func() hooks {
		return hooks{sink: func(s broker.Sink) broker.Sink {
			return twisted{Sink: s, live: func(s broker.Sink, room message.Room, tip message.Position) { s.Live(room, tip+1, false) }}
		}}
	}, seen: []contractFunc{liveWithoutTip, deleteOne}},
	{name: "each subscription delivers", hooks: subscribedEach, seen: []contractFunc{subscribedTwice}},
	{name: "every room is delivered", hooks: func() hooks {
		return hooks{publish: func(m *mutant, ctx context.Context, p broker.Publication) (broker.Receipt, error) {
			m.Broker.Subscribe(p.Message.Room)
			return m.Broker.Publish(ctx, p)
		}}
	}, seen: []contractFunc{notSubscribed}},
	{name: "every room is delivered from the start", hooks: func() hooks {
		return hooks{subscribe: func(m *mutant, room message.Room) {
			m.Broker.Subscribe("general")
			m.Broker.Subscribe(room)
		}}
	}, seen: []contractFunc{twoNotSubscribed}},
	{name: "Unsubscribe does nothing", hooks: func() hooks {
		return hooks{unsubscribe: func(*mutant, message.Room) {}}
	}, seen: []contractFunc{resubscribe}},

	{name: "there is never more", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) { p.More = false })
	}, seen: []contractFunc{pagesForward, pagesBackward, pageBytes}},
	{name: "rooms are listed in any order", hooks: func() hooks {
		return hooks{rooms: func(names []message.Room) []message.Room { slices.Reverse(names); return names }}
	}, seen: []contractFunc{listedRooms}},
	{name: "there is always more", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) { p.More = true })
	}, seen: []contractFunc{pagesForward, pagesBackward, fromBetween, emptyPage, readUnderLoad, keptByCount, deleteTells}},
	{name: "From is inclusive", hooks: fromInclusive, seen: []contractFunc{pagesForward, pagesBackward, fromBetween}},
	{name: "pages are newest first", hooks: func() hooks {
		return twistPage(func(q message.Query, p *message.Page) {
			if q.Backward {
				slices.Reverse(p.Entries)
			}
		})
	}, seen: []contractFunc{pagesBackward, pageBytes}},
	{name: "pages do not look at Bytes", hooks: func() hooks {
		return hooks{history: func(m *mutant, ctx context.Context, q message.Query) (message.Page, error) {
			q.Bytes = 0
			return m.Broker.History(ctx, q)
		}}
	}, seen: []contractFunc{pageBytes}},
	{name: "kept entries do not name the one before", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) {
			for i := range p.Entries {
				p.Entries[i].Prev = 0
			}
		})
	}, seen: []contractFunc{pagesForward, readUnderLoad, keptByCount, keptByAge, deleteTells}},
	{name: "the tip is the page's last", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) {
			if p.Tip = 0; len(p.Entries) > 0 {
				p.Tip = p.Entries[len(p.Entries)-1].Message.ID.Position
			}
		})
	}, seen: []contractFunc{pageTip, keptByAge, deleteTells, twoDelete}},
	{name: "nothing is vouched for", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) { p.Since += later })
	}, seen: []contractFunc{emptyPage, pageTip}},

	{name: "nothing is let go of", config: func(c *broker.MemoryConfig) {
		c.Retention, c.Patterns = broker.DefaultRetention, message.Patterns[broker.Retention]{}
	}, seen: []contractFunc{keptByCount, keptByAge, keptByPattern}},
	{name: "too little is kept", config: func(c *broker.MemoryConfig) { c.Retention = broker.Retention{Messages: 2} }, seen: []contractFunc{keptByCount, keptByAge, keptByPattern}},
	{name: "a deletion is not told", hooks: func() hooks {
		return hooks{sink: func(s broker.Sink) broker.Sink {
			return twisted{Sink: s, deleted: func(broker.Sink, message.Room, message.Position) {}}
		}}
	}, seen: []contractFunc{deleteTells, twoDelete}},
	{name: "nothing is deleted", hooks: func() hooks {
		return hooks{remove: func(*mutant, context.Context, message.Room) error { return nil }}
	}, seen: []contractFunc{deleteTells, deleteOne, twoDelete}},
	{name: "a deletion is told in rooms without messages", hooks: func() hooks {
		return hooks{remove: func(m *mutant, ctx context.Context, room message.Room) error {
			if room == "never" {
				m.sink.Deleted(room, m.Now())
			}
			return m.Broker.Delete(ctx, room)
		}}
	}, seen: []contractFunc{deleteOne}},
	{name: "history is cut at its tip", hooks: func() hooks {
		return twistPage(func(_ message.Query, p *message.Page) { p.Cut = p.Tip })
	}, seen: []contractFunc{pageTip, deleteUnderLoad}},

	{name: "replies bear no name", hooks: func() hooks {
		return hooks{ask: func(m *mutant, ctx context.Context, r broker.Request) ([]broker.Reply, []string, error) {
			replies, unreached, err := m.Broker.Ask(ctx, r)
			for i := range replies {
				replies[i].Node = ""
			}
			return replies, unreached, err
		}}
	}, seen: []contractFunc{askSelf, twoAsk}},
	{name: "the silent are not named", hooks: func() hooks {
		return hooks{ask: func(m *mutant, ctx context.Context, r broker.Request) ([]broker.Reply, []string, error) {
			replies, _, err := m.Broker.Ask(ctx, r)
			return replies, nil, err
		}}
	}, seen: []contractFunc{askUnanswered, askBound, twoAsk}},
	{name: "answers are mixed up", hooks: mixedAnswers, seen: []contractFunc{askMany}},
	{name: "the version stands still", hooks: func() hooks {
		return hooks{version: func(uint64) uint64 { return 1 }}
	}, seen: []contractFunc{revoke, twoRevoke}},
	{name: "the version moves by itself", hooks: func() hooks {
		v := uint64(0)
		return hooks{version: func(uint64) uint64 { v++; return v }}
	}, seen: []contractFunc{revoke}},
	{name: "revocations live longer", hooks: func() hooks {
		return hooks{revoke: func(r broker.Revocation) broker.Revocation {
			if !r.Expires.IsZero() {
				r.Expires = r.Expires.Add(time.Hour)
			}
			return r
		}}
	}, seen: []contractFunc{revoke, revocationExpires, twoRevoke}},

	{name: "what comes after the end is welcome", hooks: func() hooks {
		return afterEnd(func(*mutant, message.Room) error { return nil })
	}, seen: []contractFunc{closed, twoEnd}},
	{name: "the Sink is called after the end", hooks: func() hooks {
		return afterEnd(func(m *mutant, room message.Room) error { m.sink.Live(room, 1, false); return broker.ErrClosed })
	}, seen: []contractFunc{closed, endUnderLoad}},
	{name: "a question outlives Run", hooks: func() hooks {
		return hooks{ask: func(m *mutant, ctx context.Context, r broker.Request) ([]broker.Reply, []string, error) {
			_, _, err := m.Broker.Ask(ctx, r)
			return []broker.Reply{{}}, nil, err
		}}
	}, seen: []contractFunc{endWhileAsked}},
	{name: "a goroutine is left", hooks: func() hooks {
		return hooks{run: func(*mutant) {
			end := leaked
			go func() { <-end }()
		}}
	}, alone: true, seen: []contractFunc{noLeak}},
}

// leaked is closed when the goroutine that a mutant leaves may end.
var leaked chan struct{}

// subscribedEach delivers as often as a room was subscribed.
func subscribedEach() hooks {
	var mu sync.Mutex
	times := 0
	h := appending(func(s broker.Sink, e message.Entry, _ int) {
		mu.Lock()
		k := times
		mu.Unlock()
		for range k {
			s.Append(e)
		}
	})
	h.subscribe = func(m *mutant, room message.Room) {
		mu.Lock()
		times++
		mu.Unlock()
		m.Broker.Subscribe(room)
	}
	return h
}

func TestEveryCaseFailsForABusThatBreaksItsPromise(t *testing.T) {
	all := slices.Concat(publishing, keys, rooms, history, retention, control, ending, twoNodes)
	shown := make([]bool, len(all))
	leaked = make(chan struct{})
	t.Cleanup(func() { close(leaked) })
	for _, m := range mutations {
		var cases []contract
		for i, c := range all {
			if slices.ContainsFunc(m.seen, func(run contractFunc) bool { return sameFunc(c.run, run) }) {
				cases, shown[i] = append(cases, c), true
			}
		}
		if len(cases) != len(m.seen) {
			t.Fatalf("%s: one of its cases is in no list", m.name)
		}
		t.Run(m.name, func(t *testing.T) {
			if !m.alone {
				t.Parallel()
			}
			for _, c := range cases {
				faults := record(t, func(t testing.TB) { c.run(t, m.factory()) })
				if len(faults) == 0 {
					t.Errorf("the case %q does not see it", c.name)
					continue
				}
				first, _, _ := strings.Cut(faults[0], "\n")
				t.Logf("%s: %s", c.name, first)
			}
		})
	}
	for i, c := range all {
		if !shown[i] {
			t.Errorf("the case %q: no mutation shows that it can fail", c.name)
		}
	}
}

// factory makes mutants.
func (m mutation) factory() Factory {
	config := m.config
	if config == nil {
		config = func(*broker.MemoryConfig) {}
	}
	f := pairFactory(config, func(b broker.Broker) broker.Broker {
		if m.hooks == nil {
			return b
		}
		return &mutant{Broker: b, hooks: m.hooks()}
	})
	f.ShortestAge, f.ShortestTTL, f.patience = 60*time.Millisecond, 60*time.Millisecond, 250*time.Millisecond
	return f
}
