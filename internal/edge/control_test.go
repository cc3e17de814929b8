package edge

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// pause lets real time pass, where that is what a test is about.
func pause(d time.Duration) { <-time.After(d) }

func TestASilentSessionIsPingedAndStaysWhileItAnswers(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{PingInterval: 60 * time.Millisecond, PongTimeout: 80 * time.Millisecond}})
		c := s.connect("/ws")
		c.next("welcome")
		start := time.Now()
		for range 6 {
			g, err := c.read(5 * time.Second)
			if err != nil || g.op != 0x89 {
				t.Fatalf("got %#x %q %v, want a ping", g.op, g.payload, err)
			}
			c.send(string(masked(0x8a, "")))
		}
		if d := time.Since(start); d < 5*60*time.Millisecond {
			t.Errorf("six pings in %v", d)
		}
	})
}

func TestASessionWithoutSignOfLifeIsClosedAlthoughItIsWrittenTo(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{PingInterval: 60 * time.Millisecond, PongTimeout: 80 * time.Millisecond}})
		c := s.connect("/ws/general")
		c.want("subscribed")
		stop := make(chan struct{})
		defer close(stop)
		go func() { // small messages fit into the kernel's buffer: that they can be written proves nothing
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					s.bus.put("general", `"x"`)
				}
			}
		}()
		if code, _ := c.closed(); code != 4001 {
			t.Errorf("closed %d", code)
		}
	})
}

func TestAnyReceivedByteIsASignOfLife(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{PingInterval: 100 * time.Millisecond, PongTimeout: 100 * time.Millisecond}})
	c := s.connect("/ws")
	c.next("welcome")
	for range 8 {
		pause(50 * time.Millisecond)
		c.send(string(masked(0x8a, "")))
	}
	c.say(`{"type":"ping"}`)
	c.next("pong") // frame passes over pings; next insists on no close in between
}

// held is a publisher that keeps handlers busy.
type held struct {
	*bus
	free chan struct{}
}

func (h *held) Publish(ctx context.Context, m *message.Message, caller, key string) (broker.Receipt, error) {
	select {
	case <-h.free:
	case <-ctx.Done():
		return broker.Receipt{}, ctx.Err()
	}
	return h.bus.Publish(ctx, m, caller, key)
}

func TestNoDeadlineRunsWhileAHandlerIsBusy(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{PingInterval: 50 * time.Millisecond, PongTimeout: 60 * time.Millisecond, AssemblyTimeout: 60 * time.Millisecond}})
		h := &held{bus: s.bus, free: make(chan struct{})}
		s.Edge.publish = h
		c := s.connect("/ws/general")
		c.want("subscribed")
		ping := text(`{"type":"ping","ref":"late"}`)
		c.send(string(text(`{"type":"chat","ref":"held"}`)) + string(ping[:8]))
		pause(400 * time.Millisecond) // pings are not answered, half a message waits
		c.send(string(ping[8:]))
		close(h.free)
		c.want("ack")
		if f := c.want("pong"); f.Ref != "late" {
			t.Errorf("pong %+v", f)
		}
	})
}

func TestAPeerThatNeverAnswersACloseIsCut(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{CloseTimeout: 100 * time.Millisecond}})
		c := s.connect("/ws")
		c.next("welcome")
		c.send(string(masked(0x83, ""))) // reserved opcode
		g, err := c.read(5 * time.Second)
		if err != nil || g.code != 1002 {
			t.Fatalf("got %#x %v", g.op, err)
		}
		until(t, "the session is gone although the peer holds on", func() bool { return s.sessions.Load() == 0 })
	})
}

func TestAPeerThatTalksOnAfterOurCloseIsCutToo(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{CloseTimeout: 200 * time.Millisecond}})
		c := s.connect("/ws")
		c.next("welcome")
		c.send(string(masked(0x83, "")))
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 32<<10)
			for {
				if _, err := c.nc.Write(b); err != nil {
					return
				}
			}
		}()
		if g, err := c.read(5 * time.Second); err != nil || g.code != 1002 {
			t.Errorf("got %#x %v", g.op, err)
		}
		until(t, "the session is gone", func() bool { return s.sessions.Load() == 0 })
		_ = c.nc.Close()
		<-done
	})
}

func TestAPeerThatReadsNothingIsClosedAsSlow(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{
			cfg: Config{CloseTimeout: 200 * time.Millisecond},
			hub: hub.Config{WriteTimeout: time.Second, CloseTimeout: 200 * time.Millisecond},
		})
		slow, other := s.connect("/ws/general"), s.connect("/ws/general")
		slow.want("subscribed")
		other.want("subscribed")
		big := `"` + strings.Repeat("x", 60<<10) + `"`
		for sent := 0; s.hub.Stats().Blocked == 0; sent++ { // until no socket holds more
			if sent > 1000 {
				t.Fatal("never blocked")
			}
			s.bus.put("general", big)
			other.next("chat")
		}
		until(t, "the slow session is closed", func() bool { return s.Stats().Closed[CloseSlow] == 1 })
		until(t, "and released", func() bool { return s.sessions.Load() == 1 })
		s.bus.put("general", `"still there"`)
		other.next("chat")
	})
}

func TestABlockedSessionGoesOnWhereItWasWhenThereIsRoom(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		c := s.connect("/ws/general")
		c.want("subscribed")
		big := strings.Repeat("x", 60<<10)
		var last message.ID
		const n = 120 // 7 MB: what the log keeps for who is behind
		for range n {
			last = s.bus.put("general", `"`+big+`"`)
		}
		for i := range n {
			f := c.next("chat")
			if i == n-1 && f.ID != last.String() {
				t.Errorf("ended with %s, want %s", f.ID, last)
			}
		}
	})
}

func TestEveryCloseCodeOfTheTableIsOneASessionSees(t *testing.T) {
	s := serve(t, fast, setup{
		cfg: Config{MaxFrameBytes: 512, AssemblyTimeout: 50 * time.Millisecond, Verify: func(token string) (auth.Identity, error) {
			switch token {
			case "expired":
				return auth.Identity{}, auth.ErrExpired
			case "revoked":
				return auth.Identity{}, ErrRevoked
			}
			return auth.Identity{User: "u", Grants: everything}, nil
		}},
		hub: hub.Config{OwnFrameBytes: 2000, JoinTimeout: 100 * time.Millisecond},
		bus: func(b *bus) { b.late["closed"] = true },
	})
	by := map[CloseCode]func() *conn{
		CloseNormal:    func() *conn { return s.sends(masked(0x88, "\x03\xe8")) },
		CloseGoingAway: func() *conn { return s.sends(masked(0x88, "\x03\xe9")) },
		CloseProtocol:  func() *conn { return s.sends([]byte("\x81\x00")) },
		CloseBinary:    func() *conn { return s.sends(masked(0x82, "")) },
		CloseBadUTF8:   func() *conn { return s.sends(masked(0x81, "\xff")) },
		CloseTooBig:    func() *conn { return s.sends(masked(0x81, strings.Repeat(" ", 513))) },
		CloseInternal: func() *conn {
			s.bus.instead(func() error { panic("as asked") })
			return s.sends(text(`{"type":"chat"}`))
		},
		CloseTimeout: func() *conn { return s.sends([]byte{0x81}) },
		CloseSlow: func() *conn { // the history of a room, more than its own frames may be
			c := s.sends(nil)
			for range 3 {
				s.bus.put("general", `"`+strings.Repeat("x", 900)+`"`)
			}
			c.say(`{"type":"history"}`)
			return c
		},
		CloseTryLater:   func() *conn { return s.connect("/ws/closed", "Authorization: Bearer u") },
		CloseExpired:    func() *conn { return s.connect("/ws/general?refuse=close", "Authorization: Bearer expired") },
		CloseRevoked:    func() *conn { return s.connect("/ws/general?refuse=close", "Authorization: Bearer revoked") },
		CloseNotAllowed: func() *conn { return s.connect("/ws/@x?refuse=close", "Authorization: Bearer u") },
		CloseMisbehaved: func() *conn { return s.sends([]byte(strings.Repeat(string(masked(0x8a, "")), 101))) },
		CloseDrain: func() *conn {
			c := s.sends(nil)
			go s.Drain(t.Context(), 0)
			return c
		},
		closeNoStatus: func() *conn { return s.sends(masked(0x88, "")) },
		closeUnannounced: func() *conn {
			c := s.sends(nil)
			until(t, "it is in the wheel", func() bool { return len(s.wheel.all()) == 1 })
			s.wheel.all()[0].cut()
			return c
		},
	}
	later := map[CloseCode]string{CloseMayReturn: "Disconnect", CloseReplaced: "max_sessions"}
	last := func(c CloseCode) bool { return c == CloseDrain }
	for _, drain := range []bool{false, true} {
		for _, rule := range CloseCodes() {
			if last(rule.Code) != drain || later[rule.Code] != "" {
				continue
			}
			if by[rule.Code] == nil {
				t.Errorf("nothing closes with %d", rule.Code)
				continue
			}
			c := by[rule.Code]()
			code, reason := c.closed()
			if code != int(rule.Code) {
				t.Errorf("closed %d %q, want %d", code, reason, rule.Code)
			}
			if rule.Code >= 4000 && reason == "" {
				t.Errorf("%d without a reason", code)
			}
			s.bus.instead(nil)
			until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
		}
	}
}

// sends is a session that sends this and does nothing else.
func (s *server) sends(b []byte) *conn {
	c := s.connect("/ws/general", "Authorization: Bearer u")
	c.want("subscribed")
	c.send(string(b))
	return c
}

func TestCloseCodesSayWhetherToComeBack(t *testing.T) {
	yes := []int{1001, 1005, 1006, 1011, 1012, 1013, 4000, 4001, 4003, 4400, 4499, 4500}
	no := []int{1000, 1002, 1003, 1007, 1009, 4501, 4502, 4503, 4504, 4600, 4700, 4999, 3000}
	for _, c := range yes {
		if !MayReconnect(c) {
			t.Errorf("%d: no", c)
		}
	}
	for _, c := range no {
		if MayReconnect(c) {
			t.Errorf("%d: yes", c)
		}
	}
}

func TestErrorsOfAPublishHaveTheirCode(t *testing.T) {
	s := serve(t, fast, setup{})
	c := s.connect("/ws/general")
	c.want("subscribed")
	for _, e := range []struct {
		err   error
		code  string
		retry bool
	}{
		{hub.ErrOverloaded, "overloaded", true},
		{broker.ErrOverloaded, "overloaded", true},
		{broker.ErrUnavailable, "broker_unavailable", true},
		{broker.ErrClosed, "broker_unavailable", true},
		{context.DeadlineExceeded, "broker_unavailable", true},
		{&message.Error{Err: message.ErrTooLarge, Text: "too much"}, "too_large", false},
		{&message.Error{Err: message.ErrInvalidData, Text: "bad"}, "bad_frame", false},
		{errors.New("secret of the database"), "internal", false},
		{io.ErrUnexpectedEOF, "internal", false},
	} {
		s.bus.instead(func() error { return e.err })
		c.say(`{"type":"chat","ref":"r"}`)
		f := c.next("error " + e.code)
		if f.Ref != "r" || f.Room != "general" && f.Room != "" || strings.Contains(string(f.Data), "secret") {
			t.Errorf("%v: %+v %s", e.err, f, f.Data)
		}
		if ms, ok := f.field("retry_after_ms").(float64); ok != e.retry || e.retry && ms < 1 {
			t.Errorf("%v: %s", e.err, f.Data)
		}
	}
}
