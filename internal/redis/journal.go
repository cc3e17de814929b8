package redis

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// What the journal keeps at most.
const (
	journalFor     = 15 * time.Second
	journalBytes   = 64 << 20
	journalEntries = 200_000
	writtenCost    = 160 // bytes of an entry besides its envelope
)

// journal is what this node has lately stored in Redis, in case Redis loses it. What is older than journalFor goes, but not
// while Redis is away: it may come back without it.
type journal struct {
	mu      sync.Mutex
	rooms   map[message.Room][]*written // as they were stored
	order   []*written                  // oldest first
	n       int
	bytes   int64
	dropped int64 // that went before their time
}

// written is an entry of the journal. It does not change.
type written struct {
	room      message.Room
	pos, prev message.Position
	env       string
	at        time.Duration // since the broker's start

	gone bool // it is in order only. Guarded by the journal's lock
}

func (w *written) identity() message.Low {
	return message.Low(binary.BigEndian.Uint64([]byte(w.env[:8])))
}

// add notes entries of a room and lets old ones go; keep: even those that are older than journalFor stay.
func (j *journal) add(ws []*written, now time.Duration, keep bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range ws {
		j.rooms[w.room] = append(j.rooms[w.room], w)
		j.order = append(j.order, w)
		j.n++
		j.bytes += int64(len(w.env)) + writtenCost
	}
	j.trim(now, keep)
}

// expire lets old entries go, but not those of rooms of which keep is true.
func (j *journal) expire(now time.Duration, keep func(message.Room) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.order = slices.DeleteFunc(j.order, func(w *written) bool {
		if !w.gone && w.at < now-journalFor && !keep(w.room) {
			j.remove(w, slices.Index(j.rooms[w.room], w))
		}
		return w.gone
	})
}

// trim lets go what is too much, and what is old unless keep is true; the lock is held.
func (j *journal) trim(now time.Duration, keep bool) {
	for len(j.order) > 0 {
		w := j.order[0]
		full := j.n > journalEntries || j.bytes > journalBytes
		old := !keep && w.at < now-journalFor
		if !w.gone && !full && !old {
			return
		}
		j.order[0] = nil
		j.order = j.order[1:]
		if w.gone {
			continue
		}
		if !old {
			j.dropped++
		}
		j.remove(w, slices.Index(j.rooms[w.room], w)) // it is the first, but for replies that came out of order
	}
}

// remove takes an entry out of its room; the lock is held.
func (j *journal) remove(w *written, i int) {
	w.gone = true
	j.n--
	j.bytes -= int64(len(w.env)) + writtenCost
	ws := j.rooms[w.room]
	if i == 0 {
		ws[0] = nil
		ws = ws[1:]
	} else {
		ws = slices.Delete(ws, i, i+1)
	}
	if j.rooms[w.room] = ws; len(ws) == 0 {
		delete(j.rooms, w.room)
	}
}

// forget takes out those entries of a room of which f is true.
func (j *journal) forget(name message.Room, f func(*written) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := 0; i < len(j.rooms[name]); {
		if w := j.rooms[name][i]; f(w) {
			j.remove(w, i)
		} else {
			i++
		}
	}
}

// cut forgets what was deleted.
func (j *journal) cut(name message.Room, upTo message.Position) {
	j.forget(name, func(w *written) bool { return w.pos <= upTo })
}

// names are the rooms it has entries of.
func (j *journal) names() []message.Room {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Sorted(maps.Keys(j.rooms))
}

// of are a room's entries by position.
func (j *journal) of(name message.Room) []*written {
	j.mu.Lock()
	ws := slices.Clone(j.rooms[name])
	j.mu.Unlock()
	slices.SortFunc(ws, func(a, b *written) int { return cmp.Compare(a.pos, b.pos) })
	return ws
}

// newest is the position of what was stored last in a room; 0: nothing is known.
func (j *journal) newest(name message.Room) message.Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ws := j.rooms[name]; len(ws) > 0 {
		return ws[len(ws)-1].pos
	}
	return 0
}

// record puts what a script has stored into the journal. If Redis stores behind less than it had stored before, it has lost
// something.
func (b *Broker) record(name message.Room, batch []*job, reply []string) {
	if b.retention(name).Messages < 0 {
		return
	}
	last, _ := parseStreamID(reply[0]) // readReply has read it before
	if prev := last; prev < b.journal.newest(name) {
		b.kick()
	}
	now := b.elapsed()
	var ws []*written
	for i, j := range batch {
		switch w := (&written{room: name, env: j.env, at: now}); {
		case strings.HasPrefix(reply[i+1], "+"):
			w.pos, _ = parseStreamID(reply[i+1][1:])
			w.prev, last = last, w.pos
			ws = append(ws, w)
		case strings.HasPrefix(reply[i+1], "="):
			at, before, _ := strings.Cut(reply[i+1][1:], "|")
			w.pos, _ = parseStreamID(at)
			w.prev, _ = parseStreamID(before)
			ws = append(ws, w)
		}
	}
	if len(ws) > 0 {
		b.journal.add(ws, now, b.away.Load())
	}
}
