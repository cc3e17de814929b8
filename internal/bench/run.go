package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// bench is one run.
type bench struct {
	c        *Command
	clock    *clock
	targets  []*target
	rooms    []*room
	swarm    *swarm
	pids     []int
	progress *progress
	lab      *lab // nil: what is benched was there before

	order      *order
	publishers []*publisher

	// Moments, for the figures between them.
	idle, held, begun, done usage // of the server: before and after opening, before and after measuring
	ownBegun, ownDone       usage // of this process
	begunAt, doneAt         int64
	known                   bool // the server's are
	measuring               bool // it was begun
	opening                 time.Duration
	opened                  int64
	strikes                 []strike
}

const (
	look = 20 * time.Millisecond // how often the run looks how far things are
	// beat is how long a server that delivered everything is given to deliver something twice.
	beat = 300 * time.Millisecond
	// comeback times --settle is how long sessions may be away in the end: by default the longest back-off twice.
	comeback = 6
)

var errNobody = errors.New("no session could be opened")

// run goes through the phases. The sessions live on a context of their own, so that what was published is read whatever
// becomes of ctx.
func (b *bench) run(ctx context.Context) (*Report, error) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, base := errgroup.WithContext(base)
	b.idle, b.known = usageOf(b.pids)
	g.Go(func() error { return b.swarm.run(base) })
	err := b.phases(ctx, base)
	cancel()
	if failed := g.Wait(); failed != nil {
		return nil, failed // it is why the phases could not go on
	}
	if err != nil {
		return nil, err
	}
	return b.report(), nil
}

func (b *bench) phases(ctx, base context.Context) error {
	defer b.progress.wait()
	if err := b.open(ctx, base); err != nil {
		return err
	}
	if err := b.publish(ctx, base); err != nil {
		return err
	}
	return b.drain(base)
}

// until looks at cond until it holds or one of the contexts ends.
func until(ctx, base context.Context, cond func() bool) error {
	t := time.NewTicker(look)
	defer t.Stop()
	for !cond() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-base.Done():
			return base.Err()
		}
	}
	return nil
}

// open waits until every session is open, or will never be.
func (b *bench) open(ctx, base context.Context) error {
	bar := b.progress.start("opening", int64(b.c.Sessions))
	defer bar.end()
	began := b.clock.now()
	err := until(ctx, base, func() bool {
		b.opened = b.swarm.counts().opened
		bar.set(b.opened)
		return b.opened+b.swarm.gone.Load() >= int64(b.c.Sessions)
	})
	if err != nil {
		return err
	}
	if b.opened == 0 {
		return fmt.Errorf("%w: %w", errNobody, b.swarm.blamed())
	}
	b.opening = time.Duration(b.clock.now() - began)
	b.held, _ = usageOf(b.pids)
	return nil
}

// publish runs the publishers through warm-up and measuring.
func (b *bench) publish(ctx, base context.Context) error {
	b.order = &order{clock: b.clock, rooms: b.rooms, rate: b.c.Rate, size: b.c.Size, begin: b.clock.now() + int64(look)}
	b.order.from = b.order.begin + int64(b.c.Warmup)
	b.order.end = b.order.from + int64(b.c.Duration)
	for _, w := range b.swarm.watchers {
		w.from.Store(b.order.from)
	}
	publishers, closeAll, err := connectPublishers(b.c.Addr, b.c.Publishers, b.c.Stream, b.order)
	if err != nil {
		return err
	}
	defer closeAll()
	b.publishers = publishers
	b.swarm.enter(churning)
	defer b.swarm.enter(draining)

	bar := b.progress.start("publishing", (b.c.Warmup + b.c.Duration).Milliseconds())
	defer bar.end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(base, stop)()
	var g errgroup.Group
	for _, p := range b.publishers {
		g.Go(func() error { p.run(ctx); return nil })
	}
	g.Go(func() error {
		err := b.strikeAll(ctx)
		if err != nil {
			stop()
		}
		return err
	})
	g.Go(func() error {
		// Ending early is no failure: the publishers end too, and what they published is judged.
		_ = until(ctx, base, func() bool {
			now := b.clock.now()
			bar.set((now - b.order.begin) / int64(time.Millisecond))
			if !b.measuring && now >= b.order.from {
				b.measuring = true
				b.measure(&b.begun, &b.ownBegun, &b.begunAt)
			}
			return now >= b.order.end
		})
		return nil
	})
	if err := errors.Join(g.Wait(), base.Err()); err != nil {
		return err
	}
	b.order.stopped = b.clock.now()
	failed, first := b.failures()
	if total := b.receipts(); total == 0 {
		if first == nil {
			return errors.Join(ctx.Err(), errors.New("nothing was published"))
		}
		return fmt.Errorf("nothing was published, %d tries failed: %w", failed, first)
	}
	return nil
}

func (b *bench) measure(server, own *usage, at *int64) {
	var ok bool
	*at = b.clock.now()
	*server, ok = usageOf(b.pids)
	b.known = b.known && ok
	*own, _ = usageOf([]int{os.Getpid()})
}

// drain waits until all is delivered and nothing more comes, or what is missing has had its time. After faults it always has:
// a message may have been seen under two ids, and counts for two then.
func (b *bench) drain(base context.Context) error {
	owed := b.owed()
	failed, _ := b.failures()
	began, last := b.clock.now(), b.clock.now()
	complete := false
	var before counts
	defer b.settled()
	return until(base, base, func() bool {
		now, c := b.clock.now(), b.swarm.counts()
		if c != before {
			before, last = c, now
		}
		quiet := time.Duration(now - last)
		if c.fresh >= owed && !complete {
			complete = true
			b.measure(&b.done, &b.ownDone, &b.doneAt)
		}
		away := c.live+b.swarm.gone.Load() < int64(b.c.Sessions) && time.Duration(now-began) < comeback*b.c.Settle
		switch {
		case complete && failed == 0 && len(b.strikes) == 0:
			return quiet >= beat && !away
		case quiet < b.c.Settle || away:
			return false
		}
		if !complete {
			b.measure(&b.done, &b.ownDone, &b.doneAt)
		}
		return true
	})
}

// owed is how many deliveries there are when nobody misses anything.
func (b *bench) owed() (n int64) {
	for _, p := range b.publishers {
		for _, r := range p.receipts {
			n += b.rooms[r.room].members.Load()
		}
	}
	return n
}

func (b *bench) receipts() (n int) {
	for _, p := range b.publishers {
		n += len(p.receipts)
	}
	return n
}

func (b *bench) failures() (n int64, first error) {
	for _, p := range b.publishers {
		n += p.failed
		if first == nil {
			first = p.first
		}
	}
	return n, first
}
