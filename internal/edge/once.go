package edge

import (
	"log/slog"
	"sync"
)

// once logs what attackers may repeat with other words each time: every subject once, and no more than maxTold.
type once struct {
	log  *slog.Logger
	mu   sync.Mutex
	told map[string]bool
}

const (
	maxTold    = 1000
	maxSubject = 256
)

func newOnce(log *slog.Logger) *once { return &once{log: log, told: make(map[string]bool)} }

func (o *once) warn(subject, text string, args ...any) {
	subject = subject[:min(len(subject), maxSubject)]
	o.mu.Lock()
	known := o.told[subject] || len(o.told) >= maxTold
	if !known {
		o.told[subject] = true
	}
	o.mu.Unlock()
	if !known {
		o.log.Warn(text, args...)
	}
}
