package hub

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// Session is one connection as the hub knows it. Its exported methods may be called from any goroutine; none but Join and
// AwaitJoins waits. After the session's end they do nothing.
type Session struct {
	// What every delivery looks at lies together. Static but for what is marked as the shard's.
	w        Writer
	sh       *shard
	mode     uint8  // the shard's, as the four below
	corked   bool   // more own frames follow at once: they go out in one write
	code     uint16 // with which the hub itself closed it; 0: it did not
	resuming int16  // rooms that hold others back until they stand
	waits    int16  // rooms that wait: to be live, or for history

	ID   string
	User string // of an anonymous session its ID

	here    Presence                // nil: nobody asks where it is
	owed    atomic.Int32            // bytes of own frames posted and not written
	over    atomic.Bool             // they passed the budget: the session is being cut
	opening atomic.Pointer[joining] // nil: the joins of Open stand

	mu    sync.Mutex // guards the list's shape: the shard changes it, others look through it
	first *member    // rooms joined, or being joined

	// the shard's
	anchor    *member // whose position frames without a room carry
	rest      []byte  // what is still to be written of a room's frame
	own       []byte  // stamped own frames not yet written
	progress  int64   // Unix ms when it blocked, or took its last byte since
	behindAt  int64   // since when some room has been behind; 0: none is
	closingAt int64
}

const (
	modeBlocked uint8 = 1 << iota // the socket is full
	modeHeld                      // rooms resume or wait: only flush knows the order
	modeClosing                   // the close frame is queued
	modeDead                      // nothing can be written any more
	modeGone                      // released
	modeReply                     // the writer is to read on when own frames are written
	modeShut                      // the writer was told to end its direction
)

// member is a session in a room. The shard's, but for what is said otherwise.
type member struct {
	s   *Session
	pos int64            // number of the next entry to be written
	at  message.Position // stored position delivered: what a frame of the room's carries
	lag uint8

	in   bool    // it is a member, not only to be one. Changed under the session's and the room's lock
	sees bool    // presence entries. Changed under the room's lock
	heir bool    // the session's anchor when that is left
	idx  int32   // in the table's members
	park int32   // in the table's parked list; -1: does not wait
	gen  uint32  // the log's falls when it got its place from the log
	res  *resume // until it stands at its join head

	r    *room
	next *member // in the session's list, guarded by its lock
}

const (
	lagBehind uint8 = 1 << iota // counted in room.behind
	lagLate                     // counted in room.late
	lagSlow                     // was late for longer than it may count
	lagAhead                    // it has seen more elsewhere than the log has yet: what comes up to its place it has
)

// resume is what a member needs until it stands.
type resume struct {
	call     *joining
	frame    *frame.Subscribed // nil: no answer is wanted
	from     message.ID
	asked    bool // something is to be replayed
	holds    bool // other rooms wait for it
	since    int64
	join     int64 // the room's head at the join
	behind   int64 // number behind the resume's place: belated entries before it are known
	replayed int
	gap      message.GapReason
	oldest   message.ID
}

// joining counts joins that do not stand yet.
type joining struct {
	left atomic.Int32
	done chan struct{}
	err  atomic.Bool // the session ended before
}

func newJoining(n int) *joining {
	j := &joining{done: make(chan struct{})}
	if j.left.Store(int32(n)); n == 0 {
		close(j.done)
	}
	return j
}

func (j *joining) one() bool {
	if j.left.Add(-1) == 0 {
		close(j.done)
		return true
	}
	return false
}

// Open describes a new session.
type Open struct {
	ID, User string
	Writer   Writer
	Anchor   message.Room // the first room of the URL; else the user's room or Global. One of Joins
	Fallback message.Room // the user's room; Global for an anonymous session. One of Joins
	Preface  []byte       // raw bytes that go before the welcome: what completes a handshake
	Welcome  []byte       // rendered, written before anything else; empty: none
	Joins    []Join       // all count as resuming until they stand
	Presence Presence     // told of the session's memberships; nil: nobody
}

// Presence is told where a session is a member. The session's shard calls it, which must not wait: each Joined is followed by
// one Left.
type Presence interface {
	Joined(room message.Room)
	// Left: closed tells a session that ended from one that left the room.
	Left(room message.Room, closed bool)
}

// Join describes a join.
type Join struct {
	Room     message.Room
	From     message.ID        // with Resume: what follows it is replayed. Without low half it is inexact: 30 s were taken off
	Resume   bool              // else: from now
	Frame    *frame.Subscribed // the answer, completed and sent when the member stands; nil: none
	Presence bool              // sees presence entries
}

// Open begins a session; ErrClosed after the hub's end. The writer's Resume is called once the joins stand.
func (h *Hub) Open(o Open) (*Session, error) {
	s := &Session{ID: o.ID, User: o.User, here: o.Presence, w: o.Writer, sh: h.shards[h.next.Add(1)%uint32(len(h.shards))]}
	call := newJoining(len(o.Joins))
	s.opening.Store(call)
	ms := s.ask(o.Joins, call, true)
	for _, m := range ms {
		if m.r.name == o.Anchor {
			s.anchor = m
		}
		m.heir = m.r.name == o.Fallback
		m.next, s.first = s.first, m
	}
	if s.anchor == nil {
		s.anchor = s.heir()
	}
	if !s.sh.post(event{kind: evOpen, s: s, b: o.Welcome, preface: o.Preface, ms: ms}) {
		s.refuse(ms)
		return nil, ErrClosed
	}
	h.stats.sessions.Add(1)
	return s, nil
}

// ask makes the members of joins and has their rooms subscribed.
func (s *Session) ask(js []Join, call *joining, opening bool) []*member {
	ms := make([]*member, len(js))
	h := s.sh.h
	old := h.Past() // until its head is known
	for i, j := range js {
		m := &member{s: s, r: h.acquire(j.Room), at: old, park: -1, idx: -1, sees: j.Presence}
		m.res = &resume{call: call, frame: j.Frame, from: j.From, asked: j.Resume, holds: opening || j.Resume, since: s.sh.clock.Load()}
		if j.Resume {
			m.at = j.From.Position
		}
		ms[i] = m
	}
	return ms
}

// From is where a room goes on behind id: exactly there if it is one of the room's, else inexactly.
func From(room message.Room, id message.ID) message.ID {
	if id.Low.Tag() != room.Tag() {
		return message.ID{Position: id.Position.Before(Inexact)}
	}
	return id
}

// Past is where a session stands that knows no position yet: 30 s back, but never before this hub: nothing older is owed to
// it, and no broker need vouch for it.
func (h *Hub) Past() message.Position {
	return max(h.feed.Now().Before(Inexact), message.Position(h.born.Load()))
}

func (s *Session) refuse(ms []*member) {
	for _, m := range ms {
		m.res.call.err.Store(true)
		m.res.call.one()
		s.sh.h.release(m.r)
	}
}

// Join asks for rooms and waits until each stands: has its join head. A room already joined is answered again, nothing is
// replayed. ErrClosed if the session ends meanwhile; ctx's error if that ends first, and the joins go on.
func (s *Session) Join(ctx context.Context, js []Join) error {
	call := newJoining(len(js))
	ms := s.ask(js, call, false)
	if !s.sh.post(event{kind: evJoin, s: s, ms: ms}) {
		s.refuse(ms)
		return ErrClosed
	}
	return call.wait(ctx)
}

// AwaitJoins waits until the joins of Open stand.
func (s *Session) AwaitJoins(ctx context.Context) error {
	if call := s.opening.Load(); call != nil {
		return call.wait(ctx)
	}
	return nil
}

func (j *joining) wait(ctx context.Context) error {
	select {
	case <-j.done:
		if j.err.Load() {
			return ErrClosed
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave ends a membership. f, a rendered frame, goes out behind what was written of the room; nothing of the room follows.
func (s *Session) Leave(room message.Room, f []byte) {
	s.owed.Add(int32(len(f)))
	s.sh.post(event{kind: evLeave, s: s, name: room, b: f})
}

// See says whether the session sees presence entries of a room from now on.
func (s *Session) See(room message.Room, sees bool) {
	kind := evUnsee
	if sees {
		kind = evSee
	}
	s.sh.post(event{kind: kind, s: s, name: room})
}

// Send posts an own frame: with an id, which the shard stamps for room ("": the session's anchor), or one that has none. f is
// the hub's from here on. A session that lets too many bytes of own frames pile up is closed as slow.
func (s *Session) Send(room message.Room, f []byte) {
	if int(s.owed.Add(int32(len(f)))) > s.sh.h.cfg.OwnFrameBytes {
		if !s.over.Swap(true) {
			s.sh.post(event{kind: evOver, s: s})
		}
		return
	}
	s.sh.post(event{kind: evOwn, s: s, name: room, b: f})
}

// Done ends a handler's run: Writer.Resume follows once the own frames posted before are written.
func (s *Session) Done() { s.sh.post(event{kind: evDone, s: s}) }

// Close queues the rendered close frame as the last frame; nothing of any room follows. Then Writer.Shut is called.
func (s *Session) Close(f []byte) { s.sh.post(event{kind: evClose, s: s, b: f}) }

// Writable says that the socket has room again.
func (s *Session) Writable() { s.sh.post(event{kind: evWritable, s: s}) }

// Gone says that nobody reads the descriptor any more. Memberships end and Writer.Release is called.
func (s *Session) Gone() { s.sh.post(event{kind: evGone, s: s}) }

// Joined tells whether the session is a member of the room: its join stands.
func (s *Session) Joined(room message.Room) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.findLocked(room)
	return m != nil && m.in
}

// Rooms lists the ordinary rooms the session is a member of.
func (s *Session) Rooms() (names []message.Room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m := s.first; m != nil; m = m.next {
		if m.in && m.r.name.Ordinary() {
			names = append(names, m.r.name)
		}
	}
	return names
}

// heir is what takes the place of the anchor, if the session is in it. The shard, or Open, calls it.
func (s *Session) heir() *member {
	for m := s.first; m != nil; m = m.next {
		if m.heir {
			return m
		}
	}
	return nil
}

func (s *Session) findLocked(name message.Room) *member {
	for m := s.first; m != nil; m = m.next {
		if m.r.name == name {
			return m
		}
	}
	return nil
}
