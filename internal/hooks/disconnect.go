package hooks

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Bounds of what is told of ended sessions.
const (
	maxEnded      = 10_000  // that wait to be told
	maxBatch      = 500     // in one call
	maxBatchBytes = 3 << 20 // likewise
	repeatAtMost  = 5 * time.Second
)

// DefaultFlushTime bounds what Run does after its context has ended, unless configured.
const DefaultFlushTime = 2 * time.Second

// queue holds ended sessions in their order. When it is full the oldest goes.
type queue struct {
	mu       sync.Mutex
	ended    []Disconnection
	dropped  uint64
	sessions map[string]int // by user, those that have begun and not ended
	wake     chan struct{}
}

func (q *queue) init() { q.sessions, q.wake = make(map[string]int), make(chan struct{}, 1) }

// Began counts a session of a user. Each must be followed by one Ended.
func (c *Chain) Began(user string) {
	if !c.Asks(Disconnect) {
		return
	}
	c.ended.mu.Lock()
	c.ended.sessions[user]++
	c.ended.mu.Unlock()
}

// Ended has a session's end be told. It never waits. LastOfUser is filled in here.
func (c *Chain) Ended(d Disconnection) {
	if !c.Asks(Disconnect) {
		return
	}
	q := &c.ended
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sessions[d.Session.User]--
	if q.sessions[d.Session.User] <= 0 {
		delete(q.sessions, d.Session.User)
		d.LastOfUser = true
	}
	if len(q.ended) >= maxEnded {
		q.ended[0] = Disconnection{}
		q.ended = q.ended[1:]
		q.dropped++
	}
	q.ended = append(q.ended, d)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes what one call tells of; nil: nothing is there.
func (q *queue) take() []Disconnection {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < min(len(q.ended), maxBatch) {
		if size += q.ended[n].size(); size > maxBatchBytes && n > 0 {
			break
		}
		n++
	}
	if n == 0 {
		return nil
	}
	batch := make([]Disconnection, n)
	copy(batch, q.ended)
	clear(q.ended[:n])
	q.ended = q.ended[n:]
	return batch
}

// Elsewhere tells of users whether they have sessions on other nodes, in the order asked for.
type Elsewhere func(ctx context.Context, users []string) ([]bool, error)

// Run tells of ended sessions until ctx ends, and then, within Config.FlushTime, of those that are left: all sessions must have ended
// before. Without a hook Disconnect it returns at once. elsewhere may be nil: this node is the only one.
func (c *Chain) Run(ctx context.Context, elsewhere Elsewhere) error {
	if !c.Asks(Disconnect) {
		return nil
	}
	flush, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.flushTime, cancel) })()
	for {
		batch := c.ended.take()
		if batch == nil {
			select {
			case <-c.ended.wake:
				continue
			case <-ctx.Done():
			}
			if batch = c.ended.take(); batch == nil {
				return nil
			}
		}
		c.locate(flush, batch, elsewhere)
		if !c.deliver(ctx, flush, batch) {
			c.log.Warn("ended sessions not told of: the hook disconnect does not answer", "sessions", c.ended.lose(len(batch)))
			return nil
		}
	}
}

// lose gives up what waits, and n that were taken. It returns how many those are together.
func (q *queue) lose(n int) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n += len(q.ended)
	q.dropped += uint64(n)
	q.ended = nil
	return n
}

// locate takes LastOfUser back where other nodes have sessions of the user, or may have.
func (c *Chain) locate(ctx context.Context, batch []Disconnection, elsewhere Elsewhere) {
	if elsewhere == nil {
		return
	}
	var users []string
	var at []int
	for i := range batch {
		if batch[i].LastOfUser {
			users, at = append(users, batch[i].Session.User), append(at, i)
		}
	}
	if len(users) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.guards[Disconnect].rules.Timeout)
	defer cancel()
	there, err := elsewhere(ctx, users)
	for i, at := range at {
		batch[at].LastOfUser = err == nil && !there[i]
	}
}

// deliver tells until it is taken. false: ctx has ended, and it was not.
func (c *Chain) deliver(ctx, flush context.Context, batch []Disconnection) bool {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = repeatAtMost
	g := c.guards[Disconnect]
	for {
		result, err := g.try(flush, func(ctx context.Context) error { return c.hooks.Disconnect(ctx, batch) })
		if result == Passed {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		g.tell(err)
		t := time.NewTimer(pause.NextBackOff())
		select {
		case <-t.C:
		case <-ctx.Done(): // once more
			t.Stop()
		}
	}
}

// Stats are the Chain's counters since its start.
type Stats struct {
	Passed  [points]uint64 // failures that let pass, by Point
	Dropped uint64         // ended sessions that nobody is told of
}

// Stats returns the counters.
func (c *Chain) Stats() (st Stats) {
	if c == nil {
		return st
	}
	for i, g := range c.guards {
		st.Passed[i] = g.passed.Load()
	}
	c.ended.mu.Lock()
	st.Dropped = c.ended.dropped
	c.ended.mu.Unlock()
	return st
}
