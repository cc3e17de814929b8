package node

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
)

const (
	// revokedEvery is how often revocations are read though nobody says that they have changed: a message that says so may be
	// lost.
	revokedEvery = 2 * time.Second
	// revokedFirst is how long a node lets nobody in because it cannot read them. After that who runs it would rather have
	// sessions: what was revoked is ended as soon as it is known.
	revokedFirst = 5 * time.Second
	// revokedAgain is the pause between attempts before that.
	revokedAgain = 200 * time.Millisecond
	// revokedRead bounds one reading.
	revokedRead = 2 * time.Second
)

// revocations is what the node knows of revoked tokens.
type revocations struct {
	bus  broker.Broker
	end  func() int // ends the sessions whose tokens are revoked
	log  *slog.Logger
	list atomic.Pointer[auth.Revocations]
	news chan struct{} // they have changed

	mu      sync.Mutex // guards what follows; held while they are read, so that an older answer does not replace a newer one
	known   bool
	version uint64
	count   int
}

// revoked is what edges ask.
func (r *revocations) revoked(user, tokenID string, issued time.Time) bool {
	return r.list.Load().Revoked(user, tokenID, issued)
}

// changed has them read anew, unless they are known to be of this version.
func (r *revocations) changed(version uint64) {
	if r.mu.TryLock() { // who reads already may read too early
		same := r.known && r.version == version
		r.mu.Unlock()
		if same {
			return
		}
	}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// read reads them, and ends sessions by them.
func (r *revocations) read(ctx context.Context) (ended int, err error) {
	ctx, cancel := context.WithTimeout(ctx, revokedRead)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	all, version, err := r.bus.Revocations(ctx)
	if err != nil {
		return 0, err
	}
	if r.known && version == r.version && len(all) == r.count {
		return 0, nil
	}
	list := make([]auth.Revocation, len(all))
	for i, e := range all {
		list[i] = auth.Revocation{User: e.User, TokenID: e.TokenID, All: e.All, Before: e.Before}
	}
	r.list.Store(auth.NewRevocations(list))
	r.known, r.version, r.count = true, version, len(all)
	return r.end(), nil
}

// first reads them before anybody is let in, for a bounded time.
func (r *revocations) first(ctx context.Context) {
	late := time.NewTimer(revokedFirst)
	defer late.Stop()
	pause := time.NewTicker(revokedAgain)
	defer pause.Stop()
	for {
		_, err := r.read(ctx)
		if err == nil {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		case <-late.C:
			r.log.Warn("revocations cannot be read: sessions are let in all the same, those of revoked tokens end when they can", "err", err)
			return
		}
	}
}

// run keeps them as they are until ctx ends.
func (r *revocations) run(ctx context.Context) {
	tick := time.NewTicker(revokedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
		case <-tick.C:
		}
		switch ended, err := r.read(ctx); {
		case err != nil && ctx.Err() == nil:
			r.log.Debug("revocations cannot be read: those last read hold", "err", err)
		case ended > 0:
			r.log.Info("sessions ended: their tokens are revoked", "sessions", ended)
		}
	}
}
