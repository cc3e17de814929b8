package sim

import (
	"context"
	"slices"
	"time"

	"github.com/slack5/realtime/internal/redis"
)

// listener is a connection for subscriptions.
type listener struct {
	l        *Link
	on       redis.Events
	channels map[string]bool // as the server has them
	deaf     bool
	ended    bool
	gone     chan struct{} // closed when nothing is called any more
	waiting  []chan error

	sent, came time.Duration // when the last request arrives, and the last message
}

// Listen implements redis.Port.
func (l *Link) Listen(ctx context.Context, on redis.Events) (redis.Listener, error) {
	done := make(chan error, 1)
	s := &listener{l: l, on: on, channels: make(map[string]bool), gone: make(chan struct{})}
	l.m.mu.Lock()
	if l.redialled == nil {
		l.m.mu.Unlock()
		return nil, errNotOpen
	}
	if l.reachable(done) {
		l.listeners = append(l.listeners, s)
		l.m.later(l.m.elapsed()+l.latency(), func() { done <- nil })
	}
	l.m.mu.Unlock()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		s.end()
		return nil, err
	}
	return s, nil
}

// end takes the connection off the server; the lock is held.
func (s *listener) end() {
	s.ended = true
	if i := slices.Index(s.l.listeners, s); i >= 0 {
		s.l.listeners = slices.Delete(s.l.listeners, i, i+1)
	}
}

// push has f called, behind what was pushed before; the lock is held.
func (s *listener) push(f func()) {
	s.l.arrive(&s.came, s.l.late, func() {
		s.l.m.mu.Lock()
		ended := s.ended
		s.l.m.mu.Unlock()
		if !ended {
			f()
		}
	})
}

// lose ends the connection; the lock is held.
func (s *listener) lose(err error) {
	if s.ended {
		return
	}
	s.end()
	for _, done := range s.waiting {
		done <- err
	}
	s.waiting = nil
	s.l.m.later(s.l.m.elapsed(), func() {
		s.on.Lost(err)
		close(s.gone)
	})
}

// Subscribe implements redis.Listener.
func (s *listener) Subscribe(ctx context.Context, channels ...string) error {
	return s.ask(ctx, channels, func(ch string) {
		s.channels[ch] = true
		s.push(func() { s.on.Subscribed(ch) })
	})
}

// Unsubscribe implements redis.Listener.
func (s *listener) Unsubscribe(ctx context.Context, channels ...string) error {
	return s.ask(ctx, channels, func(ch string) {
		delete(s.channels, ch)
		s.push(func() { s.on.Unsubscribed(ch) })
	})
}

func (s *listener) ask(ctx context.Context, channels []string, do func(ch string)) error {
	done := make(chan error, 1)
	m := s.l.m
	m.mu.Lock()
	if s.ended {
		m.mu.Unlock()
		return errReset
	}
	s.waiting = append(s.waiting, done)
	s.l.arrive(&s.sent, s.l.slow, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.ended {
			return
		}
		for _, ch := range channels {
			do(ch)
		}
		s.push(func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if i := slices.Index(s.waiting, done); i >= 0 {
				s.waiting = slices.Delete(s.waiting, i, i+1)
				done <- nil
			}
		})
	})
	m.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements redis.Listener.
func (s *listener) Close() {
	s.l.m.mu.Lock()
	s.lose(errClosed)
	s.l.m.mu.Unlock()
	<-s.gone
}
