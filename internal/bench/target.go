package bench

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// target is a node's WebSocket address.
type target struct {
	addr *net.TCPAddr
	host string // for the Host header
	path string // in front of the room, ending in a slash
}

// parseTarget reads HOST:PORT or ws://HOST:PORT[/PATH] and resolves the host. The path is /ws unless given.
func parseTarget(s string) (*target, error) {
	text := s
	if !strings.Contains(text, "://") {
		text = "ws://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("--ws: %q is neither HOST:PORT nor ws://HOST:PORT/ws", s)
	}
	if u.Scheme != "ws" {
		return nil, fmt.Errorf("--ws: %q: only ws is spoken, point it at a node rather than at what ends TLS in front of it", s)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("--ws: %w", err)
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	if path == "" {
		path = "/ws"
	}
	return &target{addr: addr, host: u.Host, path: path + "/"}, nil
}
