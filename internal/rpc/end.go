package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// unreadFor is how long the end waits for callers to read what they were sent, once no call is under way any more. gRPC itself
// would wait for who never reads until it is cut.
const unreadFor = time.Second

// tally counts calls under way, and tells when there are none.
type tally struct {
	n    atomic.Int64
	over atomic.Bool   // somebody waits
	none chan struct{} // there were none, once over
}

func newTally() tally { return tally{none: make(chan struct{}, 1)} }

func (t *tally) begin() { t.n.Add(1) }

func (t *tally) end() {
	if t.n.Add(-1) == 0 && t.over.Load() {
		t.tell()
	}
}

func (t *tally) tell() {
	select {
	case t.none <- struct{}{}:
	default:
	}
}

// idle waits until there were no calls for d, or until done.
func (t *tally) idle(d time.Duration, done <-chan struct{}) (ok bool) {
	t.over.Store(true)
	if t.n.Load() == 0 {
		t.tell()
	}
	for {
		select {
		case <-t.none:
		case <-done:
			return false
		}
		wait := time.NewTimer(d)
		select {
		case <-wait.C:
		case <-done:
			wait.Stop()
			return false
		}
		if t.n.Load() == 0 {
			return true
		}
	}
}

// Shutdown takes no more calls, ends streams with DRAINING and lets calls under way finish. It cuts what has not ended after
// Config.Timeout, which is more than a publish takes, or when ctx ends, and callers who do not read what they were sent within a
// second. It returns when all handlers have.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	s.end()
	ctx, cancel := context.WithTimeout(ctx, s.chain.timeout)
	defer cancel()
	cut := context.AfterFunc(ctx, s.grpc.Stop)
	defer cut()
	done := make(chan struct{})
	var idle sync.WaitGroup
	idle.Go(func() {
		if s.chain.calls.idle(unreadFor, done) {
			s.grpc.Stop()
		}
	})
	s.grpc.GracefulStop()
	close(done)
	idle.Wait()
	s.streams.senders.Wait()
	s.watches.Wait()
	s.publisher.lanes.Wait()
}
