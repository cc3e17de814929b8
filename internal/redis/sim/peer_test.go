package sim

import (
	"errors"
	"sync"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// line is a frame that somebody has read.
type line struct {
	at     time.Duration
	conn   int // over which of his connections
	room   message.Room
	id     message.ID
	from   string
	number string
	event  frame.Event // of the server's own
}

// peer is somebody with one connection after the other, who resumes from what he has read.
type peer struct {
	w     *world
	name  string
	rooms []message.Room
	sock  *socket
	conns int
	ends  map[int]time.Duration // of those connections that were cut
	part  []byte
	last  map[message.Room]message.ID
	lines []line
	stood map[message.Room]bool // his first join of it
}

// socket is a connection whose peer reads at once, or not at all.
type socket struct {
	p *peer

	mu      sync.Mutex
	s       *hub.Session
	stalled bool // nothing is read
	full    bool
	dead    bool
	unread  []byte
	limit   int
}

var errBroken = errors.New("broken pipe")

// TryWrite implements hub.Writer.
func (k *socket) TryWrite(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return 0, errBroken
	}
	n := len(b)
	if k.stalled {
		n = min(n, max(0, k.limit-len(k.unread)))
	}
	k.unread = append(k.unread, b[:n]...)
	k.full = n < len(b)
	if !k.stalled {
		k.p.read(k.unread)
		k.unread = k.unread[:0]
	}
	return n, nil
}

// Touch, Resume, Shut and Release implement hub.Writer.
func (k *socket) Touch() uint64 { return 0 }
func (k *socket) Resume()       {}

func (k *socket) Shut(code int) {
	k.p.w.say("%s: closed with %d", k.p.name, code)
	k.p.w.t.Errorf("%s was closed with %d", k.p.name, code)
}

func (k *socket) Release() {}

// stall stops reading.
func (k *socket) stall(limit int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stalled, k.limit = true, limit
}

// unstall reads on.
func (k *socket) unstall() {
	k.mu.Lock()
	full, s := k.full, k.s
	k.stalled, k.full = false, false
	k.p.read(k.unread)
	k.unread = nil
	k.mu.Unlock()
	if full {
		s.Writable()
	}
}

// connect opens a connection to a node, with what was read last in each room.
func (p *peer) connect(n *node) {
	p.conns++
	p.part = nil
	k := &socket{p: p}
	o := hub.Open{ID: p.name, User: p.name, Writer: k, Anchor: p.rooms[0], Fallback: message.Global}
	for _, room := range p.rooms {
		j := hub.Join{Room: room, Frame: &frame.Subscribed{Room: room}}
		if id, ok := p.last[room]; ok {
			j.From, j.Resume = hub.From(room, id), true
		}
		o.Joins = append(o.Joins, j)
	}
	o.Joins = append(o.Joins, hub.Join{Room: message.Global})
	p.w.say("%s connects to %s from %s", p.name, n.name, where(p.last[p.rooms[0]]))
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := n.hub.Open(o)
	if err != nil {
		p.w.t.Errorf("%s: Open = %v", p.name, err)
		return
	}
	k.s, p.sock = s, k
}

// cut ends the connection. What was not read is gone.
func (p *peer) cut(end bool) {
	k := p.sock
	if k == nil {
		return
	}
	p.ends[p.conns] = p.w.elapsed()
	if !end {
		p.w.say("%s is cut at %s", p.name, where(p.last[p.rooms[0]]))
	}
	k.mu.Lock()
	k.dead = true
	k.mu.Unlock()
	k.s.Gone()
	p.sock = nil
}

// read takes bytes; the socket's lock is held.
func (p *peer) read(b []byte) {
	p.part = append(p.part, b...)
	for {
		n, text := frameSize(p.part)
		if n == 0 || n > len(p.part) {
			return
		}
		if text {
			p.take(p.part[:n])
		}
		p.part = p.part[n:]
	}
}

// frameSize is the length of the frame that begins here, and whether it is text; 0: that is not known yet.
func frameSize(b []byte) (n int, text bool) {
	if len(b) < 4 {
		return 0, false
	}
	if n = int(b[1] & 127); n == 126 {
		n = 2 + int(b[2])<<8 + int(b[3])
	}
	return 2 + n, b[0]&15 == 1
}

func (p *peer) take(f []byte) {
	o, err := frame.DecodeOut(append([]byte(nil), frame.Payload(f)...))
	if err != nil {
		p.w.t.Errorf("%s: frame %q: %v", p.name, f, err)
		return
	}
	l := line{at: p.w.elapsed(), conn: p.conns, room: message.Room(o.Room), id: o.ID, from: o.From, number: string(o.Data)}
	l.event, _ = o.Event()
	if l.event.Name == "subscribed" {
		p.stood[l.room] = true
	}
	if l.room != "" {
		p.last[l.room] = l.id
	}
	p.lines = append(p.lines, l)
	if l.event.Name == "" {
		p.w.say("%s reads %s %s/%s", p.name, where(l.id), l.from, l.number)
	} else {
		p.w.say("%s is told %s %s %s %s", p.name, l.event.Name, l.event.Reason, where(l.event.After), where(l.event.Before))
	}
}
