package redis

import (
	"sync"
	"sync/atomic"
	"time"
)

// HealCause is why a room's stream is read though its channel should have brought everything.
type HealCause uint8

// The causes. HealAgain is none of its own: what was begun could not be ended.
const (
	HealHole    HealCause = iota // something came that does not follow what came before
	HealBehind                   // the room has gone on without this node: a connection was away
	HealDropped                  // more came than could be taken
	HealAgain
	healCauses
)

// String is the cause as metrics name it.
func (c HealCause) String() string {
	return [healCauses]string{"hole", "behind", "dropped", "again"}[c]
}

// HealCauses are all of them.
func HealCauses() []HealCause { return []HealCause{HealHole, HealBehind, HealDropped, HealAgain} }

// counters are written where it happens. Times are durations since the start.
type counters struct {
	heals         [healCauses]atomic.Int64
	publishErrors atomic.Int64

	mu      sync.Mutex
	since   time.Duration // when the outage began that is under way; 0: none is
	awayFor time.Duration // those that are over
	reached time.Duration // when the last one ended, or Run began
}

// away begins an outage.
func (c *counters) away(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
}

// reachable ends it, if there is one.
func (c *counters) reachable(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since > 0 {
		c.awayFor += now - c.since
	}
	c.since, c.reached = 0, now
}

// outages is for how long Redis was away, and when it was reached last.
func (c *counters) outages(now time.Duration) (away, reached time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since > 0 {
		return c.awayFor + now - c.since, c.reached
	}
	return c.awayFor, c.reached
}

// Stats is how a Broker stands, and what has happened so far.
type Stats struct {
	Up     bool          // it runs, and Redis answers, all of it
	Partly bool          // it runs; a part of a Cluster is away, and another answers
	Away   time.Duration // for how long something of Redis was away, in all
	// Silent is for how long the most silent subscription connection has brought nothing, not even a message of ours to
	// itself: one is sent after Config.ProbeAfter.
	Silent time.Duration

	Outbox      int   // messages that wait for Redis
	OutboxBytes int64 // their size

	Heals         [healCauses]int64 // by HealCause
	PublishErrors int64             // publishing scripts that failed, each try
	Refused       int64             // times that messages were refused, or could not be stored yet
	Junk          int64             // what came and was not understood
	Broken        int64             // subscription connections that broke
	Forks         int64             // signs that Redis lost something
}

// Stats may be called at any time.
func (b *Broker) Stats() Stats {
	c, now, gone := &b.stats, b.elapsed(), b.lacks()
	away, reached := c.outages(now)
	s := Stats{
		Up: b.open.Load() && gone == slots{}, Partly: b.open.Load() && gone != slots{} && gone != allSlots, Away: away, PublishErrors: c.publishErrors.Load(),
		Refused: b.refused.n.Load(), Junk: b.junk.n.Load(), Broken: b.broke.n.Load(), Forks: b.forks.Load(), Outbox: b.outbox.count(),
	}
	for i := range c.heals {
		s.Heals[i] = c.heals[i].Load()
	}
	b.outbox.mu.Lock()
	s.OutboxBytes = b.outbox.bytes
	b.outbox.mu.Unlock()
	if b.open.Load() { // the connections are there
		for _, conn := range b.conns {
			s.Silent = max(s.Silent, now-max(time.Duration(conn.heard.Load()), reached))
		}
	}
	return s
}
