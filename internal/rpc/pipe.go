package rpc

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/slack5/realtime/internal/hub"
)

const (
	// pipeBytes is what a pipe holds of frames that are not sent. It is not what a slow reader misses: the hub writes on from
	// the log when there is room again.
	pipeBytes = 256 << 10
	// pipeStep is how much must have been sent before the hub is told of room: enough for a write to be worth it, little
	// enough for a slow reader to show progress.
	pipeStep = pipeBytes / 4
)

var errPipeClosed = errors.New("pipe closed")

// pipe stands in for a session's socket: the session's shard writes frames into it, one goroutine takes them out.
type pipe struct {
	wake chan struct{} // for the reader: there is something
	shut chan struct{} // closed by Shut

	mu     sync.Mutex
	in     []byte // written and not yet taken
	owed   int    // bytes taken and not yet sent
	full   bool   // the shard was turned away: Writable is owed
	closed bool   // nothing is written any more
	code   int    // Shut's

	// the reader's
	session *hub.Session
	out     []byte // taken
	at      int    // where the next frame begins in it
	sent    int    // bytes of frames handed out since the shard was told
	spare   []byte // the next in
}

var _ hub.Writer = (*pipe)(nil)

func newPipe() *pipe {
	return &pipe{wake: make(chan struct{}, 1), shut: make(chan struct{})}
}

// TryWrite implements hub.Writer: it takes what it has room for.
func (p *pipe) TryWrite(b []byte) (int, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, errPipeClosed
	}
	n := min(len(b), pipeBytes-len(p.in)-p.owed)
	first := len(p.in) == 0
	p.in = append(p.in, b[:n]...)
	p.full = n < len(b)
	p.mu.Unlock()
	if first && n > 0 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return n, nil
}

// Touch implements hub.Writer. What TryWrite looks at lies behind a lock.
func (*pipe) Touch() uint64 { return 0 }

// Resume implements hub.Writer: nothing is ever read from a pipe's session.
func (*pipe) Resume() {}

// Shut implements hub.Writer: the hub has ended the session.
func (p *pipe) Shut(code int) {
	p.mu.Lock()
	p.code = code
	p.mu.Unlock()
	close(p.shut)
}

// Release implements hub.Writer: a pipe has nothing to give back.
func (*pipe) Release() {}

// why is the hub's reason to have ended the session.
func (p *pipe) why() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code
}

// close ends writing; what was written can still be taken.
func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

// next returns the next whole frame, nil if fetch has to bring more. It is valid until the next call; by then it counts as
// sent.
func (p *pipe) next() []byte {
	if p.sent >= pipeStep {
		p.mu.Lock()
		p.owed -= min(p.sent, p.owed)
		p.tellLocked()
		p.mu.Unlock()
		p.sent = 0
	}
	n := frameBytes(p.out[p.at:])
	if n == 0 {
		return nil
	}
	f := p.out[p.at : p.at+n]
	p.at += n
	p.sent += n
	return f
}

// fetch takes what was written, when next has nothing left but a part of a frame. False: there was nothing.
func (p *pipe) fetch() bool {
	rest := p.out[p.at:]
	p.mu.Lock()
	fresh := p.in
	p.in, p.owed = p.spare[:0], len(fresh) // the rest is owed no more: a frame may be longer than the pipe
	p.tellLocked()
	p.mu.Unlock()
	if len(rest) == 0 {
		p.out, p.spare = fresh, p.out
	} else {
		p.out, p.spare = append(p.out[:copy(p.out, rest)], fresh...), fresh
	}
	p.at, p.sent = 0, 0
	return len(fresh) > 0
}

// tellLocked tells the shard of room if it was turned away and there is some.
func (p *pipe) tellLocked() {
	if p.full && len(p.in)+p.owed < pipeBytes {
		p.full = false
		p.session.Writable()
	}
}

// frameBytes is the length of the unmasked WebSocket frame that b begins with, its header included; 0: b holds a part of it.
func frameBytes(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	head, n := 2, uint64(b[1])
	switch {
	case n == 126 && len(b) >= 4:
		head, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case n == 127 && len(b) >= 10:
		head, n = 10, binary.BigEndian.Uint64(b[2:])
	case n >= 126:
		return 0
	}
	if n > uint64(len(b)-head) {
		return 0
	}
	return head + int(n)
}
