package hub

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// feed is a broker of one room list that a test can hold back, trim and break.
type feed struct {
	h      *Hub
	minter *message.Minter

	mu      sync.Mutex
	rooms   map[message.Room]*feedRoom
	now     message.Position
	hold    bool // Live does not come by itself
	broken  error
	page    int // entries of a page at most
	reads   int
	since   message.Position // what it vouches from; 0: from ever
	between func()           // runs while a page is being read
	leaving func()           // runs once, before a room is unsubscribed
	lost    bool             // what it has not any more it has lost
}

type feedRoom struct {
	entries    []message.Entry
	tip        message.Position
	subscribed bool
}

func (f *feed) room(name message.Room) *feedRoom {
	r := f.rooms[name]
	if r == nil {
		r = &feedRoom{}
		f.rooms[name] = r
	}
	return r
}

func (f *feed) Subscribe(name message.Room) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.hold {
		f.liveLocked(name)
	}
}

func (f *feed) live(name message.Room) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.liveLocked(name)
}

func (f *feed) liveLocked(name message.Room) {
	r := f.room(name)
	r.subscribed = true
	f.h.Live(name, r.tip, false)
}

// set changes the feed's behaviour.
func (f *feed) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *feed) Unsubscribe(name message.Room) {
	f.mu.Lock()
	if leaving := f.leaving; leaving != nil {
		f.leaving = nil
		f.mu.Unlock()
		leaving()
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	f.room(name).subscribed = false
}

func (f *feed) Now() message.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nowLocked()
}

func (f *feed) nowLocked() message.Position {
	f.now = max(f.now, message.At(time.Now().UnixMilli()-1, 4095))
	return f.now
}

func (f *feed) History(_ context.Context, q message.Query) (p message.Page, err error) {
	f.mu.Lock()
	f.reads++
	r := f.room(q.Room)
	p.Tip, p.Since, p.Lost = r.tip, max(f.since, 1), f.lost
	limit := q.Limit
	if f.page > 0 {
		limit = min(limit, f.page)
	}
	for _, e := range slices.Backward(r.entries) {
		if e.Message.ID.Position < q.From {
			if len(p.Entries) == limit {
				p.More = true
				break
			}
			p.Entries = append([]message.Entry{e}, p.Entries...)
		}
	}
	between := f.between
	err = f.broken
	f.mu.Unlock()
	if between != nil {
		between()
	}
	return p, err
}

// publish stores a message, or, ephemeral, only hands it on.
func (f *feed) publish(name message.Room, data string, change ...func(*message.Message)) message.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.room(name)
	m := &message.Message{Type: "chat", Room: name, From: "u", Data: []byte(data), Timestamp: time.Now().UnixMilli()}
	for _, c := range change {
		c(m)
	}
	m.ID.Low = f.minter.Low(name.Tag(), m.Ephemeral)
	e := message.Entry{Message: m}
	if m.Ephemeral {
		e.Flags = message.Ephemeral
		if m.ID.Position = r.tip; r.tip == 0 {
			m.ID.Position = f.nowLocked()
		}
	} else {
		f.now = max(f.nowLocked(), r.tip) + 1
		m.ID.Position, e.Prev, r.tip = f.now, r.tip, f.now
		r.entries = append(r.entries, e)
	}
	if r.subscribed {
		f.h.Append(e)
	}
	return m.ID
}

// socket is a Writer whose peer reads only when told to.
type socket struct {
	mu       sync.Mutex
	s        *Session
	limit    int // bytes the peer has not read; 0: no bound
	full     bool
	buf      []byte // not read yet
	broken   bool
	breakOn  string // the first write with these bytes finds the socket dead
	shut     bool
	code     int // that Shut named
	resumed  int
	released int
}

func (w *socket) TryWrite(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken || w.breakOn != "" && strings.Contains(string(b), w.breakOn) {
		w.broken = true
		return 0, errors.New("broken")
	}
	n := len(b)
	if w.limit > 0 {
		n = min(n, w.limit-len(w.buf))
	}
	w.buf = append(w.buf, b[:n]...)
	w.full = n < len(b)
	return n, nil
}

func (w *socket) Touch() uint64 { return 0 }

func (w *socket) Resume() { w.mu.Lock(); w.resumed++; w.mu.Unlock() }

func (w *socket) Shut(code int) { w.mu.Lock(); w.shut, w.code = true, code; w.mu.Unlock() }

func (w *socket) Release() { w.mu.Lock(); w.released++; w.mu.Unlock() }

// read takes up to n bytes off, and says that there is room again.
func (w *socket) read(n int) []byte {
	w.mu.Lock()
	n = min(n, len(w.buf))
	b := append([]byte(nil), w.buf[:n]...)
	w.buf = w.buf[n:]
	full := w.full && n > 0
	if full {
		w.full = false
	}
	w.mu.Unlock()
	if full {
		w.s.Writable()
	}
	return b
}

func (w *socket) isShut() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.shut }

func (w *socket) releases() int { w.mu.Lock(); defer w.mu.Unlock(); return w.released }

// got is one frame a peer has read.
type got struct {
	frame.Out
	Event string
	Code  int // of a close frame
}

// peer reads a session's frames.
type peer struct {
	t    testing.TB
	w    *socket
	part []byte
	all  []got
}

// take reads up to n bytes and returns all frames so far.
func (p *peer) take(n int) []got {
	p.t.Helper()
	p.part = append(p.part, p.w.read(n)...)
	for {
		size, op, ok := frameSize(p.part)
		if !ok || len(p.part) < size {
			return p.all
		}
		f := p.part[:size]
		p.part = p.part[size:]
		switch op {
		case 1:
			o, err := frame.DecodeOut(frame.Payload(f))
			if err != nil {
				p.t.Fatalf("frame %q: %v", f, err)
			}
			g := got{Out: o}
			if _, rest, ok := strings.Cut(string(o.Data), `"event":"`); ok && o.Type == "system" {
				g.Event, _, _ = strings.Cut(rest, `"`)
			}
			p.all = append(p.all, g)
		case 8:
			pl := frame.Payload(f)
			p.all = append(p.all, got{Code: int(pl[0])<<8 | int(pl[1])})
		}
	}
}

func frameSize(b []byte) (n, op int, ok bool) {
	if len(b) < 2 {
		return 0, 0, false
	}
	op, n = int(b[0]&15), int(b[1]&127)
	switch {
	case n == 126:
		if len(b) < 4 {
			return 0, 0, false
		}
		return 4 + int(b[2])<<8 + int(b[3]), op, true
	case n == 127:
		if len(b) < 10 {
			return 0, 0, false
		}
		return 10 + int(b[6])<<24 + int(b[7])<<16 + int(b[8])<<8 + int(b[9]), op, true
	}
	return 2 + n, op, true
}

// rig is a running hub over a feed, inside a bubble.
type rig struct {
	*feed
	t   *testing.T
	ctx context.Context
}

func inBubble(t *testing.T, cfg Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if cfg.Shards == 0 {
			cfg.Shards = 2
		}
		fd := &feed{rooms: make(map[message.Room]*feedRoom), minter: message.NewMinter(7)}
		fd.h = New(cfg, fd, fd.minter, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // t.Context is ended outside the bubble
		done := make(chan error, 1)
		go func() { done <- fd.h.Run(ctx) }()
		synctest.Wait()
		f(&rig{fd, t, ctx})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// open opens a session that joins rooms from now, or with the ids given.
func (r *rig) open(limit int, last map[message.Room]string, rooms ...message.Room) *peer {
	r.t.Helper()
	return r.begin(limit, last, nil, rooms...)
}

// begin is open, and somebody is told where the session is.
func (r *rig) begin(limit int, last map[message.Room]string, here Presence, rooms ...message.Room) *peer {
	r.t.Helper()
	w := &socket{limit: limit}
	o := Open{ID: "s", User: "s", Writer: w, Anchor: message.Global, Fallback: message.Global, Welcome: frame.Welcome{Session: "s"}.Append(nil, 0), Presence: here}
	for i, room := range append(rooms, message.Global) {
		j := Join{Room: room, Frame: &frame.Subscribed{Room: room}}
		if room == message.Global {
			j.Frame = nil
		} else if i == 0 {
			o.Anchor = room
		}
		if id, ok := message.ParseID(last[room]); ok {
			j.From, j.Resume = id, true
		}
		o.Joins = append(o.Joins, j)
	}
	s, err := r.h.Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	w.s = s
	synctest.Wait()
	return &peer{t: r.t, w: w}
}

// drain reads all there is until nothing more comes.
func (p *peer) drain() []got {
	p.t.Helper()
	for {
		n := len(p.all)
		k := len(p.part)
		p.take(1 << 20)
		synctest.Wait()
		p.w.mu.Lock()
		left := len(p.w.buf)
		p.w.mu.Unlock()
		if len(p.all) == n && len(p.part) == k && left == 0 {
			return p.all
		}
	}
}

// chats are the messages of a room among frames.
func chats(gs []got, room message.Room) (out []string) {
	for _, g := range gs {
		if g.Type == "chat" && message.Room(g.Room) == room {
			out = append(out, string(g.Data))
		}
	}
	return out
}

func events(gs []got) (out []string) {
	for _, g := range gs {
		if g.Event != "" {
			out = append(out, g.Event)
		}
	}
	return out
}
