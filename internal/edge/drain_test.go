package edge

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestADrainTellsEachSessionItsTurnAndSpreadsTheCloses(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		const n, window = 20, 400 * time.Millisecond
		var list []*conn
		for range n {
			c := s.connect("/ws/general")
			c.want("subscribed")
			list = append(list, c)
		}
		start := time.Now()
		go s.Drain(context.Background(), window) //nolint:usetesting // the test's context ends before what it stops
		var mu sync.Mutex
		var ends []time.Duration
		var wg sync.WaitGroup
		for _, c := range list {
			wg.Go(func() {
				in, _ := c.want("reconnect").field("in_ms").(float64)
				code, _ := c.closed()
				d := time.Since(start)
				mu.Lock()
				defer mu.Unlock()
				ends = append(ends, d)
				if code != 1012 || d < time.Duration(in)*time.Millisecond-20*time.Millisecond {
					t.Errorf("closed %d after %v, told %v ms", code, d, in)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		slices.Sort(ends)
		if spread := ends[n-1] - ends[0]; spread < window*3/4 {
			t.Errorf("all closed within %v of a window of %v", spread, window)
		}
		if res := s.get("GET", "/ws", upgrade()...); res.StatusCode != 503 {
			t.Errorf("let in while draining: %d", res.StatusCode)
		}
		until(t, "all are gone", func() bool { return s.sessions.Load() == 0 })
	})
}

func TestADrainCutsPeersThatDoNotGoInTime(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		for range 5 {
			s.connect("/ws/general").want("subscribed") // and is never read again
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond) //nolint:usetesting // the test's context ends before what it stops
		defer cancel()
		start := time.Now()
		s.Drain(ctx, 50*time.Millisecond)
		if d := time.Since(start); d > 2*time.Second || s.sessions.Load() != 0 {
			t.Errorf("after %v %d sessions are left", d, s.sessions.Load())
		}
	})
}

func TestADrainLetsAPublishFinish(t *testing.T) {
	s := serve(t, fast, setup{})
	h := &held{bus: s.bus, free: make(chan struct{})}
	s.Edge.publish = h
	c := s.connect("/ws/general")
	c.want("subscribed")
	c.say(`{"type":"chat","ref":"last"}`)
	until(t, "the handler runs", func() bool { return s.Stats().Frames == 1 })
	go s.Drain(context.Background(), 0) //nolint:usetesting // the test's context ends before what it stops
	if code, _ := c.closed(); code != 1012 {
		t.Errorf("closed %d", code)
	}
	close(h.free)
	until(t, "it was published", func() bool {
		s.bus.mu.Lock()
		defer s.bus.mu.Unlock()
		return len(s.bus.room("general").entries) == 1
	})
}

func TestAnEdgeThatEndsCutsWhatIsLeft(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		var c *conn
		t.Run("serve", func(t *testing.T) {
			s := serve(t, p, setup{})
			c = s.connect("/ws/general")
			c.want("subscribed")
			t.Cleanup(func() { c.deadline(time.Second) })
		})
		c.t = t
		if _, err := c.read(time.Second); err == nil {
			t.Error("the connection outlives its edge")
		}
	})
}
