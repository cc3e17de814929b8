// Package limit says how much of something a peer may do: token buckets now, later connection caps. It keeps counts of one
// peer each and knows nothing of who that is, of frames or of answers.
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
func (b *Bucket) Take() (retry time.Duration, ok bool) {
	r := b.limiter.Reserve()
	if retry = r.Delay(); retry == 0 {
		return 0, true
	}
	r.Cancel()
	return retry, false
}
