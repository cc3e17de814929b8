package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// kill closes all connections of these types, the nodes' among them.
func (l *lab) kill(ctx context.Context, types ...string) error {
	for _, t := range types {
		if _, err := l.primary.ask(context.WithoutCancel(ctx), "CLIENT", "KILL", "TYPE", t); err != nil {
			return err
		}
	}
	return nil
}

// restart ends Redis and starts it again with all it had.
func (l *lab) restart(ctx context.Context, d time.Duration) error {
	if _, err := l.primary.ask(context.WithoutCancel(ctx), "SAVE"); err != nil {
		return err
	}
	return l.startAgain(ctx, d)
}

// restartEmpty has it lose everything.
func (l *lab) restartEmpty(ctx context.Context, d time.Duration) error {
	if err := os.Remove(filepath.Join(l.primary.dir, "dump.rdb")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return l.startAgain(ctx, d)
}

func (l *lab) startAgain(ctx context.Context, d time.Duration) error {
	l.primary.end(os.Kill)
	wait(ctx, d)
	return l.primary.start(context.WithoutCancel(ctx))
}

// lag is for how long a replica is on its own before the nodes learn of it: what they are told meanwhile is lost.
const lag = 300 * time.Millisecond

// failover makes the replica the primary, which lacks the last of what was acknowledged; the old one becomes its replica.
func (l *lab) failover(ctx context.Context, _ time.Duration) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := l.replica.ask(ctx, "REPLICAOF", "NO", "ONE"); err != nil {
		return err
	}
	wait(ctx, lag)
	for _, r := range l.relays {
		r.lead(l.replica.addr)
	}
	l.primary, l.replica = l.replica, l.primary
	return l.replica.follow(ctx, l.primary)
}

// blackHole parts all nodes from Redis without a word.
func (l *lab) blackHole(ctx context.Context, d time.Duration) error { return swallow(ctx, d, l.relays) }

// partition does it to the first node alone.
func (l *lab) partition(ctx context.Context, d time.Duration) error {
	return swallow(ctx, d, l.relays[:1])
}

// swallow lets nothing through; what was connected then never works again.
func swallow(ctx context.Context, d time.Duration, relays []*relay) error {
	for _, r := range relays {
		r.set(true, 0)
	}
	wait(ctx, d)
	for _, r := range relays {
		r.cut()
		r.set(false, 0)
	}
	return nil
}

// slow has everything between the first node and Redis take its time, so that it is behind the others.
func (l *lab) slow(ctx context.Context, d time.Duration) error {
	const delay = 100 * time.Millisecond
	l.relays[0].set(false, delay)
	wait(ctx, d)
	l.relays[0].set(false, 0)
	return nil
}

// pause makes Redis silent; nothing that was sent to it is lost.
func (l *lab) pause(ctx context.Context, d time.Duration) error {
	if err := l.primary.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	wait(ctx, d)
	return l.primary.signal(syscall.SIGCONT)
}
