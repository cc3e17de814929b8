package edge

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	pipeReadBytes  = 4 << 10  // what one read takes at most
	pipeWriteBytes = 64 << 10 // what waits to be written at most
)

// portable carries a session over any net.Conn: TLS, and systems without the fast path. One goroutine reads; another
// writes, but exists only while there is something to write. Every net.Conn call that can wait is made by one of the two,
// since the shard, the handler and the wheel must not.
type portable struct {
	s    *session
	nc   net.Conn
	wake chan struct{} // for the reader: something has changed
	free chan struct{} // closed by Release

	mu      sync.Mutex
	out     []byte // taken from the shard and not yet given to nc
	writing bool   // the writer exists
	open    bool   // the session is whole: the writer may exist
	full    bool   // the shard was turned away: Writable is owed
	ending  bool   // our side is to be shut down behind out
	dead    bool   // nothing can be written any more
	written sync.WaitGroup
}

func newPortable(s *session, nc net.Conn) *portable {
	return &portable{s: s, nc: nc, wake: make(chan struct{}, 1), free: make(chan struct{})}
}

// start begins to read and write: held was read by net/http already.
func (p *portable) start(held []byte) {
	p.mu.Lock()
	p.open = true
	p.writeLocked() // before the reader, which waits for the writer at its end
	p.mu.Unlock()
	p.s.e.work.Go(func() { p.read(held) })
}

// read is the reader: the goroutine lives as long as the session and closes the connection at its end.
func (p *portable) read(held []byte) {
	s := p.s
	s.begin(held)
	if errors.Is(p.readAll(make([]byte, pipeReadBytes)), io.EOF) {
		// Behind a peer's orderly end the last replies and the close frame are still written, if it takes them.
		_ = p.nc.SetWriteDeadline(time.Now().Add(s.e.cfg.CloseTimeout))
	} else {
		p.cut()
	}
	s.gone()
	<-p.free
	p.written.Wait()
	if under, ok := p.nc.(interface{ NetConn() net.Conn }); ok {
		_ = under.NetConn().Close() // TLS would wait for room to say goodbye
	}
	_ = p.nc.Close()
	s.e.departed(s)
}

func (p *portable) readAll(buf []byte) error {
	for p.awaitTurn() {
		n, err := p.nc.Read(buf)
		if n > 0 {
			p.s.took(buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return errDead
}

// awaitTurn waits while a handler has what was read, or nothing more is to be read. false: the session was cut meanwhile.
func (p *portable) awaitTurn() bool {
	for p.s.deaf() || p.s.busy.Load() && !p.s.closing.Load() && !p.s.resumed() {
		<-p.wake
		p.mu.Lock()
		dead := p.dead
		p.mu.Unlock()
		if dead {
			return false
		}
	}
	return true
}

func (p *portable) wakeReader() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// tryWrite takes what it has room for.
func (p *portable) tryWrite(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return 0, errDead
	}
	n := min(len(b), pipeWriteBytes-len(p.out))
	p.out = append(p.out, b[:n]...)
	if n < len(b) {
		p.full = true
		p.s.blocked.Store(true)
	}
	p.writeLocked()
	return n, nil
}

func (p *portable) shut() {
	p.mu.Lock()
	p.ending = true
	p.writeLocked()
	p.mu.Unlock()
	p.wakeReader()
}

// writeLocked sees to it that a writer exists if there is something for it to do.
func (p *portable) writeLocked() {
	if p.open && !p.writing && !p.dead && (len(p.out) > 0 || p.ending) {
		p.writing = true
		p.written.Add(1)
		p.s.e.work.Go(p.write)
	}
}

// write is the writer: it ends when nothing is left.
func (p *portable) write() {
	defer p.written.Done()
	b, end := p.take(nil)
	for ; b != nil; b, end = p.take(b) {
		if _, err := p.nc.Write(b); err != nil {
			p.cut()
		}
	}
	if end {
		p.endWrites()
	}
}

// take gives the writer what is to be written next, for the buffer that it has written. nil: there is no writer any more;
// end: our direction is to be shut down.
func (p *portable) take(written []byte) (b []byte, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full && !p.dead && written != nil { // there is room, and the peer is there
		p.full = false
		p.s.blocked.Store(false)
		p.s.alive()
		p.s.h.Writable()
	}
	if !p.dead && len(p.out) > 0 {
		b, p.out = p.out, written[:0]
		return b, false
	}
	end, p.ending = p.ending && !p.dead, false
	p.out, p.writing = nil, false
	return nil, end
}

// endWrites shuts our direction down, where a connection knows such a thing. Else the peer has only our close frame to go
// by, and its time.
func (p *portable) endWrites() {
	if half, ok := p.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// cut makes every pending and later call on the connection fail; it never waits, as closing a TLS connection may.
func (p *portable) cut() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	_ = p.nc.SetDeadline(time.Unix(1, 0))
	p.wakeReader()
}

func (p *portable) release() { close(p.free) }
