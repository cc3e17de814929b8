package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

type eventKind uint8

const (
	evDirty    eventKind = iota // a room has news
	evStep                      // a traversal goes on
	evLive                      // a room is live: joins that waited
	evRefilled                  // a filler has put history in front
	evOpen
	evJoin
	evLeave
	evSee
	evUnsee
	evOwn
	evDone
	evClose
	evOver // too many own frames are not written
	evWritable
	evGone
	evWhere // somebody asks where sessions stand
)

// event is what reaches a shard: everything does, in one FIFO.
type event struct {
	kind eventKind
	s    *Session
	t    *table
	name message.Room
	b    []byte
	ms   []*member

	preface []byte
	q       *inquiry
}

// shard is the sole writer of its sessions and the sole owner of their places in rooms. A session belongs to one for life.
type shard struct {
	h  *Hub
	id int

	mu   sync.Mutex
	q    []event
	over bool
	wake chan struct{}

	clock atomic.Int64 // Unix ms, as of the last batch of events or tick

	// the goroutine's
	one     snap                  // for sessions flushed by themselves
	snaps   []*snap               // for traversals, to be used again
	watched map[*Session]struct{} // blocked, behind, waiting or closing
	late    []lateMember          // counted as late, oldest first
	n       tally
	seen    uint64 // what lookAhead has loaded: nobody reads it, but without it nothing need be loaded
}

type lateMember struct {
	m     *member
	until int64
}

const (
	sliceMembers = 64 // served in one go, half a millisecond; then others have a turn
	tickEvery    = 250 * time.Millisecond
)

func newShard(h *Hub, id int) *shard {
	sh := &shard{h: h, id: id, wake: make(chan struct{}, 1), watched: make(map[*Session]struct{})}
	sh.clock.Store(time.Now().UnixMilli())
	return sh
}

// post queues e; false: the shard has ended.
func (sh *shard) post(e event) bool {
	sh.mu.Lock()
	if sh.over {
		sh.mu.Unlock()
		return false
	}
	sh.q = append(sh.q, e)
	first := len(sh.q) == 1
	sh.mu.Unlock()
	if first {
		select {
		case sh.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (sh *shard) run(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	defer sh.end()
	var q []event
	ticked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sh.wake:
		case <-tick.C:
		}
		for {
			now := time.Now()
			sh.clock.Store(now.UnixMilli())
			if now.Sub(ticked) >= tickEvery {
				ticked = now
				sh.tick(now.UnixMilli())
			}
			sh.mu.Lock()
			q, sh.q = sh.q, q[:0]
			sh.mu.Unlock()
			if len(q) == 0 || ctx.Err() != nil {
				break
			}
			for i := range q {
				e := &q[i]
				if s := e.s; s != nil {
					s.corked = e.kind == evOwn && i+1 < len(q) && q[i+1].s == s && (q[i+1].kind == evOwn || q[i+1].kind == evDone)
				}
				sh.do(e)
			}
			clear(q)
			if cap(q) > maxIdleQueue {
				q = nil
			}
			sh.n.publish(&sh.h.stats)
		}
	}
}

// maxIdleQueue is how many events' room a shard keeps between bursts.
const maxIdleQueue = 4096

// end refuses what is queued, so that nobody waits for a shard that is gone.
func (sh *shard) end() {
	sh.mu.Lock()
	q := sh.q
	sh.q, sh.over = nil, true
	sh.mu.Unlock()
	for _, e := range q {
		if e.kind == evOpen || e.kind == evJoin {
			e.s.refuse(e.ms)
		}
		if e.kind == evWhere {
			e.q.ended.Store(true)
			e.q.answered()
		}
	}
}

func (sh *shard) do(e *event) {
	s := e.s
	if s != nil && s.mode&modeGone != 0 {
		if e.kind == evJoin {
			s.refuse(e.ms)
		}
		return
	}
	switch e.kind {
	case evDirty:
		sh.begin(e.t)
	case evStep:
		sh.step(e.t)
	case evLive:
		sh.live(e)
	case evRefilled:
		sh.refilled(e.t)
	case evOpen:
		sh.open(s, e.preface, e.b, e.ms)
	case evJoin:
		sh.join(s, e.ms)
	case evLeave:
		sh.leave(s, e.name, e.b)
	case evSee, evUnsee:
		sh.see(s, e.name, e.kind == evSee)
	case evOwn:
		sh.send(s, e.name, e.b)
	case evDone:
		s.mode |= modeReply
		sh.drain(s)
	case evClose:
		sh.close(s, e.b)
	case evOver:
		sh.cut(s, closeSlow, "slow consumer: own frames not read")
	case evWritable:
		if s.mode&modeBlocked != 0 {
			s.mode &^= modeBlocked
			sh.flush(s)
		}
	case evGone:
		sh.gone(s)
	case evWhere:
		sh.where(e.q)
	}
}

// send stamps an own frame and writes it, or queues it behind what is still to be written.
func (sh *shard) send(s *Session, name message.Room, f []byte) {
	if s.mode&(modeClosing|modeDead) != 0 {
		s.owed.Add(int32(-len(f)))
		return
	}
	if frame.HasID(f) {
		sh.stamp(s, name, f)
	}
	sh.queue(s, f)
}

// stamp gives an own frame its id: the place of its room's delivery, or of the anchor's.
func (sh *shard) stamp(s *Session, name message.Room, f []byte) {
	var m *member
	if name != "" {
		m = s.findLocked(name) // the shard alone changes the list
	}
	if m == nil {
		m = s.anchor
	}
	at, tag := message.Position(1), uint16(0)
	if m != nil {
		at, tag = m.at, m.r.tag
	}
	frame.Stamp(f, message.ID{Position: at, Low: sh.h.minter.Low(tag, true)})
}

// queue puts a stamped frame behind the session's other own frames and writes them if it can.
func (sh *shard) queue(s *Session, f []byte) {
	if len(s.own) == 0 {
		s.own = f
	} else {
		s.own = append(s.own, f...)
	}
	sh.drain(s)
}

// drain writes the rest of a half-written frame, then own frames. False: there is something left, or the session is at its end.
func (sh *shard) drain(s *Session) bool {
	if s.corked {
		return false
	}
	for s.mode&(modeBlocked|modeDead) == 0 && len(s.rest) > 0 {
		s.rest = s.rest[sh.write(s, s.rest):]
	}
	for s.mode&(modeBlocked|modeDead) == 0 && len(s.own) > 0 {
		n := sh.write(s, s.own)
		s.owed.Add(int32(-n))
		s.own = s.own[n:]
	}
	if s.mode&(modeBlocked|modeDead) != 0 {
		return false
	}
	s.rest, s.own = nil, nil
	if s.mode&modeClosing != 0 {
		sh.shut(s)
		return false
	}
	if s.mode&modeReply != 0 {
		s.mode &^= modeReply
		s.w.Resume()
	}
	return true
}

// write hands bytes to the socket and notes what that says of the session.
func (sh *shard) write(s *Session, b []byte) int {
	n, err := s.w.TryWrite(b)
	sh.n.writes++
	sh.n.bytes += uint64(n)
	if n == len(b) {
		return n // the common case touches nothing else
	}
	if err != nil {
		sh.die(s)
		return n
	}
	s.mode |= modeBlocked
	if n > 0 || s.behindAt == 0 { // it has taken something, or blocks just now
		s.progress = sh.clock.Load()
	}
	sh.watched[s] = struct{}{}
	return n
}

// die: the socket is dead, its writer has Gone called.
func (sh *shard) die(s *Session) {
	if s.mode&modeDead == 0 {
		s.mode |= modeDead
		sh.leaveAll(s)
		s.own, s.rest = nil, nil
	}
}

// close queues the last frame.
func (sh *shard) close(s *Session, f []byte) {
	if s.mode&(modeClosing|modeDead) != 0 {
		return
	}
	s.mode |= modeClosing
	sh.leaveAll(s)
	s.closingAt = sh.clock.Load()
	sh.watched[s] = struct{}{}
	s.owed.Add(int32(len(f)))
	sh.queue(s, f)
}

func (sh *shard) shut(s *Session) {
	if s.mode&modeShut == 0 {
		s.mode |= modeShut
		delete(sh.watched, s)
		s.w.Shut(int(s.code))
	}
}

func (sh *shard) gone(s *Session) {
	sh.leaveAll(s)
	s.mode |= modeGone | modeDead
	s.own, s.rest = nil, nil
	delete(sh.watched, s)
	sh.h.stats.sessions.Add(-1)
	s.w.Release()
}
