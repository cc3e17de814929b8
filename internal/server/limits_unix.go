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
	want := uint64(s.cfg.MaxSessions + spareFiles)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur >= want {
		return s.cfg.MaxSessions
	}
	raised := l
	raised.Cur = min(want, l.Max)
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
		l = raised
	}
	if l.Cur >= want {
		return s.cfg.MaxSessions
	}
	lowered := max(1, int(l.Cur)-spareFiles)
	s.log.Warn("file limit below --max-sessions: fewer sessions are let in; raise it with ulimit -n or LimitNOFILE=",
		"file_limit", l.Cur, "needed", want, "max_sessions", lowered)
	return lowered
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
