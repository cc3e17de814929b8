//go:build unix

package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// spareFiles are descriptors that are not sessions': listeners, gRPC connections, scrapes, handshakes under way.
const spareFiles = 100

// sessionCap is the most sessions that the file limit allows, at most as many as asked for. It raises the soft limit first.
func (s *Server) sessionCap() int {
	want := s.cfg.MaxSessions
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return want // nobody knows; what is too much will show
	}
	if fitSessions(want, l.Cur) < want && l.Cur < l.Max {
		raised := l
		raised.Cur = min(uint64(want)+spareFiles, l.Max)
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			l = raised
		}
	}
	fit := fitSessions(want, l.Cur)
	if fit < want {
		s.log.Warn("file limit below --max-sessions: fewer sessions are let in; raise it with ulimit -n or LimitNOFILE=",
			"file_limit", l.Cur, "needed", uint64(want)+spareFiles, "max_sessions", fit)
	}
	return fit
}

// fitSessions is how many sessions of those wanted a limit of files leaves room for: one at least.
func fitSessions(want int, files uint64) int {
	if files >= uint64(want)+spareFiles {
		return want
	}
	return max(1, int(files)-spareFiles)
}

// sessionSocket sets options on the listener, which accepted sockets inherit: no call per session. The kernel's keepalive is
// off, since pings see more.
func sessionSocket(sndbuf int) net.ListenConfig {
	return net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf)
		})
		if err != nil {
			return err
		}
		return failed
	}}
}
