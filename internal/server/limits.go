package server

import (
	"fmt"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/edge"
)

// limitsOf are the options in the edge's words, where 0 is the default.
func limitsOf(l *config.Limits) edge.Limits {
	or := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	return edge.Limits{
		SessionFrames: or(l.SessionFrames), SessionBytes: or(int(l.SessionBytes)), SessionPings: or(l.SessionPings),
		SessionSubscribes: or(l.SessionSubscribes), SessionStatuses: or(l.SessionStatuses), SessionControls: or(l.SessionControls),
		Fragments:  or(l.SessionFragments),
		UserFrames: or(l.UserFrames), UserBytes: or(int(l.UserBytes)), UserNewRooms: or(l.UserNewRooms), UserSessions: or(l.UserSessions),
		AddressFrames: or(l.AddressFrames), AddressBytes: or(int(l.AddressBytes)), AddressSessions: or(l.AddressSessions),
		AddressHandshakes: or(l.AddressHandshakes), AddressFailures: or(l.AddressFailures),
		Handshakes: or(l.Handshakes),
	}
}

// behindProxies has the edge's listener read what proxies say before a connection.
func (s *Server) behindProxies() error {
	if !s.cfg.ProxyProtocol {
		return nil
	}
	l, err := edge.ProxyListener(s.edgeL, s.cfg.TrustedProxy)
	if err != nil {
		return fmt.Errorf("--trusted-proxy: %w", err)
	}
	s.edgeL = l
	return nil
}
