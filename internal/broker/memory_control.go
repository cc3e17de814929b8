package broker

import (
	"context"
	"time"
)

const askTimeout = 2 * time.Second

// Serve implements Broker. f should end with its context: Run waits for it.
func (b *Memory) Serve(f func(context.Context, Request) Reply) { b.serve = f }

// Ask implements Broker: there is one node.
func (b *Memory) Ask(ctx context.Context, r Request) (replies []Reply, unreached []string, err error) {
	if err := b.open(ctx); err != nil {
		return nil, nil, err
	}
	unreached = []string{b.cfg.NodeID}
	if b.serve == nil {
		return nil, unreached, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer := make(chan Reply, 1)
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return nil, nil, ErrClosed
	}
	b.asks.Go(func() { answer <- b.serve(ctx, r) }) // apart, so that one who does not answer holds up nobody
	b.mu.Unlock()
	select {
	case reply := <-answer:
		reply.Node = b.cfg.NodeID
		return []Reply{reply}, nil, nil
	case <-ctx.Done():
		return nil, unreached, nil
	case <-b.done:
		return nil, nil, ErrClosed
	}
}

// Revoke implements Broker. A later revocation of the same target takes the place of the earlier one.
func (b *Memory) Revoke(ctx context.Context, r Revocation) error {
	if err := b.open(ctx); err != nil {
		return err
	}
	target := Revocation{User: r.User, TokenID: r.TokenID, All: r.All}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	if r.Expires.IsZero() {
		delete(b.revoked, target)
	} else {
		b.revoked[target] = r
	}
	return nil
}

// Revocations implements Broker.
func (b *Memory) Revocations(ctx context.Context) ([]Revocation, uint64, error) {
	if err := b.open(ctx); err != nil {
		return nil, 0, err
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	var rs []Revocation
	for _, r := range b.revoked {
		if now.Before(r.Expires) {
			rs = append(rs, r)
		}
	}
	return rs, b.version, nil
}

// forgetRevoked drops revocations that have expired.
func (b *Memory) forgetRevoked() {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for target, r := range b.revoked {
		if !now.Before(r.Expires) {
			delete(b.revoked, target)
		}
	}
}
