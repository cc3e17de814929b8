package hub

import (
	"context"
	"sync/atomic"

	"github.com/slack5/realtime/internal/message"
)

// Place is where a session stands in an ordinary room.
type Place struct {
	Room     message.Room
	Position message.ID // of the last message written to the session
	Lag      int64      // entries of the room's log that are still to be written
}

// Whereabouts is where a session stands.
type Whereabouts struct {
	Places       []Place
	BlockedSince int64 // Unix ms since when its socket takes no bytes; 0: it takes them
	Ended        bool
}

// inquiry is what Where asks of one shard: some sessions, and where what is found goes.
type inquiry struct {
	sessions []*Session
	found    []*Whereabouts
	left     *atomic.Int32 // inquiries under way; the last one closes done
	done     chan struct{}
	ended    *atomic.Bool // a shard has ended without an answer
}

func (q *inquiry) answered() {
	if q.left.Add(-1) == 0 {
		close(q.done)
	}
}

// Where asks the shards where the sessions stand, in the order of the list. Shards come to it between other work, some
// sessions at a time. ErrClosed after the hub's end.
func (h *Hub) Where(ctx context.Context, sessions []*Session) ([]Whereabouts, error) {
	all := make([]Whereabouts, len(sessions))
	var qs []*inquiry
	var left atomic.Int32
	var ended atomic.Bool
	done := make(chan struct{})
	open := make(map[*shard]*inquiry)
	for i, s := range sessions {
		q := open[s.sh]
		if q == nil || len(q.sessions) == sliceMembers {
			q = &inquiry{left: &left, done: done, ended: &ended}
			open[s.sh] = q
			qs = append(qs, q)
		}
		q.sessions, q.found = append(q.sessions, s), append(q.found, &all[i])
	}
	if len(qs) == 0 {
		return all, nil
	}
	left.Store(int32(len(qs)))
	for _, q := range qs {
		if !q.sessions[0].sh.post(event{kind: evWhere, q: q}) {
			ended.Store(true)
			q.answered()
		}
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if ended.Load() {
		return nil, ErrClosed
	}
	return all, nil
}

// where answers an inquiry.
func (sh *shard) where(q *inquiry) {
	defer q.answered()
	for i, s := range q.sessions {
		w := q.found[i]
		if s.mode&(modeGone|modeDead) != 0 {
			w.Ended = true
			continue
		}
		if s.mode&modeBlocked != 0 {
			w.BlockedSince = s.progress
		}
		for m := s.first; m != nil; m = m.next {
			if !m.in || !m.r.name.Ordinary() {
				continue
			}
			head := m.pos // of a quiet room, which has no log
			m.r.mu.Lock()
			if m.r.body != nil {
				head = m.r.log.head
			}
			m.r.mu.Unlock()
			w.Places = append(w.Places, Place{
				Room: m.r.name, Position: message.ID{Position: m.at, Low: sh.h.minter.Low(m.r.tag, true)}, Lag: max(head-m.pos, 0),
			})
		}
	}
}
