package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/slack5/realtime/internal/wire"
)

const (
	readBytes = 256 << 10
	tickEvery = 50 * time.Millisecond
	// spare descriptors: gRPC, epoll, what the runtime has.
	spare = 128
)

// run holds the sessions until ctx is done. It returns when all its goroutines have ended and every connection is closed.
func (w *swarm) run(ctx context.Context) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < uint64(len(w.sessions)+spare) {
		return fmt.Errorf("%d sessions need %d open files, the limit is %d: ulimit -n", len(w.sessions), len(w.sessions)+spare, limit.Cur)
	}
	readers := make([]*reader, len(w.watchers))
	for i, x := range w.watchers {
		r, err := newReader(w, x, i)
		if err != nil {
			return err
		}
		readers[i] = r
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range readers {
		g.Go(func() error { return r.run(ctx) })
	}
	for range dialers {
		g.Go(func() error { w.dial(ctx); return nil })
	}
	return g.Wait()
}

// reader reads the sessions of its rooms: one goroutine, one epoll set, one buffer. Everything but the arrivals is the
// goroutine's.
type reader struct {
	*watcher
	swarm *swarm
	mine  []*session
	rng   *rand.Rand

	ep     int
	buf    []byte
	table  map[int32]*session // by descriptor
	slowAt int64              // when slow readers read next
	phase  phase              // as the last tick saw it

	wakeFD   int
	mu       sync.Mutex
	arrivals []arrival
	stopped  bool
}

func newReader(w *swarm, x *watcher, n int) (*reader, error) {
	r := &reader{watcher: x, swarm: w, rng: rand.New(rand.NewPCG(w.seed, uint64(n))), buf: make([]byte, readBytes), table: map[int32]*session{}}
	for _, s := range w.sessions {
		if s.room.number%len(w.watchers) == n {
			r.mine = append(r.mine, s)
		}
	}
	var err error
	if r.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if r.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return r, r.watch(r.wakeFD)
}

func (r *reader) watch(fd int) error {
	err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

func (r *reader) run(ctx context.Context) error {
	defer r.stop()
	events := make([]unix.EpollEvent, 512)
	next := int64(0)
	for ctx.Err() == nil {
		now := r.swarm.clock.now()
		if now >= next {
			r.tick(now)
			next = now + int64(tickEvery)
		}
		n, err := unix.EpollWait(r.ep, events, int((next-now)/1e6)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(r.wakeFD) {
				r.arrived()
			} else if s := r.table[e.Fd]; s != nil {
				r.read(s, readBytes)
			}
		}
		r.flush()
	}
	return nil
}

// stop closes everything, also what arrives later.
func (r *reader) stop() {
	r.flush()
	for _, s := range r.table {
		_ = unix.Close(s.fd)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, a := range r.arrivals {
		if a.err == nil {
			_ = unix.Close(a.fd)
		}
	}
	_ = unix.Close(r.wakeFD)
	_ = unix.Close(r.ep)
}

// answer brings a dialler's result to the reader. Any goroutine may call it.
func (r *reader) answer(a arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		if a.err == nil {
			_ = unix.Close(a.fd)
		}
		return
	}
	r.arrivals = append(r.arrivals, a)
	_, _ = unix.Write(r.wakeFD, binary.NativeEndian.AppendUint64(nil, 1)) // full means awake
}

func (r *reader) arrived() {
	var drop [8]byte
	_, _ = unix.Read(r.wakeFD, drop[:]) // it only wakes
	r.mu.Lock()
	list := r.arrivals
	r.arrivals = nil
	r.mu.Unlock()
	for _, a := range list {
		r.attach(a)
	}
}

func (r *reader) attach(a arrival) {
	s, now := a.session, r.swarm.clock.now()
	if a.err == nil && (!s.slow || r.phase == draining) {
		if a.err = r.watch(a.fd); a.err != nil {
			_ = unix.Close(a.fd)
		}
	}
	if a.err != nil {
		r.swarm.blame(a.err)
		r.causes["no connection"]++
		r.later(s, !a.final, false, now)
		return
	}
	if s.opened {
		r.reconnects++
	}
	r.table[int32(a.fd)] = s
	s.connected(a.fd, now, a.last)
	r.take(s, a.rest, now)
}

// send writes a control frame. One that does not go out whole is left to the server's patience.
func (r *reader) send(s *session, op wire.Opcode, payload []byte) {
	var b [2 + 4 + 125]byte
	_, _ = unix.Write(s.fd, appendMasked(b[:0], op, payload))
}

// read takes at most that many bytes from the socket.
func (r *reader) read(s *session, most int) {
	kept := len(s.carry)
	if len(r.buf) < kept+most {
		r.buf = make([]byte, 2*kept+most)
	}
	copy(r.buf, s.carry)
	n, err := unix.Read(s.fd, r.buf[kept:kept+most])
	switch {
	case n > 0:
		r.take(s, r.buf[:kept+n], r.swarm.clock.now())
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	default:
		r.closed(s, 0)
	}
}

// take takes whole frames off b and keeps the rest.
func (r *reader) take(s *session, b []byte, now int64) {
	for {
		op, payload, n, err := nextFrame(b)
		switch {
		case err != nil:
		case n == 0:
			r.keep(s, b)
			return
		case op == wire.OpText:
			err = r.text(s, payload, now)
		case op == wire.OpPing:
			r.send(s, wire.OpPong, payload[:min(len(payload), 125)])
		case op == wire.OpClose && len(payload) >= 2:
			r.closed(s, int(binary.BigEndian.Uint16(payload)))
			return
		case op == wire.OpClose:
			r.closed(s, 1005)
			return
		case op != wire.OpPong:
			err = fmt.Errorf("%w: opcode %d", errFrame, op)
		}
		if err != nil {
			r.swarm.blame(err)
			r.broken++
			r.gone(s, "broken", true, false)
			return
		}
		b = b[n:]
	}
}

func (r *reader) keep(s *session, b []byte) {
	if len(b) == 0 && cap(s.carry) > 1024 {
		s.carry = nil
		return
	}
	s.carry = append(s.carry[:0], b...)
}
