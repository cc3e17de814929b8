package edge

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is the sole reader of all sessions of the fast path: one goroutine, one epoll set, one buffer. A descriptor is
// registered once, edge-triggered, for both directions, and never re-armed. Everything but the notes is the goroutine's.
type poller struct {
	e      *Edge
	ep     int
	wakeFD int
	buf    []byte
	table  []*session // by descriptor
	again  []*session // readable still, after others had their turn

	mu    sync.Mutex
	notes []note
}

type noteKind uint8

const (
	noteAdopt  noteKind = iota // read it from now on
	noteResume                 // its handler and the replies are done
	noteShut                   // our side is shut down: read on, whatever runs
	noteForget                 // the socket is dead, or has had its time
	noteStop                   // the last note
)

// note is what others tell the poller, in order.
type note struct {
	s    *session
	kind noteKind
	held []byte // with noteAdopt: what net/http had read already
}

const (
	readBytes = 64 << 10
	// turnReads is how often one session is read before others have a turn.
	turnReads = 4
	anything  = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	ended     = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

func newPoller(e *Edge) (*poller, error) {
	if e.cfg.portable {
		return nil, nil
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(wake)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(ep))
	}
	return &poller{e: e, ep: ep, wakeFD: wake, buf: make([]byte, readBytes)}, nil
}

// post hands the poller a note; it never blocks.
func (p *poller) post(n note) {
	p.mu.Lock()
	p.notes = append(p.notes, n)
	first := len(p.notes) == 1
	p.mu.Unlock()
	if first {
		one := uint64(1)
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.wakeFD), uintptr(unsafe.Pointer(&one)), 8)
	}
}

func (p *poller) run() {
	defer func() {
		_ = unix.Close(p.ep)
		_ = unix.Close(p.wakeFD)
	}()
	events := make([]unix.EpollEvent, 256)
	var notes []note
	for {
		wait := -1
		if len(p.again) > 0 {
			wait = 0
		}
		n, err := unix.EpollWait(p.ep, events, wait)
		if err != nil {
			n = 0 // EINTR; nothing else can happen to a descriptor of ours
		}
		for i := range n {
			p.event(&events[i])
		}
		p.goOn()
		p.mu.Lock()
		notes, p.notes = p.notes, notes[:0]
		p.mu.Unlock()
		for i := range notes {
			if notes[i].kind == noteStop {
				return
			}
			p.note(&notes[i])
		}
		clear(notes)
	}
}

func (p *poller) event(ev *unix.EpollEvent) {
	if int(ev.Fd) >= len(p.table) {
		return // the eventfd: its notes are looked at in any case
	}
	s := p.table[ev.Fd]
	if s == nil || s.gen != uint32(ev.Pad) {
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 && s.blocked.CompareAndSwap(true, false) {
		s.alive()
		s.h.Writable()
	}
	if ev.Events&^unix.EPOLLOUT != 0 {
		if ev.Events&ended != 0 {
			s.fin = true
		}
		s.edge = true
		p.pump(s)
	}
}

// goOn gives those another turn that had not read all.
func (p *poller) goOn() {
	list := p.again
	p.again = nil
	for _, s := range list {
		if p.table[s.fd] == s {
			p.pump(s)
		}
	}
}

func (p *poller) note(n *note) {
	s := n.s
	if n.kind == noteAdopt {
		p.adopt(s, n.held)
		return
	}
	if int(s.fd) >= len(p.table) || p.table[s.fd] != s {
		s.doomed = n.kind == noteForget || s.doomed // not yet adopted, or gone long since
		return
	}
	switch n.kind {
	case noteForget:
		p.forget(s)
	case noteShut:
		p.pump(s)
	case noteResume:
		if s.resumed() {
			p.pump(s)
		}
	}
}

// adopt begins to read a session. epoll tells at once how the socket stands, so no edge is missed.
func (p *poller) adopt(s *session, held []byte) {
	if s.doomed {
		s.gone()
		return
	}
	if n := int(s.fd) + 1; n > len(p.table) {
		p.table = append(p.table, make([]*session, max(n, 2*len(p.table))-len(p.table))...)
	}
	p.table[s.fd] = s
	s.begin(held)
	s.owned()
	if err := unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, int(s.fd), &unix.EpollEvent{Events: anything, Fd: s.fd, Pad: int32(s.gen)}); err != nil {
		p.e.log.Error("session not watched", "session_id", s.h.ID, "err", err)
		p.table[s.fd] = nil
		s.gone()
	}
}

// forget ends the reading. After it nobody but the shard knows the number, and it closes it when it is told.
func (p *poller) forget(s *session) {
	s.owned()
	_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, int(s.fd), nil)
	p.table[s.fd] = nil
	s.gone()
}

// pump reads until there is nothing, a handler must end first, or others should have a turn.
func (p *poller) pump(s *session) {
	for range turnReads {
		if !s.edge || s.busy.Load() && !s.closing.Load() || s.deaf() && !s.fin {
			return
		}
		n, errno := s.receive(p.buf)
		switch {
		case errno == unix.EAGAIN:
			s.edge = false
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			p.forget(s)
			return
		}
		s.edge = n == len(p.buf) || s.fin
		s.took(p.buf[:n])
	}
	if s.edge {
		p.again = append(p.again, s)
	}
}

// handOver makes nc's descriptor ours: after it nothing of Go's network poller knows the connection. It closes nc in any
// case. false: nc is nothing that the fast path can read.
func (p *poller) handOver(nc net.Conn, s *session) (ok bool, err error) {
	tcp, isTCP := nc.(*net.TCPConn)
	if p == nil || !isTCP {
		return false, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true, errors.Join(err, nc.Close())
	}
	fd := -1
	ctl := raw.Control(func(d uintptr) { fd, err = unix.FcntlInt(d, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, ctl); err != nil {
		return true, errors.Join(err, nc.Close())
	}
	s.fd, s.gen = int32(fd), p.e.generation.Add(1)
	p.e.cfg.ledger.own(s)
	_ = nc.Close() // the connection lives on in fd
	return true, nil
}
