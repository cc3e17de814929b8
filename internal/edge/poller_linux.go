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

	mu        sync.Mutex
	notes     []note
	newcomers map[int32]newcomer    // by descriptor: added, and no event has come yet
	doomed    map[*session]struct{} // were to be forgotten before they were added
}

// newcomer is a session that the goroutine takes over with its first event, or note.
type newcomer struct {
	s    *session
	held []byte // what net/http had read already
}

type noteKind uint8

const (
	noteResume noteKind = iota // its handler and the replies are done
	noteShut                   // our side is shut down: read on, whatever runs
	noteForget                 // the socket is dead, or has had its time
	noteStop                   // the last note
)

// note is what others tell the poller, in order.
type note struct {
	s    *session
	kind noteKind
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
	return &poller{
		e: e, ep: ep, wakeFD: wake, buf: make([]byte, readBytes),
		newcomers: make(map[int32]newcomer), doomed: make(map[*session]struct{}),
	}, nil
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
	if int(ev.Fd) == p.wakeFD {
		return // its notes are looked at in any case
	}
	s := p.of(ev.Fd)
	if s == nil || s.gen != uint32(ev.Pad) {
		if s = p.arrive(ev.Fd, uint32(ev.Pad)); s == nil {
			return
		}
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
	if p.of(s.fd) != s && (s.adopted || p.arrive(s.fd, s.gen) == nil) {
		if !s.adopted && n.kind == noteForget {
			p.doom(s)
		}
		return // gone long since, or not yet here
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

// add has a session read from now on. The goroutine of its handshake calls it, which has no more to do with it then. epoll
// tells at once how the socket stands, so no edge is missed.
func (p *poller) add(s *session, held []byte) {
	p.mu.Lock()
	_, doomed := p.doomed[s]
	delete(p.doomed, s)
	var err error
	if !doomed {
		p.newcomers[s.fd] = newcomer{s, held}
		s.owned()
		// Under the lock: who finds it among the newcomers may give the number up.
		err = unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, int(s.fd), &unix.EpollEvent{Events: anything, Fd: s.fd, Pad: int32(s.gen)})
	}
	p.mu.Unlock()
	switch {
	case doomed:
		s.gone()
	case err != nil:
		p.e.log.Error("session not watched", "session_id", s.h.ID, "err", err)
		p.post(note{s: s, kind: noteForget})
	}
}

// doom notes that a session is to be forgotten as soon as it is added, or forgets it if it was just now.
func (p *poller) doom(s *session) {
	p.mu.Lock()
	_, here := p.newcomers[s.fd]
	if !here {
		p.doomed[s] = struct{}{}
	}
	p.mu.Unlock()
	if here && p.arrive(s.fd, s.gen) != nil {
		p.forget(s)
	}
}

// of is the session that is read on a descriptor; nil: none.
func (p *poller) of(fd int32) *session {
	if int(fd) >= len(p.table) {
		return nil
	}
	return p.table[fd]
}

// arrive takes a newcomer over: nil if there is none on this descriptor.
func (p *poller) arrive(fd int32, gen uint32) *session {
	p.mu.Lock()
	n, ok := p.newcomers[fd]
	if ok = ok && n.s.gen == gen; ok {
		delete(p.newcomers, fd)
	}
	p.mu.Unlock()
	if !ok {
		return nil
	}
	if size := int(fd) + 1; size > len(p.table) {
		p.table = append(p.table, make([]*session, max(size, 2*len(p.table))-len(p.table))...)
	}
	p.table[fd], n.s.adopted = n.s, true
	n.s.begin(n.held)
	return n.s
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
