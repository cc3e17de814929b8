package edge

import "sync"

// once is for lines in the log that attackers may cause again and again, with other words each time: every subject has its
// line once, and there are no more than maxTold.
type once struct {
	mu   sync.Mutex
	told map[string]bool
}

const (
	maxTold    = 1000
	maxSubject = 256
)

// first tells whether the subject is to be told of.
func (o *once) first(subject string) bool {
	subject = subject[:min(len(subject), maxSubject)]
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told[subject] || len(o.told) >= maxTold {
		return false
	}
	if o.told == nil {
		o.told = make(map[string]bool)
	}
	o.told[subject] = true
	return true
}
