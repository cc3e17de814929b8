package bench

import (
	"context"
	"net"
	"sync"
	"time"
)

// relay stands between one node and Redis: it can let nothing through, take its time, or lead elsewhere. Toxiproxy would do
// it too, but leaves goroutines behind when a connection ends with bytes under way, and this one has an end.
type relay struct {
	addr string
	l    net.Listener
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	to      string
	conns   map[net.Conn]struct{} // of both sides
	hole    bool                  // nothing passes
	delay   time.Duration         // of every piece
	changed chan struct{}         // closed and renewed when hole or delay changes
}

// newRelay relays until close.
func newRelay(ctx context.Context, to string) (*relay, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	r := &relay{addr: l.Addr().String(), l: l, stop: stop, to: to, conns: map[net.Conn]struct{}{}, changed: make(chan struct{})}
	r.wg.Go(func() {
		for {
			node, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.connect(ctx, node) })
		}
	})
	return r, nil
}

func (r *relay) close() {
	r.l.Close()
	r.stop()
	r.cut()
	r.wg.Wait()
}

// connect relays one connection until either side ends it.
func (r *relay) connect(ctx context.Context, node net.Conn) {
	defer node.Close()
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	d := net.Dialer{Timeout: dialTimeout}
	redis, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer redis.Close()
	r.mu.Lock()
	if ctx.Err() != nil || r.to != to { // whoever closes, or leads elsewhere, did not see it
		r.mu.Unlock()
		return
	}
	r.conns[node], r.conns[redis] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{node: redis, redis: node} {
		both.Go(func() { r.pump(ctx, from, to) })
	}
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, node)
	delete(r.conns, redis)
}

// pump copies one direction; its end is that of the connection.
func (r *relay) pump(ctx context.Context, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			r.hold(ctx)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold returns when what was read may pass.
func (r *relay) hold(ctx context.Context) {
	for {
		r.mu.Lock()
		hole, delay, changed := r.hole, r.delay, r.changed
		r.mu.Unlock()
		if !hole {
			if delay > 0 {
				wait(ctx, delay)
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// set changes what becomes of all that passes from now on.
func (r *relay) set(hole bool, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hole, r.delay = hole, delay
	close(r.changed)
	r.changed = make(chan struct{})
}

// lead has it lead elsewhere, and cuts all that led there before.
func (r *relay) lead(to string) {
	r.mu.Lock()
	r.to = to
	r.mu.Unlock()
	r.cut()
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}
