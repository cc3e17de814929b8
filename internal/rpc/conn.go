package rpc

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc/peer"
)

// dated notes when its connections began. They say so in their peer's address, which is what a call sees of its connection:
// a stats.Handler would be told as well, but for its sake gRPC describes each message of each call, a sixth of what a
// publish costs.
type dated struct{ net.Listener }

func (l dated) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if tcp, ok := nc.(*net.TCPConn); ok {
		return datedConn{tcp, since{nc.RemoteAddr(), time.Now()}}, nil
	}
	return nc, err
}

// datedConn is a TCP connection in all but its peer's address: gRPC reads one without holding a buffer for it.
type datedConn struct {
	*net.TCPConn
	peer net.Addr
}

func (c datedConn) RemoteAddr() net.Addr { return c.peer }

// since is the address of a peer, and when it connected.
type since struct {
	net.Addr
	at time.Time
}

// connected is when the connection of a call began.
func connected(ctx context.Context) (at time.Time, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return time.Time{}, false
	}
	a, ok := p.Addr.(since)
	return a.at, ok
}
