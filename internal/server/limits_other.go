//go:build !unix

package server

import "net"

func (s *Server) sessionCap() int { return s.cfg.MaxSessions }

func sessionSocket(int) net.ListenConfig { return net.ListenConfig{KeepAlive: -1} }
