package bench

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// fake is a server that keeps the promises except where a test says otherwise.
type fake struct {
	realtimev1.UnimplementedPublisherServiceServer
	t      *testing.T
	ws     string
	grpc   string
	minter *message.Minter

	mu      sync.Mutex
	rooms   map[string]*fakeRoom
	changed chan struct{} // closed and renewed with every publish
	joined  int           // connections so far

	// What tests change.
	refuse func(n int) int                                                                 // HTTP status for the n-th connection; 0: none
	send   func(c *fakeConn, i int)                                                        // sends message i of the connection's room
	from   func(c *fakeConn, last message.ID) int                                          // where a resume begins
	id     func(m *message.Message)                                                        // changes the id that is shown and receipted
	taken  func(n int, r *realtimev1.PublishResponse) (*realtimev1.PublishResponse, error) // changes the n-th answer
	took   int
}

type fakeRoom struct {
	name     message.Room
	messages []*message.Message
}

// fakeConn is one connection.
type fakeConn struct {
	f      *fake
	ctx    context.Context //nolint:containedctx // of the handler
	ws     *websocket.Conn
	room   *fakeRoom
	number int // of the connection, from 0
	last   message.Position
	resume bool
	later  *time.Timer // a test's
}

// newFake starts a server; set changes it before.
func newFake(t *testing.T, set ...func(f *fake)) *fake {
	f := &fake{t: t, minter: message.NewMinter(1), rooms: map[string]*fakeRoom{}, changed: make(chan struct{})}
	f.send = func(c *fakeConn, i int) { c.message(i) }
	f.from = (*fakeConn).after
	f.id = func(*message.Message) {}
	for _, s := range set {
		s(f)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.ws = strings.TrimPrefix(srv.URL, "http://")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.grpc = l.Addr().String()
	g := grpc.NewServer()
	realtimev1.RegisterPublisherServiceServer(g, f)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); wg.Wait() })
	return f
}

func (f *fake) room(name string) *fakeRoom {
	if f.rooms[name] == nil {
		f.rooms[name] = &fakeRoom{name: message.Room(name)}
	}
	return f.rooms[name]
}

// Publish takes a message.
func (f *fake) Publish(_ context.Context, req *realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rm := f.room(req.GetRoom())
	m := &message.Message{Type: message.TypeChat, Room: rm.name, Data: []byte(req.GetMessage().GetData()), Timestamp: time.Now().UnixMilli()}
	m.ID = message.ID{Position: message.At(m.Timestamp, 0), Low: f.minter.Low(rm.name.Tag(), false)}
	if n := len(rm.messages); n > 0 {
		m.ID.Position = max(m.ID.Position, rm.messages[n-1].ID.Position.Next())
	}
	f.id(m)
	rm.messages = append(rm.messages, m)
	close(f.changed)
	f.changed = make(chan struct{})
	resp := &realtimev1.PublishResponse{Receipt: &realtimev1.Receipt{Id: m.ID.String(), Room: req.GetRoom()}}
	if f.taken == nil {
		return resp, nil
	}
	f.took++
	return f.taken(f.took-1, resp)
}

// ServeHTTP is one connection from beginning to end.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := f.joined
	f.joined++
	f.mu.Unlock()
	if f.refuse != nil {
		if code := f.refuse(n); code != 0 {
			http.Error(w, `{"error":{"code":"not_permitted"}}`, code)
			return
		}
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	f.mu.Lock()
	c := &fakeConn{f: f, ctx: ws.CloseRead(r.Context()), ws: ws, number: n, room: f.room(strings.TrimPrefix(r.URL.Path, "/ws/"))}
	next := len(c.room.messages)
	c.last = message.At(time.Now().UnixMilli()-1, 0)
	if next > 0 {
		c.last = c.room.messages[next-1].ID.Position
	}
	last, ok := message.ParseID(r.URL.Query().Get("last_id"))
	head := next
	if ok {
		next, c.resume, c.last = f.from(c, last), true, last.Position
	}
	f.mu.Unlock()
	c.own(frame.Welcome{Session: "s", User: "s", Node: "fake", PingMS: 25000, MaxFrame: 65536, MaxRooms: 128}.Append(nil, 0))
	for ; next < head; next++ {
		f.send(c, next)
	}
	c.own(frame.Subscribed{Room: c.room.name, Presence: "off", Grants: "rw", Resumed: c.resume, Recovered: true, LastID: message.ID{Position: c.last, Low: f.minter.Low(c.room.name.Tag(), true)}}.Append(nil, 0))
	for {
		f.mu.Lock()
		have, changed := len(c.room.messages), f.changed
		f.mu.Unlock()
		for ; next < have; next++ {
			f.send(c, next)
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return
		}
	}
}

// after is the place behind an id in the connection's room, as the protocol has it: exact for an id of the room, else 30
// seconds back. The fake is locked.
func (c *fakeConn) after(last message.ID) int {
	p := last.Position
	if last.Low.Tag() != c.room.name.Tag() {
		p = p.Before(30 * time.Second)
	}
	i := 0
	for i < len(c.room.messages) && c.room.messages[i].ID.Position <= p {
		i++
	}
	return i
}

func (c *fakeConn) at(i int) *message.Message {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if i >= len(c.room.messages) {
		return nil
	}
	return c.room.messages[i]
}

// message sends message i; one that is not there yet is not sent.
func (c *fakeConn) message(i int) {
	if m := c.at(i); m != nil {
		c.write(frame.AppendMessage(nil, m))
		c.last = m.ID.Position
	}
}

// own sends an own frame with the id of where the connection stands.
func (c *fakeConn) own(b []byte) { c.stamped(b, c.room.name) }

func (c *fakeConn) stamped(b []byte, room message.Room) {
	frame.Stamp(b, message.ID{Position: c.last, Low: c.f.minter.Low(room.Tag(), true)})
	c.write(b)
}

func (c *fakeConn) write(b []byte) {
	_ = c.ws.Write(c.ctx, websocket.MessageText, frame.Payload(b)) // the peer may have gone
}

// command is a short run against the fake: 12 sessions in 2 rooms, 3 publishers.
func (f *fake) command() *Command {
	return &Command{
		WS: []string{f.ws}, Addr: []string{f.grpc}, Sessions: 12, Rooms: 2, Publishers: 3, Rate: 300, Size: 128, Seed: 1,
		Warmup: 50 * time.Millisecond, Duration: 400 * time.Millisecond, Settle: 400 * time.Millisecond, progress: f.t.Output(),
	}
}

// bench runs c and returns the result; the error is the verdict.
func (c *Command) bench(t *testing.T) (*Report, error) {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := c.prepare()
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r, r.verdict()
}
