package redis

import (
	"context"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/message"
)

const (
	beatAgain    = 200 * time.Millisecond // behind a beat that failed
	beatFailures = 3                      // so many in a row are an outage
)

// beat gives a sign of life of this node, and takes in what it learns. It returns when the next is due.
func (b *Broker) beat(ctx context.Context) (rest time.Duration, err error) {
	select {
	case b.beating <- struct{}{}:
		defer func() { <-b.beating }()
	case <-ctx.Done():
		return beatAgain, ctx.Err()
	}
	var cut bool
	if b.presence != nil {
		cut = b.presence.beats()
	}
	doubts := b.doubts.Load()
	s, err := b.lease.renew(ctx)
	if err != nil {
		if b.presence != nil {
			b.presence.missed(ctx, cut, err)
		}
		return beatAgain, err
	}
	b.know(s)
	b.sure.Store(doubts)
	if s.lapsed {
		b.kick()
	}
	if s.revoked != b.revoked {
		b.revoked = s.revoked
		if b.cfg.Revoked != nil {
			b.cfg.Revoked(s.revoked)
		}
	}
	if b.presence == nil {
		return b.cfg.Beat, nil
	}
	return b.presence.learn(s, cut), nil
}

// know takes in Redis' clock, since when its data exists, and who is there.
func (b *Broker) know(s sign) {
	b.clock.sample(s.now, b.elapsed())
	if s.born != 0 {
		since := uint64(message.At(s.born, 0))
		if before := b.born.Swap(since); before != 0 && before != since {
			b.kick()
		}
	}
	nodes := make(map[string]string, len(s.live))
	for inc := range s.live {
		if !strings.HasSuffix(inc, draining) {
			nodes[inc] = nodeOf(inc)
		}
	}
	b.nodes.Store(&nodes)
}

// heart keeps the node's lease until the context ends.
func (b *Broker) heart(ctx context.Context) {
	timer := time.NewTimer(beatAgain)
	defer timer.Stop()
	for failed := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-b.hurry:
		}
		rest, err := b.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = 0
		default:
			if failed++; failed >= beatFailures {
				b.lose(b.wire.part(b.keys.control()), err)
			}
		}
		timer.Reset(rest)
	}
}

// hold keeps the way to Redis open until release. Who releases it last ends the lease, if nobody has yet.
func (b *Broker) hold() {
	b.holding.Lock()
	defer b.holding.Unlock()
	b.holders++
}

func (b *Broker) release(ctx context.Context) {
	b.holding.Lock()
	defer b.holding.Unlock()
	if b.holders--; b.holders > 0 {
		return
	}
	if err := b.lease.end(ctx, b.cfg.Lease); err != nil {
		b.log.Debug("the node's lease was not given up, it ends by itself", "error", err)
	}
	b.wire.close()
}
