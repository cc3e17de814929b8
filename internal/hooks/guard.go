package hooks

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Result is how a question ended.
type Result uint8

// Results. All but the first two are failures, but for Canceled, which is nobody's.
const (
	Passed   Result = iota // the answer is yes
	Refused                // the answer is no
	Failed                 // an error, or an answer against its rules
	TimedOut               // no answer in time, or no turn
	Shed                   // not asked: the breaker is open
	Canceled               // nobody waits for the answer any more
)

// String names the result in metrics.
func (r Result) String() string {
	return [...]string{"ok", "denied", "failed", "timeout", "shed", "canceled"}[r]
}

// What opens a breaker: no answer to at least half of so many questions within so long. While it is open nothing is asked, then
// one question at a time until there is an answer. Answers that come clear the count.
const (
	breakerWindow  = 10 * time.Second
	breakerLeast   = 20
	breakerOpenFor = 2 * time.Second
)

const (
	// retryAfter is when who met a failing hook should try again.
	retryAfter = time.Second
	// toldEvery is how often a failing hook is logged.
	toldEvery = time.Minute
)

// guard is what is around one hook.
type guard struct {
	point   Point
	rules   Rules
	inside  bool
	slots   chan struct{}
	breaker *gobreaker.CircuitBreaker[struct{}]
	observe func(context.Context, Point, Result, time.Duration)
	log     *slog.Logger

	passed atomic.Uint64 // failures that let pass
	silent atomic.Uint64 // failures since the last that was logged
	told   atomic.Int64  // Unix ms of it
}

func newGuard(p Point, r Rules, cfg Config, log *slog.Logger) *guard {
	if r.Timeout <= 0 {
		r.Timeout = defaultTimeout
	}
	if r.Concurrency <= 0 {
		r.Concurrency = defaultConcurrency
	}
	if p == Disconnect {
		r.Open = false
	}
	g := &guard{point: p, rules: r, inside: cfg.Inside, observe: cfg.Observe, log: log}
	if g.observe == nil {
		g.observe = func(context.Context, Point, Result, time.Duration) {}
	}
	if g.inside {
		return g
	}
	g.slots = make(chan struct{}, r.Concurrency)
	g.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name: p.String(), MaxRequests: 1, Interval: breakerWindow, Timeout: breakerOpenFor,
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return n.Requests >= breakerLeast && n.TotalFailures >= n.Requests/2
		},
		IsSuccessful: func(err error) bool { return !unanswered(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
	})
	return g
}

// unanswered tells errors that say something of whether anybody is there from those of who is.
func unanswered(err error) bool {
	return errors.Is(err, ErrNoAnswer) || errors.Is(err, context.DeadlineExceeded)
}

// within gives a context the time that one question has.
func (g *guard) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if g.inside {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, g.rules.Timeout)
}

// ask has call answer, and decides what a failure of it means. nil: yes, or a failure that lets pass.
func (g *guard) ask(ctx context.Context, call func(context.Context) error) error {
	result, err := g.try(ctx, call)
	switch {
	case result == Passed || result == Refused || g.inside:
		return err
	case result == Canceled:
		return context.Cause(ctx)
	}
	g.tell(err)
	if g.rules.Open {
		g.passed.Add(1)
		return nil
	}
	return &Unavailable{Point: g.point, Retry: retryAfter}
}

// try has call answer, and tells how that ended.
func (g *guard) try(ctx context.Context, call func(context.Context) error) (Result, error) {
	begin := time.Now()
	err := g.call(ctx, call)
	result := resultOf(err)
	if result != Passed && errors.Is(ctx.Err(), context.Canceled) {
		result = Canceled
	}
	g.observe(ctx, g.point, result, time.Since(begin))
	return result, err
}

func (g *guard) call(ctx context.Context, call func(context.Context) error) error {
	if g.inside {
		return call(ctx)
	}
	ctx, cancel := g.within(ctx)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := g.breaker.Execute(func() (struct{}, error) {
		err := call(ctx)
		if late := ctx.Err(); late != nil { // whatever the hook makes of it
			err = errors.Join(late, err)
		}
		return struct{}{}, err
	})
	return err
}

func resultOf(err error) Result {
	if err == nil {
		return Passed
	}
	if _, ok := errors.AsType[*Denied](err); ok {
		return Refused
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return Shed
	}
	return Failed
}

// tell logs failures, once in a while.
func (g *guard) tell(err error) {
	n := g.silent.Add(1)
	now, last := time.Now().UnixMilli(), g.told.Load()
	if last != 0 && now-last < toldEvery.Milliseconds() || !g.told.CompareAndSwap(last, now) {
		return
	}
	g.silent.Add(-n)
	does := "refused"
	switch {
	case g.point == Disconnect:
		does = "repeated"
	case g.rules.Open:
		does = "passed"
	}
	g.log.Warn("hook failing", "hook", g.point.String(), "meanwhile", does, "failures", n, "err", err)
}
