package rpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/peer"
)

// dated bounds its TCP connections and notes when they began. They say so in their peer's address, which is what a call sees of its
// connection: a stats.Handler would be told as well, but for its sake gRPC describes each message of each call, a sixth of what
// a publish costs.
type dated struct {
	net.Listener
	most int64
	open *atomic.Int64
	full *counter // connections that were refused
}

// Accept refuses a connection above the most by closing it.
func (l dated) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := nc.(*net.TCPConn)
		if !ok {
			return nc, nil
		}
		if l.open.Add(1) > l.most {
			l.open.Add(-1)
			l.full.Add(1)
			_ = nc.Close()
			continue
		}
		c := &datedConn{TCPConn: tcp, open: l.open}
		c.peer = since{nc.RemoteAddr(), time.Now(), c}
		return c, nil
	}
}

// datedConn is a TCP connection in all but its peer's address: gRPC reads one without holding a buffer for it.
type datedConn struct {
	*net.TCPConn
	peer since
	open *atomic.Int64
	once sync.Once
}

func (c *datedConn) RemoteAddr() net.Addr { return c.peer }

func (c *datedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.TCPConn.Close()
}

// since is the address of a peer, when it connected, and how.
type since struct {
	net.Addr
	at   time.Time
	conn *datedConn
}

// connected is when the connection of a call began.
func connected(ctx context.Context) (at time.Time, ok bool) {
	a, ok := addressOf(ctx)
	return a.at, ok
}

// hangUp ends the connection of a call, with all calls on it.
func hangUp(ctx context.Context) {
	if a, ok := addressOf(ctx); ok && a.conn != nil {
		_ = a.conn.Close()
	}
}

func addressOf(ctx context.Context) (a since, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return a, false
	}
	a, ok = p.Addr.(since)
	return a, ok
}
