//go:build !linux

package edge

import "net"

// Elsewhere than on Linux there is no fast path: every session takes the portable one, and nothing here is ever called
// with a session.

type poller struct{}

type noteKind uint8

const (
	noteResume noteKind = iota
	noteShut
	noteForget
	noteStop
)

type note struct {
	s    *session
	kind noteKind
}

func newPoller(*Edge) (*poller, error) { return nil, nil }

func (p *poller) run()      {}
func (p *poller) post(note) {}

func (p *poller) add(*session, []byte) {}

func (p *poller) handOver(net.Conn, *session) (bool, error) { return false, nil }

func (s *session) send([]byte) (int, error) { return 0, errDead }
func (s *session) shutdown()                {}
func (s *session) closeFD()                 {}
