package bench

import (
	"context"
	"fmt"
	"time"
)

// strike is one fault of a run.
type strike struct {
	Fault  string  `json:"fault"`
	At     float64 `json:"at_s"`   // since publishing began
	Away   float64 `json:"away_s"` // until what was broken was whole again
	Healed float64 `json:"late_s"` // until the last live delivery that was late; 0: none was
	faults         // of the messages that were sent from half a second before it on, until the next

	at int64
}

// fault is something that can happen to the lab's Redis. It is over when the function returns, whatever becomes of ctx.
type fault struct {
	name string
	do   func(l *lab, ctx context.Context, d time.Duration) error
}

// faults are all there are, in the order of the help.
func allFaults() []fault {
	return []fault{
		{"kill-pubsub", func(l *lab, ctx context.Context, _ time.Duration) error { return l.kill(ctx, "pubsub") }},
		{"kill-all", func(l *lab, ctx context.Context, _ time.Duration) error { return l.kill(ctx, "pubsub", "normal") }},
		{"restart", (*lab).restart},
		{"restart-empty", (*lab).restartEmpty},
		{"failover", (*lab).failover},
		{"blackhole", (*lab).blackHole},
		{"partition", (*lab).partition},
		{"slow", (*lab).slow},
		{"pause", (*lab).pause},
	}
}

func faultNames() (names []string) {
	for _, f := range allFaults() {
		names = append(names, f.name)
	}
	return names
}

// strikeAll has the faults happen by turns while there is publishing.
func (b *bench) strikeAll(ctx context.Context) error {
	if len(b.c.Fault) == 0 {
		return nil
	}
	do := map[string]func(*lab, context.Context, time.Duration) error{}
	for _, f := range allFaults() {
		do[f.name] = f.do
	}
	for k := 0; ; k++ {
		due := b.order.from + int64(k)*int64(b.c.FaultEvery)
		if due+int64(b.c.FaultFor) >= b.order.end {
			return nil
		}
		if wait(ctx, time.Duration(due-b.clock.now())); ctx.Err() != nil {
			return nil
		}
		b.settled()
		name, at := b.c.Fault[k%len(b.c.Fault)], b.clock.now()
		b.strikes = append(b.strikes, strike{Fault: name, At: time.Duration(at - b.order.begin).Seconds(), at: at})
		if err := do[name](b.lab, ctx, b.c.FaultFor); err != nil {
			return fmt.Errorf("--fault %s: %w", name, err)
		}
		b.strikes[k].Away = time.Duration(b.clock.now() - at).Seconds()
	}
}

// settled notes until when the last fault was felt: no other has come since.
func (b *bench) settled() {
	if n := len(b.strikes); n > 0 {
		s := &b.strikes[n-1]
		s.Healed = max(0, time.Duration(b.swarm.counts().lastLate-s.at).Seconds())
	}
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
