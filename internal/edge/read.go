package edge

import (
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/wire"
)

// inbox is what one read brought for the handler.
type inbox struct {
	frames []delivered
	buf    []byte  // where those lie that the parser did not assemble
	last   *ending // how the session ends after them; nil: it goes on
	opens  bool    // it is the session's first: Opened runs before
}

// delivered is a message of the peer's.
type delivered struct {
	data   []byte
	binary bool // never, but for Config.instead
}

// ending is why no more can be read.
type ending struct {
	code   uint16
	reason string
	peer   bool // the peer's own close frame, answered with its code
}

// took is the reader's: b was received.
func (s *session) took(b []byte) {
	s.alive()
	if s.closing.Load() {
		s.junk += uint32(len(b))
		return
	}
	s.allow()
	s.feed(b)
}

// begin is the reader's first act. held is what net/http had read already. With callbacks the session begins with a run of its
// handler, whether it has sent something or not.
func (s *session) begin(held []byte) {
	if len(held) > 0 {
		s.took(held)
	}
	if s.opens() && !s.busy.Load() && !s.closing.Load() {
		s.run(&inbox{opens: true})
	}
}

// opens tells whether the program around is told of the session.
func (s *session) opens() bool {
	return s.conn != nil && (s.e.cfg.Opened != nil || s.e.cfg.Closed != nil)
}

// run gives what was read to a handler. Until it is done the session is not read.
func (s *session) run(in *inbox) {
	s.greeted = true
	s.partAt.Store(0)
	s.busy.Store(true)
	s.e.work.Go(func() { s.handle(in) })
}

// deaf: so much has come after our close frame that nothing more is read. The connection stays until the peer ends it or its
// time is over: closing it now would be a reset, and might take our close frame with it.
func (s *session) deaf() bool { return s.junk > closeJunk }

// allow renews the parser's allowance of control frames each second.
func (s *session) allow() {
	if now := uint16(s.e.wheel.now()/s.e.wheel.second) + 1; now != s.second {
		s.second = now
		s.parser.Allow(s.e.cfg.Limits.SessionControls)
	}
}

// feed parses b and sees to what it completes. Complete messages go to one handler; until it is done and its replies are
// written the session is busy and is not read: this keeps its order and pushes back on its socket.
func (s *session) feed(b []byte) {
	var in *inbox
	var pong []byte
	var last *ending
	for {
		ev, n := s.parser.Next(b, &s.e.frames)
		b = b[n:]
		switch ev.Kind {
		case wire.Text, wire.Binary:
			if in == nil {
				in = &inbox{}
			}
			in.add(ev, len(b))
		case wire.Ping:
			pong = frame.AppendPong(pong[:0], ev.Data) // only the latest is answered (RFC 6455, 5.5.3)
		case wire.Close:
			last = &ending{code: ev.Code, reason: string(ev.Data), peer: true}
		case wire.Error:
			last = &ending{code: ev.Code, reason: ev.Reason}
			if ev.Code == wire.CodeAbuse {
				s.e.metrics.rateLimited[KindControls].Add(1)
			}
		case wire.None:
			s.fed(in, pong, last)
			return
		}
	}
}

// fed acts on what one read brought, in the order in which it came; a pong may overtake replies.
func (s *session) fed(in *inbox, pong []byte, last *ending) {
	if pong != nil {
		s.h.Send("", pong)
	}
	switch {
	case in != nil:
		in.last = last
		in.opens = s.opens() && !s.greeted
		s.run(in)
	case last != nil:
		s.end(last)
	default:
		s.clockPart()
	}
}

func (s *session) end(last *ending) {
	if last.peer {
		s.answerClose(last.code, last.reason)
	} else {
		s.close(CloseCode(last.code), last.reason)
	}
}

// clockPart starts the time that a message under way may take, or ends it.
func (s *session) clockPart() {
	partial, since := s.parser.Partial(), s.partAt.Load()
	switch {
	case partial && since == 0:
		now := s.e.wheel.now()
		s.partAt.Store(uint32(now))
		s.e.wheel.hasten(s, now+s.e.wheel.assembly)
	case !partial && since != 0:
		s.partAt.Store(0)
	}
}

// resumed is the reader's: the handler and its replies are done, if they are. Deadlines that did not run begin now.
func (s *session) resumed() bool {
	if !s.busy.Load() || !s.done.Swap(false) {
		return false
	}
	if s.ping.Load() == pingWritten {
		s.pingAt.Store(uint32(s.e.wheel.now()))
	}
	s.busy.Store(false)
	s.clockPart()
	return true
}

// add keeps a message; rest is what was read behind it.
func (in *inbox) add(ev wire.Event, rest int) {
	if ev.Owned {
		in.frames = append(in.frames, delivered{ev.Data, ev.Kind == wire.Binary})
		return
	}
	if in.buf == nil {
		in.buf = make([]byte, 0, len(ev.Data)+rest) // room for all that can follow in this read
	}
	start := len(in.buf)
	in.buf = append(in.buf, ev.Data...)
	in.frames = append(in.frames, delivered{in.buf[start:len(in.buf):len(in.buf)], ev.Kind == wire.Binary})
}
