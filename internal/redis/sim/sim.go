// Package sim is a model of one Redis and of the networks to it, for tests of what nodes make of rooms together: Link is a
// redis.Port. Whatever a server, a failover or a connection may do to them is a method, and all latencies come from a seed, so
// that a schedule of faults can be told by a number and run again.
//
// The model lives in a bubble of testing/synctest, whose time it takes; it reads no other clock, no global source of random
// numbers and no order of a map. The scripts are functions of the data (script.go), which a test holds to what a real server
// does with the Lua.
package sim

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/redis"
)

// Model is a Redis with a replica. Its methods may be called concurrently.
type Model struct {
	start time.Time
	wake  chan struct{}

	mu     sync.Mutex
	events events
	count  uint64
	rand   *rand.Rand
	links  []*Link
	ahead  time.Duration     // of the server's clock before ours
	down   bool              // nobody answers, dials are refused
	says   redis.ServerError // what each script is answered; "": it is run
	mute   bool              // nobody may publish
	data   data
	backup data                     // what the replica had when it last was the same as the server
	tail   []effect                 // what has happened to the server since
	back   map[string]time.Duration // the low halves of what was put back, and when
}

// effect is a script that was run, as a replica runs it again.
type effect struct {
	at         time.Duration
	script     redis.Script
	keys, args []string
	call       call // its circumstances
}

// New makes a server that holds nothing.
func New(seed uint64) *Model {
	return &Model{start: time.Now(), wake: make(chan struct{}, 1), rand: rand.New(rand.NewPCG(seed, 0)), data: data{}, backup: data{}, back: make(map[string]time.Duration)}
}

// Run is the server and all networks. It returns when the context has ended; links are closed before.
func (m *Model) Run(ctx context.Context) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		do, wait := m.due()
		if do != nil {
			do()
			continue
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-t.C:
		}
	}
}

// due is what is to be done now, or how long that has time.
func (m *Model) due() (do func(), wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.events) == 0 {
		return nil, time.Hour
	}
	if wait = m.events[0].at - m.elapsed(); wait > 0 {
		return nil, wait
	}
	e, _ := heap.Pop(&m.events).(event)
	return e.do, 0
}

func (m *Model) elapsed() time.Duration { return time.Since(m.start) }

// later has f called at a time; the lock is held, and is not when f is called.
func (m *Model) later(at time.Duration, f func()) {
	m.count++
	heap.Push(&m.events, event{at, m.count, f})
	if m.events[0].count == m.count {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// Now is the server's clock.
func (m *Model) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.ahead)
}

// Step sets the server's clock forward, or back.
func (m *Model) Step(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ahead += d
}

// PutBack tells when a message was put back last whose envelope begins with such a low half.
func (m *Model) PutBack(low string) (at time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok = m.back[low]
	return at, ok
}

// Answer has each script answered with an error and not run; "" ends that.
func (m *Model) Answer(text redis.ServerError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.says = text
}

// Mute has publications refused: scripts end where they publish, and what they have written stays.
func (m *Model) Mute(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = yes
}

// Down ends the server: connections break, and dials are refused.
func (m *Model) Down() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for _, l := range m.links {
		l.cutLocked(true, true)
	}
}

// Up starts the server again, with what it held or with nothing.
func (m *Model) Up(empty bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = false
	if empty {
		m.data, m.backup, m.tail = data{}, data{}, nil
	}
}

// Failover has the replica take the server's place, without what was done in the last lag. It tells how many scripts that
// was.
func (m *Model) Failover(lag time.Duration) (lost int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.backup
	for _, e := range m.tail {
		if e.at > m.elapsed()-lag {
			lost++
			continue
		}
		e.call.data, e.call.out = d, nil
		_, _ = e.call.run(e.script, e.keys, e.args) // it failed where the server has failed
	}
	m.data, m.backup, m.tail = d, d.clone(), nil
	for _, l := range m.links {
		l.cutLocked(true, true)
	}
	return lost
}

// script runs a script; the lock is held.
func (m *Model) script(s redis.Script, keys, args []string) ([]string, error) {
	if m.says != "" {
		return nil, m.says
	}
	c := call{data: m.data, now: m.nowLocked(), mute: m.mute, loose: m.rand.IntN(4) > 0}
	m.tail = append(m.tail, effect{at: m.elapsed(), script: s, keys: keys, args: args, call: c})
	reply, err := c.run(s, keys, args)
	for _, low := range c.back {
		m.back[low] = m.elapsed()
	}
	for _, f := range c.out {
		m.publish(f)
	}
	return reply, err
}

func (m *Model) nowLocked() int64 { return time.Now().Add(m.ahead).UnixMilli() }

// publish sends a message to all who have subscribed; the lock is held.
func (m *Model) publish(f published) {
	for _, l := range m.links {
		for _, s := range l.listeners {
			if s.channels[f.channel] && !s.deaf {
				s.push(func() { s.on.Message(f.channel, f.text) })
			}
		}
	}
}

// event is something that happens at a time.
type event struct {
	at    time.Duration
	count uint64 // what was asked for first goes first
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].count < e[j].count
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any) {
	v, _ := x.(event)
	*e = append(*e, v)
}

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
