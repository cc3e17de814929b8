package edge

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// send writes without a word to Go's scheduler: the call never blocks. A socket that turns out to be full is marked and
// then tried once more, so that an edge between the first try and the mark is not missed.
func (s *session) send(b []byte) (int, error) {
	n, errno := s.sendOnce(b)
	if n < len(b) && (errno == 0 || errno == unix.EAGAIN) {
		s.blocked.Store(true)
		var m int
		m, errno = s.sendOnce(b[n:])
		if n += m; n == len(b) {
			s.blocked.Store(false)
		}
	}
	if errno != 0 && errno != unix.EAGAIN {
		s.e.poller.post(note{s: s, kind: noteForget})
		return n, errDead
	}
	return n, nil
}

func (s *session) sendOnce(b []byte) (int, syscall.Errno) {
	if len(b) == 0 {
		return 0, 0
	}
	s.owned()
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

func (s *session) receive(b []byte) (int, syscall.Errno) {
	s.owned()
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// shutdown ends our direction.
func (s *session) shutdown() {
	s.owned()
	_ = unix.Shutdown(int(s.fd), unix.SHUT_WR)
}

// closeFD is the end of the number: nobody uses it afterwards.
func (s *session) closeFD() {
	s.owned()
	s.e.cfg.ledger.disown(s)
	_ = unix.Close(int(s.fd))
}

// owned checks in tests that the descriptor is the session's.
func (s *session) owned() { s.e.cfg.ledger.check(s) }
