// Package limit says how much of something a peer may do: token buckets (a Bucket by itself; a Meter of eight bytes where there
// are many), a gate for crowds, seats, and a bounded table of peers. It knows nothing of who they are, of frames or of answers.
package limit

import (
	"time"

	"golang.org/x/time/rate"
)

// Bucket admits so many events a second, after a first burst. It is safe for concurrent use.
type Bucket struct{ limiter *rate.Limiter }

// NewBucket makes a full bucket: burst events at once, then perSecond.
func NewBucket(perSecond float64, burst int) *Bucket {
	return &Bucket{rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// Take admits one event, or tells how long until one would be. It never waits, and what it refuses costs nothing.
func (b *Bucket) Take() (retry time.Duration, ok bool) { return b.TakeN(1) }

// TakeN admits n events together or none of them. More than the burst are admitted when the bucket is full, and paid off
// before the next one is.
func (b *Bucket) TakeN(n int) (retry time.Duration, ok bool) {
	now, burst := time.Now(), b.limiter.Burst()
	r := b.limiter.ReserveN(now, min(n, burst))
	if retry = r.DelayFrom(now); retry > 0 {
		r.CancelAt(now)
		return retry, false
	}
	for n -= burst; n > 0; n -= burst {
		b.limiter.ReserveN(now, min(n, burst))
	}
	return 0, true
}
