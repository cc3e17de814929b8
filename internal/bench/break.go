package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/Shopify/toxiproxy/v2"
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
	for _, p := range l.proxies {
		if err := p.Update(&toxiproxy.Proxy{Listen: p.Listen, Upstream: l.replica.addr, Enabled: true}); err != nil {
			return err
		}
	}
	l.primary, l.replica = l.replica, l.primary
	return l.replica.follow(ctx, l.primary)
}

// nothing lets through nothing, and afterwards only what connects anew.
const nothing = `"type":"timeout","attributes":{"timeout":0}`

// blackHole parts all nodes from Redis without a word.
func (l *lab) blackHole(ctx context.Context, d time.Duration) error {
	return l.poison(ctx, d, l.proxies, nothing)
}

// partition does it to the first node alone.
func (l *lab) partition(ctx context.Context, d time.Duration) error {
	return l.poison(ctx, d, l.proxies[:1], nothing)
}

// slow has everything between the first node and Redis take its time, so that it is behind the others.
func (l *lab) slow(ctx context.Context, d time.Duration) error {
	return l.poison(ctx, d, l.proxies[:1], `"type":"latency","attributes":{"latency":100,"jitter":50}`)
}

func (l *lab) poison(ctx context.Context, d time.Duration, proxies []*toxiproxy.Proxy, toxic string) (err error) {
	for _, p := range proxies {
		for _, stream := range []string{"upstream", "downstream"} {
			text := fmt.Sprintf(`{"name":%q,"stream":%q,"toxicity":1,%s}`, stream, stream, toxic)
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, p.Toxics.RemoveToxic(context.WithoutCancel(ctx), stream)) }()
		}
	}
	wait(ctx, d)
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
