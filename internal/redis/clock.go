package redis

import (
	"sync"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// clock estimates Redis' clock from below: what it shows, Redis' shows at least.
type clock struct {
	start time.Time

	mu      sync.Mutex
	samples [16]time.Duration // how far Redis' clock was ahead of the time since start, at least; the newest 16
	n       int
	last    message.Position // what now has given
}

// sample notes that Redis' clock showed ms (Unix milliseconds) not after at, a time since start.
func (c *clock) sample(ms int64, at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples[c.n%len(c.samples)] = time.Duration(ms)*time.Millisecond - at
	c.n++
}

// forget is called when another server may take this one's place, whose clock is behind: until it is asked, time stands still.
func (c *clock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n > 0 {
		c.last = max(c.last, message.At(c.millisLocked()-2, 4095))
		c.n = 0
	}
}

// millis is the least that Redis' clock shows now. Without any sample it is the node's own clock less ten seconds.
func (c *clock) millis() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.millisLocked()
}

func (c *clock) millisLocked() int64 {
	if c.n == 0 {
		return time.Now().UnixMilli() - 10_000
	}
	best := c.samples[0]
	for _, s := range c.samples[1:min(c.n, len(c.samples))] {
		best = max(best, s)
	}
	return (best + time.Since(c.start)).Milliseconds()
}

// now is a position below every one that is given later.
func (c *clock) now() message.Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, message.At(c.millisLocked()-2, 4095))
	return c.last
}
