package edge

import (
	"errors"
	"sync"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// ErrGone says that the session has ended.
var ErrGone = errors.New("session ended")

// Conn is a session as callbacks see it. It may be used concurrently, also after the session's end.
type Conn struct {
	s *session

	// what hooks are told of it, and what a new token must name and leaves alone; static
	who     hooks.Session
	subject string
	fixed   fixed

	mu      sync.Mutex
	running bool // a handler runs: Closed waits for its end
	opened  bool
	over    bool
	freed   bool      // released, and nobody has been told
	code    CloseCode // what it ended with
	reason  string

	places []hooks.Place // the shard's, until it is released
}

func newConn(s *session, id identity) *Conn {
	c := &Conn{s: s, subject: id.subject, fixed: id.fixed}
	c.who = hooks.Session{ID: id.session, User: id.User, Node: s.e.cfg.Node, Address: id.address, Data: id.data, Conn: c}
	if id.anonymous {
		c.who.User = id.session
	}
	if c.subject == "" {
		c.subject = id.User
	}
	return c
}

// ID is the session's id.
func (c *Conn) ID() string { return c.s.h.ID }

// User is who its token names; an anonymous session is its own user.
func (c *Conn) User() string { return c.s.h.User }

// Rooms lists the rooms it is a member of.
func (c *Conn) Rooms() []message.Room { return c.s.h.Rooms() }

// Send gives the session a frame of its own: of any type, kept nowhere. It never blocks; a session that does not read what it
// is sent is closed as slow. m is not changed; its id is that of the frame when it is written.
func (c *Conn) Send(m *message.Message) error {
	if c.s.closing.Load() {
		return ErrGone
	}
	now := m.Timestamp
	if now == 0 {
		now = nowMS()
	}
	c.s.h.Send(m.Room, frame.Own{Type: m.Type, Room: m.Room, From: m.From, Data: m.Data}.Append(nil, now))
	return nil
}

// Close ends the session with a code and a reason of at most 123 bytes of UTF-8. The first close counts.
func (c *Conn) Close(code CloseCode, reason string) { c.s.close(code, reason) }

// enter and leave are around each run of the handler.
func (c *Conn) enter() {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
}

func (c *Conn) leave() {
	c.mu.Lock()
	c.running = false
	last, told := c.lastLocked(), c.toldLocked()
	c.mu.Unlock()
	if last {
		c.s.e.cfg.Closed(c)
	}
	if told {
		c.report()
	}
}

// open runs the callback, on the handler's goroutine.
func (c *Conn) open() {
	c.mu.Lock()
	c.opened = true
	c.mu.Unlock()
	if f := c.s.e.cfg.Opened; f != nil {
		f(c)
	}
}

// gone: nothing more is read of the session. If a handler still runs it sees to Closed.
func (c *Conn) gone() {
	c.mu.Lock()
	c.over = true
	if c.code == 0 {
		c.code = closeUnannounced
	}
	last := c.lastLocked()
	c.mu.Unlock()
	if last {
		c.s.e.work.Go(func() { c.s.e.cfg.Closed(c) })
	}
}

// lastLocked tells, once, that Closed is due.
func (c *Conn) lastLocked() bool {
	if !c.opened || !c.over || c.running || c.s.e.cfg.Closed == nil {
		return false
	}
	c.opened = false
	return true
}
