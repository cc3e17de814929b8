package edge

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// bubble runs f with an edge of default times in a bubble, where time passes when nobody has anything to do. Its sessions
// are pipes.
func inBubble(t *testing.T, f func(t *testing.T, s *server)) {
	t.Helper()
	inBubbleWith(t, Config{Anonymous: true}, f)
}

func inBubbleWith(t *testing.T, cfg Config, f func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		minter := message.NewMinter(1)
		logger := slog.New(slog.DiscardHandler)
		b := newBus(minter)
		h := hub.New(hub.Config{}, b, minter, logger)
		b.sink = h
		cfg.portable, cfg.History = true, b.History
		e, err := New(cfg, h, b, minter, logger)
		if err != nil {
			t.Fatal(err)
		}
		run(t, h.Run)
		run(t, func(ctx context.Context) error { return e.Run(ctx, func() {}) })
		synctest.Wait()
		f(t, &server{Edge: e, t: t, hub: h, bus: b})
	})
}

// piped is a session over a pipe.
func (s *server) piped(target string) *conn {
	r := httptest.NewRequest("GET", target, nil)
	for _, h := range upgrade() {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	us, them := net.Pipe()
	s.t.Cleanup(func() { _ = us.Close() })
	s.ServeHTTP(&hijackable{httptest.NewRecorder(), them}, r)
	c := &conn{t: s.t, nc: us, r: bufio.NewReader(us)}
	c.deadline(10 * time.Second)
	if res, err := http.ReadResponse(c.r, r); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("GET %s: %v %v", target, res, err)
	}
	return c
}

func TestPingsComeEvery25SecondsAndTenWithoutAnswerAreTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		c := s.piped("/ws/general")
		c.want("subscribed")
		last := time.Now()
		for i := range 100 {
			g, err := c.read(time.Hour)
			if err != nil || g.op != 0x89 {
				t.Fatalf("got %#x %v", g.op, err)
			}
			d := time.Since(last)
			if d > 26*time.Second || i > 0 && d < 25*time.Second {
				t.Fatalf("ping %d after %v", i, d)
			}
			last = time.Now()
			if i < 99 {
				c.send(string(masked(0x8a, "")))
			}
		}
		code, _ := c.closed()
		if d := time.Since(last); code != 4001 || d < 10*time.Second || d > 11*time.Second {
			t.Errorf("closed %d after %v", code, d)
		}
	})
}

func TestAMessageHasTenSecondsToArrive(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		c := s.piped("/ws/general")
		c.want("subscribed")
		whole := text(`{"type":"ping"}`)
		c.send(string(whole[:7]))
		time.Sleep(9 * time.Second)
		c.send(string(whole[7:]))
		c.want("pong")
		c.send(string(whole[:7]))
		start := time.Now()
		code, reason := c.closed()
		if d := time.Since(start); code != 4001 || reason != "message not complete" || d < 10*time.Second || d > 11*time.Second {
			t.Errorf("closed %d %q after %v", code, reason, d)
		}
	})
}

func TestAPublishThatIsNotConfirmedInFiveSecondsIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		c := s.piped("/ws/general")
		c.want("subscribed")
		s.Edge.publish = &held{bus: s.bus, free: make(chan struct{})}
		start := time.Now()
		c.say(`{"type":"chat","ref":"r"}`)
		if f := c.next("error broker_unavailable"); f.Ref != "r" || time.Since(start) != 5*time.Second {
			t.Errorf("%+v after %v", f, time.Since(start))
		}
	})
}

func TestAPeerThatNeverEndsIsGoneTenSecondsAfterTheClose(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		for _, reads := range []bool{true, false} {
			c := s.piped("/ws/general")
			c.want("subscribed")
			start := time.Now()
			c.send(string(masked(0x83, "")))
			if reads {
				if g, err := c.read(time.Second); err != nil || g.code != 1002 {
					t.Errorf("%#x %v", g.op, err)
				}
			}
			for s.sessions.Load() > 0 {
				time.Sleep(100 * time.Millisecond)
			}
			if d := time.Since(start); d > 11*time.Second {
				t.Errorf("reads %v: gone after %v", reads, d)
			}
		}
	})
}

func TestADrainIsSpreadEvenlyOverItsWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		const n = 15
		ends := make(chan time.Duration, n)
		start := time.Now()
		for range n {
			c := s.piped("/ws/general")
			c.want("subscribed")
			go func() {
				c.closed()
				ends <- time.Since(start)
			}()
		}
		s.Drain(context.Background(), 15*time.Second) //nolint:usetesting // the test's context ends before what it stops
		for i := range n {
			if d := <-ends; d < time.Duration(i)*time.Second || d > time.Duration(i)*time.Second+100*time.Millisecond {
				t.Errorf("session %d closed after %v", i, d)
			}
		}
	})
}

func TestTheWheelAsksEachSessionWhenItIsDueAndNotBefore(t *testing.T) {
	cfg := Config{}
	cfg.setDefaults()
	w := newWheel(&cfg)
	e := &Edge{wheel: w}
	far, near, gone := &session{e: e}, &session{e: e}, &session{e: e}
	for _, s := range []*session{far, near, gone} {
		s.closing.Store(true) // asks to be asked again after a second
	}
	w.add(far, w.now()+10*slots)
	w.add(near, w.now()+40)
	w.add(gone, w.now()+3)
	w.hasten(near, w.now()+5)
	w.hasten(near, w.now()+9) // later than it is: nothing
	w.remove(gone)
	w.remove(gone)
	w.hasten(gone, w.now()+1)
	if got := len(w.all()); got != 2 {
		t.Errorf("%d sessions", got)
	}
	start := w.now()
	for near.at == start+5 {
		w.turn(nil)
	}
	if w.now() != start+5 {
		t.Errorf("asked at %d, want %d", w.now()-start, 5)
	}
	if far.at != start+slots-1 {
		t.Errorf("a far deadline is at %d, want the last slot", far.at-start)
	}
	for range 3 * slots {
		w.turn(nil)
	}
	if !far.linked || !near.linked || far.at <= w.now() || near.at <= w.now() {
		t.Errorf("at %d: far %d, near %d", w.now(), far.at, near.at)
	}
}

func TestAClockSetWhileASessionIsAskedIsNotForgotten(t *testing.T) {
	cfg := Config{}
	cfg.setDefaults()
	w := newWheel(&cfg)
	s := &session{e: &Edge{wheel: w}}
	s.seen.Store(uint32(w.now()))
	w.add(s, w.now()+2)
	for range 2 { // a message begins in the very unit in which the session is due
		s.partAt.Store(uint32(w.now() + 1))
		w.hasten(s, w.now()+1+w.assembly)
		w.turn(nil)
	}
	if want := tick(s.partAt.Load()) + w.assembly; s.at != want {
		t.Errorf("asked at %d, want %d", s.at, want)
	}
}

func TestATokenEndsInTimeHoweverLongTheServerHasRun(t *testing.T) {
	for name, c := range map[string]struct{ lives, tells time.Duration }{
		"within the warning": {20 * time.Second, 10 * time.Second}, // half of it, or who renews with such tokens would do nothing else
		"soon":               {3 * time.Second, 1500 * time.Millisecond},
		"later":              {2 * time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbleWith(t, tokens(t).cfg, func(t *testing.T, s *server) {
				<-time.After(10 * time.Minute)
				begin := time.Now()
				p := s.piped("/ws/general?token=alice~general=r~" + c.lives.String())
				told, code := time.Duration(-1), 0
				for code == 0 {
					g, err := p.read(time.Hour)
					switch {
					case err != nil:
						t.Fatal(err)
					case g.op == 0x89:
						p.send(string(masked(0x8a, "")))
					case g.j.what() == "expiring":
						told = time.Since(begin)
					}
					code = g.code
				}
				if told < c.tells-time.Second || told > c.tells+time.Second || told < 0 {
					t.Errorf("told after %v, want %v", told, c.tells)
				}
				if d := time.Since(begin); code != 4500 || d < c.lives || d > c.lives+time.Second {
					t.Errorf("closed with %d after %v, want 4500 after %v", code, d, c.lives)
				}
			})
		})
	}
}

func TestATokenThatLivesForAgesDoesNotEndNow(t *testing.T) {
	for _, lives := range []time.Duration{1<<32*coarse + 20*time.Second, 1<<63 - 1} { // ticks of the wheel are 32 bits
		cfg := tokens(t).cfg
		verify := cfg.Verify
		cfg.Verify = func(token string) (auth.Identity, error) {
			id, err := verify(token)
			id.Expires = time.Now().Add(lives)
			return id, err
		}
		inBubbleWith(t, cfg, func(t *testing.T, s *server) {
			c := s.piped("/ws/general?token=alice")
			c.want("subscribed")
			for range 20 {
				if g, err := c.read(time.Hour); err != nil || g.op != 0x89 {
					t.Fatalf("got %#x %q %v, want pings only", g.op, g.payload, err)
				}
				c.send(string(masked(0x8a, "")))
			}
		})
	}
}
