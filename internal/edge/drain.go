package edge

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/frame"
)

// cutWait is how long cut sessions may take to be gone: it is the shards' work of some microseconds each.
const cutWait = 5 * time.Second

// Drain ends all sessions in an orderly way: from now on nobody is let in, each session is told when its turn comes and
// closed then, evenly over the window, so that they do not come back elsewhere all at once. It returns when all are gone;
// what is left when ctx ends is cut. The hub must be running.
func (e *Edge) Drain(ctx context.Context, window time.Duration) {
	e.state.Store(draining)
	list := e.wheel.seal()
	start := time.Now()
	turn := func(i int) time.Duration { return window * time.Duration(i) / time.Duration(len(list)) }
	for i, s := range list {
		s.announce(turn(i))
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for i := 0; i < len(list) && ctx.Err() == nil; {
		if late := time.Since(start) - turn(i); late >= 0 {
			list[i].close(CloseDrain, "")
			list[i] = nil
			i++
			continue
		}
		wait.Reset(turn(i) - time.Since(start))
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	if !e.awaitNone(ctx) {
		e.cutAll()
	}
}

// announce tells a session that it is closed in so much time.
func (s *session) announce(in time.Duration) {
	s.h.Send("", frame.Reconnect{InMS: in.Milliseconds()}.Append(nil, nowMS()))
}

// cutAll ends the sessions that are left without a word.
func (e *Edge) cutAll() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.base), cutWait)
	defer cancel()
	for e.sessions.Load() > 0 { // again for each that was still in its handshake
		for _, s := range e.wheel.all() {
			s.cut()
		}
		select {
		case <-e.ended:
		case <-ctx.Done():
			e.log.Error("sessions not released", "count", e.sessions.Load())
			return
		}
	}
}

// awaitNone waits for the last session; false: ctx ended before.
func (e *Edge) awaitNone(ctx context.Context) bool {
	for e.sessions.Load() > 0 {
		select {
		case <-e.ended:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
