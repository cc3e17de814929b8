package config

import "net"

// Loopback tells whether HOST:PORT is this machine alone.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && loopback(host)
}
