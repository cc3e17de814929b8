package rpc

import (
	"context"
	"sync"
	"time"
)

// bounded is a context that ends at a time, as context.WithDeadline's does, but sets no timer before somebody waits for it.
// Almost every call is over before anybody does, and the timer was an eighth of what a publish costs the server.
type bounded struct {
	context.Context
	end time.Time

	mu     sync.Mutex
	timed  context.Context // nil until somebody waits
	cancel context.CancelFunc
}

// bound gives ctx an end d from now. release lets go who still waits, and the timer; call it when the call is over.
func bound(ctx context.Context, d time.Duration) *bounded {
	return &bounded{Context: ctx, end: time.Now().Add(d)}
}

// renew is bound, with b's memory if nobody has waited for b. Nobody may have kept b either.
func (b *bounded) renew(ctx context.Context, d time.Duration) *bounded {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed != nil {
		return bound(ctx, d)
	}
	b.Context, b.end = ctx, time.Now().Add(d)
	return b
}

func (b *bounded) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}

func (b *bounded) wait() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timed == nil {
		b.timed, b.cancel = context.WithDeadline(b.Context, b.end)
	}
	return b.timed
}

// Deadline is the end.
func (b *bounded) Deadline() (time.Time, bool) { return b.end, true }

// Done sets the timer.
func (b *bounded) Done() <-chan struct{} { return b.wait().Done() }

// Err looks at the clock while no timer is set.
func (b *bounded) Err() error {
	b.mu.Lock()
	timed := b.timed
	b.mu.Unlock()
	if timed == nil && time.Now().Before(b.end) {
		return b.Context.Err()
	}
	return b.wait().Err()
}

// AfterFunc spares contexts derived from b, and context.AfterFunc, a goroutine of their own.
func (b *bounded) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(b.wait(), f) }
