package edge

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"sync/atomic"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/wire"
)

// session is all that stays of an idle connection. Who it is and where it is a member is the hub's (h); the rest is
// grouped by who may touch it. Two own the socket and no lock is between them: the reader (the poller, or the portable
// path's goroutine) reads, the session's shard writes and closes.
type session struct {
	// static once the reader has it. What every write looks at comes first, and so lies together.
	e      *Edge
	pipe   *portable     // nil: the fast path
	fd     int32         // the fast path's; the shard closes it
	ping   atomic.Uint32 // pingNone, pingQueued or pingWritten; shared like the fields at the end
	gen    uint32        // tells events of an earlier owner of the number
	silent atomic.Bool   // has sent nothing for long: presence knows
	h      *hub.Session
	here   *presence.Session // nil: nobody is told
	conn   *Conn             // nil: no callbacks
	about  *about
	first  message.Room // what a frame without a room means; "": the URL named none

	// the handler's, of which there is one at a time
	use    *usage                      // nil until the session sends something
	grants atomic.Pointer[auth.Grants] // others read them

	anonymous bool  // static
	away      uint8 // why it is; guarded by the edge's lock for it

	// the reader's
	second  uint16 // in which the parser's allowance was given
	edge    bool   // there may be something to read
	fin     bool   // the peer has ended its side: a short read proves nothing, read to the end
	adopted bool   // read, or was once
	greeted bool   // a handler has run
	parser  wire.Parser
	junk    uint32 // bytes thrown away while closing

	// the wheel's, under its lock
	at         tick
	next, prev *session
	linked     bool

	// between the reader, the shard, the handler and the wheel
	busy    atomic.Bool   // the reader's word: a handler has what was read, nothing more is until it and its replies are done
	done    atomic.Bool   // the handler's: its run has ended
	closing atomic.Bool   // our close frame is on its way: what comes is thrown away
	blocked atomic.Bool   // the shard's: the socket is full. Who clears it posts Writable
	seen    atomic.Uint32 // tick of the last sign of life
	partAt  atomic.Uint32 // tick at which the message under way began; 0: none, or busy
	shutAt  atomic.Uint32 // tick at which our side was shut down; 0: it was not
	pingAt  atomic.Uint32 // tick at which it was written
	expires atomic.Uint32 // tick at which the token ends; 0: never
	warnAt  atomic.Uint32 // tick at which the session is told of it; 0: it was, or never
	spoke   atomic.Uint32 // tick of the last frame
}

var (
	_ hub.Writer = (*session)(nil)
	_ hub.Leaver = (*session)(nil)
)

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newSessionID makes 26 characters of 128 random bits: nobody guesses a session.
func newSessionID() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return lowerBase32.EncodeToString(raw[:])
}

var errDead = errors.New("socket dead")

// TryWrite implements hub.Writer.
func (s *session) TryWrite(b []byte) (n int, err error) {
	if s.pipe != nil {
		n, err = s.pipe.tryWrite(b)
	} else {
		n, err = s.send(b)
	}
	if n == len(b) {
		s.wrote()
	}
	return n, err
}

// Touch implements hub.Writer.
func (s *session) Touch() uint64 { return uint64(s.fd) }

// Resume implements hub.Writer. The hub also calls it when joins stand: only after a handler's run does it mean something.
func (s *session) Resume() {
	if !s.done.Load() {
		return
	}
	if s.pipe != nil {
		s.pipe.wakeReader()
	} else {
		s.e.poller.post(note{s: s, kind: noteResume})
	}
}

// Shut implements hub.Writer. From here on the wheel gives the peer its time to end the connection.
func (s *session) Shut(code int) {
	if !s.closing.Swap(true) {
		s.e.metrics.closed(CloseCode(code)) // it was not the edge that asked
		s.closes(CloseCode(code), CloseCode(code).reason())
	}
	s.shutAt.Store(uint32(s.e.wheel.now()))
	s.e.wheel.hasten(s, s.e.wheel.now()+s.e.wheel.close)
	if s.pipe != nil {
		s.pipe.shut()
	} else {
		s.shutdown()
		s.e.poller.post(note{s: s, kind: noteShut})
	}
}

// Release implements hub.Writer.
func (s *session) Release() {
	s.absent()
	if s.conn != nil {
		s.conn.released()
	}
	if s.pipe != nil {
		s.pipe.release()
		return
	}
	s.closeFD()
	s.e.departed(s)
}

// absent ends what counts the session.
func (s *session) absent() {
	if s.here != nil {
		s.here.Close()
	}
	if s.about.claim != nil {
		s.about.claim.Close()
	}
}

// cut ends the session without waiting for anything.
func (s *session) cut() {
	if s.pipe != nil {
		s.pipe.cut()
	} else {
		s.e.poller.post(note{s: s, kind: noteForget})
	}
}

// gone is the reader's last act: nobody reads the socket any more.
func (s *session) gone() {
	s.e.wheel.remove(s)
	if !s.closing.Swap(true) {
		s.e.metrics.closed(closeUnannounced)
	}
	if s.conn != nil {
		s.conn.gone()
	}
	s.h.Gone()
}

// departed: the session holds nothing any more, and neither do those it was counted for.
func (e *Edge) departed(s *session) {
	user := s.h.User
	if s.anonymous {
		user = ""
	}
	e.rise(user, s.about.from)
	e.released()
}

// released: the session holds nothing any more.
func (e *Edge) released() {
	e.sessions.Add(-1)
	select {
	case e.ended <- struct{}{}:
	default:
	}
}
