package realtime_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/slack5/realtime/pkg/realtime"
)

func TestCallbacksSeeASessionsLifeAsOneConnection(t *testing.T) {
	var n told
	var conns sync.Map // realtime.Connection
	p := start(t).with(realtime.HandlerConfig{
		OnConnect: func(c realtime.Connection) {
			rooms := c.Rooms()
			slices.Sort(rooms)
			n.add("connect " + strings.Join(rooms, "+"))
			conns.Store(c, c.UserID() == c.ID())
		},
		OnMessage: func(c realtime.Connection, msg *realtime.Message) *realtime.Message {
			_, known := conns.Load(c)
			n.add("message " + strconv.FormatBool(known && msg.From == c.UserID() && msg.ID == "" && !msg.Timestamp.IsZero()) + " " + msg.Room)
			return msg
		},
		OnDisconnect: func(c realtime.Connection) {
			_, known := conns.LoadAndDelete(c)
			n.add("disconnect " + strconv.FormatBool(known))
			if err := c.Send(&realtime.Message{}); !errors.Is(err, realtime.ErrClosed) {
				t.Errorf("Send() = %v after the end, want ErrClosed", err)
			}
			c.Close(4003, "again")
		},
	})
	s := p.join("/ws/a?room=b")
	s.say(`{"type":"chat","data":1}`)
	s.want("chat")
	s.leave()
	p.until("it is over", func() bool { return strings.Contains(n.String(), "disconnect") })
	if got := n.String(); got != "connect a+b, message true a, disconnect true" {
		t.Error(got)
	}
}

func TestWhatOnMessageReturnsIsPublishedInTheSessionsRoom(t *testing.T) {
	answers := make(chan func(*realtime.Message) *realtime.Message, 1)
	p := start(t).with(realtime.HandlerConfig{OnMessage: func(_ realtime.Connection, msg *realtime.Message) *realtime.Message { return (<-answers)(msg) }})
	s := p.join("/ws/a")
	for name, c := range map[string]struct {
		answer func(*realtime.Message) *realtime.Message
		want   string // type, from, data; "": suppressed; or the error's code
	}{
		"as it came": {func(m *realtime.Message) *realtime.Message { m.From = "me"; return m }, `chat me {"n": 1}`},
		"changed": {func(m *realtime.Message) *realtime.Message {
			m.Type, m.From, m.Data = "vote", "", []byte(`2`)
			return m
		}, `vote  2`},
		"another":       {func(*realtime.Message) *realtime.Message { return &realtime.Message{From: "x", Data: []byte(`3`)} }, `chat x 3`},
		"without data":  {func(*realtime.Message) *realtime.Message { return &realtime.Message{} }, `chat  null`},
		"another room":  {func(*realtime.Message) *realtime.Message { return &realtime.Message{Room: "b", From: "y"} }, `chat y null`},
		"no room":       {func(*realtime.Message) *realtime.Message { return &realtime.Message{Room: "//", From: "z"} }, `chat z null`},
		"suppressed":    {func(*realtime.Message) *realtime.Message { return nil }, ``},
		"no JSON":       {func(*realtime.Message) *realtime.Message { return &realtime.Message{Data: []byte(`{`)} }, `error internal`},
		"a server type": {func(*realtime.Message) *realtime.Message { return &realtime.Message{Type: "presence"} }, `error internal`},
		"a system type": {func(*realtime.Message) *realtime.Message { return &realtime.Message{Type: "system"} }, `error internal`},
		"no type":       {func(*realtime.Message) *realtime.Message { return &realtime.Message{Type: "A"} }, `error internal`},
	} {
		t.Run(name, func(t *testing.T) {
			answers <- c.answer
			s.say(`{"type":"chat","data":{"n": 1},"ref":"r"}`)
			if got := s.outcome(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// outcome tells what became of a message with a ref: the error's code, or what was published in room a, or nothing. Message and
// ack come in either order.
func (s *peer) outcome() (published string) {
	s.t.Helper()
	for acked := false; !acked || published == ""; {
		r, err := s.read()
		var d struct{ ID, Code string }
		_ = json.Unmarshal(r.Data, &d) // data of messages has neither
		switch {
		case err != nil:
			s.t.Fatalf("no outcome: %v", err)
		case r.Type == "error":
			return "error " + d.Code
		case r.Type == "ack" && d.ID == "":
			return ""
		case r.Type == "ack":
			acked = true
		case r.Room != "a":
			s.t.Fatalf("%s in %s", r.Type, r.Room)
		default:
			published = string(r.Type) + " " + r.From + " " + string(r.Data)
		}
	}
	return published
}

func TestAMessageOnlyForOneSession(t *testing.T) {
	conns := make(chan realtime.Connection, 1)
	p := start(t).with(realtime.HandlerConfig{OnConnect: func(c realtime.Connection) { conns <- c }})
	s := p.join("/ws/a")
	c := <-conns
	for name, x := range map[string]struct {
		msg  *realtime.Message
		err  error
		want realtime.Message
	}{
		"nothing set":       {&realtime.Message{}, nil, realtime.Message{Type: "chat", Data: []byte(`null`)}},
		"all set":           {&realtime.Message{Type: "x", Room: "b", From: "me", Data: []byte(`[1]`)}, nil, realtime.Message{Type: "x", Room: "b", From: "me", Data: []byte(`[1]`)}},
		"an error":          {&realtime.Message{Type: "error"}, nil, realtime.Message{Type: "error", Data: []byte(`null`)}},
		"no message":        {nil, realtime.ErrInvalid, realtime.Message{}},
		"a bad room":        {&realtime.Message{Room: "/"}, realtime.ErrInvalid, realtime.Message{}},
		"a bad type":        {&realtime.Message{Type: "A"}, realtime.ErrInvalid, realtime.Message{}},
		"the server's type": {&realtime.Message{Type: "ack"}, realtime.ErrInvalid, realtime.Message{}},
		"a server's event":  {&realtime.Message{Type: "system", Data: []byte(`{"event":"gap"}`)}, realtime.ErrInvalid, realtime.Message{}},
		"no JSON":           {&realtime.Message{Data: []byte(`"`)}, realtime.ErrInvalid, realtime.Message{}},
		"too large":         {&realtime.Message{Data: json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)}, realtime.ErrTooLarge, realtime.Message{}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.Send(x.msg); !errors.Is(err, x.err) || err != nil && x.err == nil {
				t.Errorf("Send() = %v, want %v", err, x.err)
			}
			if x.err != nil {
				return
			}
			got := s.next(string(x.want.Type))
			if got.ID == "" || got.Timestamp.IsZero() || got.Room != x.want.Room || got.From != x.want.From || string(got.Data) != string(x.want.Data) {
				t.Errorf("%+v, want %+v", got, x.want)
			}
		})
	}
}

func TestASessionIsClosedWithACodeOfTheApplication(t *testing.T) {
	conns := make(chan realtime.Connection, 1)
	p := start(t).with(realtime.HandlerConfig{OnConnect: func(c realtime.Connection) { conns <- c }})
	for code, want := range map[int]int{
		4003: 4003, 4400: 4400, 4499: 4499, 4700: 4700, 4999: 4999,
		0: 4003, 1000: 4003, 1006: 4003, 4000: 4003, 4399: 4003, 4500: 4003, 4699: 4003, 5000: 4003, 1 << 20: 4003, -1: 4003,
	} {
		s := p.connect("/ws")
		(<-conns).Close(code, "as said")
		if got, reason := s.closed(); got != want || reason != "as said" {
			t.Errorf("Close(%d) closes with %d %q, want %d", code, got, reason, want)
		}
	}
}

func TestACallbackThatPanicsEndsOnlyItsSession(t *testing.T) {
	for _, which := range []string{"connect", "message", "disconnect"} {
		t.Run(which, func(t *testing.T) {
			var n told
			doom := func(c realtime.Connection, now string) {
				n.add(now)
				if now == which && len(c.Rooms()) >= 0 && c.UserID() != "" {
					panic("as the test wants")
				}
			}
			p := start(t).with(realtime.HandlerConfig{
				OnConnect:    func(c realtime.Connection) { doom(c, "connect") },
				OnDisconnect: func(c realtime.Connection) { doom(c, "disconnect") },
				OnMessage:    func(c realtime.Connection, m *realtime.Message) *realtime.Message { doom(c, "message"); return m },
			})
			s := p.connect("/ws/a")
			if which == "message" {
				s.say(`{"type":"chat"}`)
			}
			if which == "disconnect" {
				s.leave()
			} else if code, _ := s.closed(); code != 1011 {
				t.Errorf("closed %d, want 1011", code)
			}
			p.until("it is told", func() bool { return strings.HasSuffix(n.String(), "disconnect") })
			if strings.Count(n.String(), "disconnect") != 1 {
				t.Error(n.String())
			}
			p.until("it is gone", func() bool { return p.hub.ConnectionCount() == 0 })
			if err := p.hub.Publish(t.Context(), &realtime.Message{Room: "a"}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestCallbacksPublishAlsoWhileTheHubEnds(t *testing.T) {
	p := start(t)
	hub := realtime.NewHub(p.logger, realtime.HubConfig{DrainWindow: -1})
	connected, outcomes := make(chan struct{}, 2), make(chan error, 2)
	p.run(hub)
	p.mount(realtime.HandlerConfig{
		OnConnect:    func(realtime.Connection) { connected <- struct{}{} },
		OnDisconnect: func(realtime.Connection) { outcomes <- hub.Publish(t.Context(), &realtime.Message{Room: "a"}) },
	})
	for range 2 {
		p.join("/ws/a")
		<-connected
	}
	p.stop()
	for _, s := range p.peers {
		s.closed()
	}
	if err := p.wait(p.ended); err != nil {
		t.Error(err)
	}
	close(outcomes) // Run has waited for the callbacks
	n := 0
	for err := range outcomes {
		n++
		if err != nil {
			t.Errorf("Publish() in OnDisconnect = %v", err)
		}
	}
	if n != 2 {
		t.Errorf("OnDisconnect was called %d times, want 2", n)
	}
}
