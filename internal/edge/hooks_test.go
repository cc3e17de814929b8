package edge

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// hooked is a chain of the hooks.
func hooked(t *testing.T, h hooks.Hooks, change ...func(*hooks.Config)) *hooks.Chain {
	cfg := hooks.Config{Hooks: h}
	for _, f := range change {
		f(&cfg)
	}
	return hooks.New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// inside is a chain with a callback of the program around.
func inside(t *testing.T, f func(context.Context, *hooks.Session, *message.Message) (*message.Message, error)) *hooks.Chain {
	return hooked(t, hooks.Hooks{Message: f}, func(c *hooks.Config) { c.Inside = true })
}

// admits is a hook for connecting that always answers the same, and tells what it is asked.
func admits(a *hooks.Admission, err error) (hooks.Hooks, chan *hooks.Attempt) {
	asked := make(chan *hooks.Attempt, 100)
	return hooks.Hooks{Connect: func(_ context.Context, t *hooks.Attempt) (*hooks.Admission, error) {
		asked <- t
		return a, err
	}}, asked
}

var errTest = errors.New("as the test wants")

func TestAHookIsToldWhoWantsToConnectAndLetsIn(t *testing.T) {
	h, asked := admits(&hooks.Admission{}, nil)
	set := tokens(t)
	set.cfg.Hooks, set.cfg.HookHeaders = hooked(t, h), []string{"x-tenant", "Cookie", "Absent"}
	set.cfg.Anonymous = true
	s := serve(t, fast, set)
	c := s.connect("/ws/a?room=b&room=a//b", "Authorization: Bearer alice", "X-Tenant: t1\xff", "X-Tenant: t2", "Cookie: c=1", "Authorization-Not: x")
	w := c.next("welcome")
	got := <-asked
	if got.ID != w.field("session") || got.User != "alice" || got.Node != "n1" || got.Address != "127.0.0.1" || got.Claims != nil || !slices.Equal(got.Rooms, []message.Room{"a", "b"}) {
		t.Errorf("asked about %+v, welcome is %s", got, w.Data)
	}
	if want := map[string]string{"x-tenant": "t1\uFFFD, t2"}; !maps.Equal(got.Headers, want) {
		t.Errorf("headers are %q, want %q: no cookies without an Origin", got.Headers, want)
	}

	c = s.connect("/ws", "Cookie: c=1", "Cookie: d=2", "Origin: http://127.0.0.1")
	if w, got := c.next("welcome"), <-asked; got.User != "" || w.field("user") != got.ID || got.Headers["cookie"] != "c=1; d=2" {
		t.Errorf("an anonymous session of our own page: asked about %+v, welcome is %s", got, w.Data)
	}
	if res := s.raw().ask("/ws", nil, "Origin: https://evil.example", "Cookie: c=1"); res.StatusCode != http.StatusForbidden || len(asked) != 0 {
		t.Errorf("another's page: %s, asked %d times", res.Status, len(asked))
	}
	for _, target := range []string{"/ws/a//b", "/ws/a?refuse=close&token=bad", "/ws/a//b?refuse=close"} {
		s.raw().ask(target, nil)
	}
	if len(asked) != 0 {
		t.Error("asked about who cannot come in anyway")
	}
}

func TestClaimsOfAVerifiedTokenArePassedOn(t *testing.T) {
	h, asked := admits(&hooks.Admission{}, nil)
	s := serve(t, fast, setup{cfg: Config{Hooks: hooked(t, h), Verify: func(string) (auth.Identity, error) {
		return auth.Identity{User: "ada", Grants: everything}, nil
	}}})
	for payload, want := range map[string]string{`{"sub":"ada","n":9007199254740993}`: `{"sub":"ada","n":9007199254740993}`, `{`: "", "\xff": ""} {
		s.connect("/ws", "Authorization: Bearer h."+base64.RawURLEncoding.EncodeToString([]byte(payload))+".s").next("welcome")
		if got := <-asked; string(got.Claims) != want {
			t.Errorf("claims of %q are %q", payload, got.Claims)
		}
	}
}

func TestAHookSaysWhoASessionIsAndWhatItMay(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		h, _ := admits(&hooks.Admission{
			User: "eve", Rooms: []message.Room{"extra", "a"}, Grants: map[string]string{"a": "r", "b": "rw"}, Expires: time.Now().Add(time.Hour), Data: []byte(`{"tier":1}`),
		}, nil)
		sent := make(chan hooks.Session, 10)
		h.Message = func(_ context.Context, s *hooks.Session, m *message.Message) (*message.Message, error) {
			sent <- *s
			return m, nil
		}
		set := tokens(t)
		set.cfg.Hooks = hooked(t, h)
		s := serve(t, p, set)
		c := s.connect("/ws/a?room=b&room=c", "Authorization: Bearer alice a=rwph")
		w := c.next("welcome")
		if w.field("user") != "eve" || w.field("expires") == nil {
			t.Errorf("welcome is %s", w.Data)
		}
		got := make(map[string]string)
		for range 4 {
			f := c.frame()
			got[f.Room] = fmt.Sprint(f.what(), " ", f.field("grants"), " ", f.field("by"))
		}
		want := map[string]string{"a": "subscribed r <nil>", "b": "subscribed rw <nil>", "c": "error not_permitted <nil> <nil>", "extra": "subscribed  server"}
		if !maps.Equal(got, want) {
			t.Errorf("rooms: %q, want %q", got, want)
		}
		c.say(`{"type":"chat","room":"extra"}`)
		c.next("error not_permitted")
		c.say(`{"type":"chat","room":"b"}`)
		if f := c.next("chat"); f.From != "eve" {
			t.Errorf("from %s", f.From)
		}
		if who := <-sent; who.ID != w.field("session") || who.User != "eve" || who.Node != "n1" || who.Address != "127.0.0.1" || string(who.Data) != `{"tier":1}` {
			t.Errorf("a later hook is told of %+v", who)
		}

		// A new token is of the one whom the first named, and takes back neither.
		c.say(`{"type":"auth","data":{"token":"eve"}}`)
		c.next("error bad_token")
		c.say(`{"type":"auth","data":{"token":"alice c=rw"}}`)
		c.want("renewed")
		c.say(`{"type":"chat","room":"b","data":2}`)
		for f := c.frame(); ; f = c.frame() {
			if f.what() == "unsubscribed" && f.Room != "extra" {
				t.Errorf("%s is taken away", f.Room)
			}
			if f.what() == "chat" {
				break
			}
		}
	})
}

func TestAnAnonymousSessionThatAHookNamesHasARoomOfItsOwnAndRenewsByIt(t *testing.T) {
	h, _ := admits(&hooks.Admission{User: "ada"}, nil)
	set := tokens(t)
	set.cfg.Hooks, set.cfg.Anonymous = hooked(t, h), true
	s := serve(t, fast, set)
	c := s.connect("/ws/a")
	c.want("subscribed")
	if _, err := s.publish.Publish(t.Context(), &message.Message{Type: message.TypeNotification, Room: message.UserRoom("ada"), Data: []byte(`1`)}, "", ""); err != nil {
		t.Fatal(err)
	}
	if f := c.next("notification"); f.Room != "@me" {
		t.Errorf("%+v", f)
	}
	c.say(`{"type":"auth","data":{"token":"bob"}}`)
	c.next("error bad_token")
	c.say(`{"type":"auth","data":{"token":"ada"}}`)
	c.next("renewed")
}

func TestAHookThatDeniesOrFailsRefusesTheConnection(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		a      *hooks.Admission
		open   bool
		status int
		code   string
		close  int
		reason string
	}{
		"denied":                  {err: &hooks.Denied{}, status: 403, code: "not_permitted", close: 4502, reason: deniedText},
		"denied, may return":      {err: &hooks.Denied{Code: 4400, Reason: "later"}, status: 403, code: "not_permitted", close: 4400, reason: "later"},
		"denied, fails open":      {err: &hooks.Denied{Code: 4700, Reason: "never"}, open: true, status: 403, code: "not_permitted", close: 4700, reason: "never"},
		"failing closed":          {err: errTest, status: 503, code: "hook_unavailable", close: 1013, reason: refuseHook.text},
		"grants that are no good": {a: &hooks.Admission{Grants: map[string]string{"*": "x"}}, status: 503, code: "hook_unavailable", close: 1013, reason: refuseHook.text},
		"failing open":            {err: errTest, open: true, status: 101},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := admits(c.a, c.err)
			set := tokens(t)
			set.cfg.Hooks = hooked(t, h, func(cfg *hooks.Config) { cfg.Points[hooks.Connect].Open = c.open })
			s := serve(t, fast, set)
			res := s.raw().ask("/ws/a", nil, "Authorization: Bearer alice")
			if res.StatusCode != c.status {
				t.Fatalf("%s, want %d", res.Status, c.status)
			}
			if c.status == 101 {
				return
			}
			b, _ := io.ReadAll(res.Body)
			if want := fmt.Sprintf(`{"error":{"code":%q,"message":%q}}`, c.code, c.reason); string(b) != want || (res.Header.Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("%s with %v, want %s", b, res.Header, want)
			}
			conn := s.connect("/ws/a?refuse=close", "Authorization: Bearer alice")
			if f := conn.next("error " + c.code); f.field("error") != c.reason {
				t.Errorf("%s", f.Data)
			}
			if code, reason := conn.closed(); code != c.close || reason != c.reason {
				t.Errorf("closed with %d %q, want %d %q", code, reason, c.close, c.reason)
			}
			until(t, "no place is taken", func() bool { return s.sessions.Load() == 0 })
		})
	}
}

func TestRoomsOfAFrameAreAskedAboutButNotThoseOfTheURLOrJoinedOnes(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := serve(t, fast, setup{cfg: Config{Hooks: hooked(t, hooks.Hooks{Subscribe: func(_ context.Context, _ *hooks.Session, room message.Room) error {
		mu.Lock()
		asked = append(asked, string(room))
		mu.Unlock()
		switch room {
		case "no":
			return &hooks.Denied{Reason: "not yours"}
		case "never":
			return &hooks.Denied{}
		case "fail":
			return errTest
		}
		return nil
	}})}})
	c := s.connect("/ws/a")
	c.want("subscribed")
	c.say(`{"type":"subscribe","ref":"1","data":{"rooms":{"a":null,"b":null,"no":null,"fail":null,"never":null,"x//y":null}}}`)
	got := make(map[string]string)
	for range 6 {
		f := c.frame()
		if f.Ref != "1" {
			t.Errorf("%+v", f)
		}
		got[f.Room] = fmt.Sprint(f.what(), " ", f.field("error"), " ", f.field("retry_after_ms"))
	}
	_, badName := message.ParseRoom("x//y")
	want := map[string]string{
		"a": "subscribed <nil> <nil>", "b": "subscribed <nil> <nil>", "no": "error hook_denied not yours <nil>", "never": "error hook_denied " + deniedText + " <nil>",
		"fail": "error hook_unavailable " + refuseHook.text + " 1000", "x//y": "error bad_room " + badName.Error() + " <nil>",
	}
	if !maps.Equal(got, want) {
		t.Errorf("answers are %q, want %q", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Sort(asked); !slices.Equal(asked, []string{"b", "fail", "never", "no"}) {
		t.Errorf("asked about %q", asked)
	}
}

// A room that was left in the same write is asked about again, and stays left if the hook says no.
func TestARoomThatWasLeftIsAskedAboutAgain(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Hooks: hooked(t, hooks.Hooks{Subscribe: func(context.Context, *hooks.Session, message.Room) error {
		return &hooks.Denied{Reason: "not again"}
	}})}})
	c := s.connect("/ws/a")
	c.want("subscribed")
	c.send(string(text(`{"type":"unsubscribe"}`)) + string(text(`{"type":"subscribe"}`)) + string(text(`{"type":"chat"}`)))
	got := []string{c.frame().what(), c.frame().what(), c.frame().what()}
	slices.Sort(got)
	if want := []string{"error hook_denied", "error not_joined", "unsubscribed"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAMessageIsPassedReplacedSwallowedOrRefused(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Hooks: hooked(t, hooks.Hooks{Message: func(_ context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
		switch string(m.Data) {
		case `"swallow"`:
			return nil, nil
		case `"refuse"`:
			return nil, &hooks.Denied{Reason: "calm down"}
		case `"fail"`:
			return nil, errTest
		case `"bad"`:
			return &message.Message{Type: m.Type, Data: []byte(`{`)}, nil
		case `"replace"`:
			return &message.Message{Type: "vote", From: "eve", Data: []byte(`{"n": 1}`)}, nil
		}
		return m, nil
	}})}})
	c := s.connect("/ws/a")
	user := c.next("welcome").field("user")
	c.want("subscribed")
	for data, want := range map[string]string{
		"swallow": `ack {}`, "refuse": `error hook_denied {"code":"hook_denied","error":"calm down"}`,
		"fail": `error hook_unavailable {"code":"hook_unavailable","error":"` + refuseHook.text + `","retry_after_ms":1000}`,
		"bad":  `error hook_unavailable {"code":"hook_unavailable","error":"` + refuseHook.text + `","retry_after_ms":1000}`,
	} {
		c.say(`{"type":"chat","ref":"r","data":%q}`, data)
		if f := c.frame(); f.what()+" "+string(f.Data) != want || f.Ref != "r" {
			t.Errorf("%s: %s %s, want %s", data, f.what(), f.Data, want)
		}
	}
	c.say(`{"type":"chat","data":"replace"}`)
	if f := c.next("vote"); f.From != "eve" || string(f.Data) != `{"n": 1}` || f.Room != "a" {
		t.Errorf("%+v", f)
	}
	c.say(`{"type":"chat","data":"pass"}`)
	if f := c.next("chat"); f.From != user || string(f.Data) != `"pass"` {
		t.Errorf("%+v", f)
	}
}

func TestAHookThatHangsHoldsUpItsSessionOnly(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		free := make(chan struct{})
		s := serve(t, p, setup{cfg: Config{
			PingInterval: 40 * time.Millisecond, PongTimeout: 40 * time.Millisecond,
			Hooks: inside(t, func(_ context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
				if string(m.Data) == `"hang"` {
					<-free
				}
				return m, nil
			}),
		}})
		held, other := s.connect("/ws/a"), s.connect("/ws/a")
		held.want("subscribed")
		other.want("subscribed")
		held.say(`{"type":"chat","data":"hang"}`)
		held.say(`{"type":"chat","data":"behind it"}`)
		other.say(`{"type":"chat","data":"meanwhile"}`)
		for _, c := range []*conn{held, other} {
			if f := c.want("chat"); string(f.Data) != `"meanwhile"` {
				t.Errorf("%s arrives first", f.Data)
			}
		}
		// The held one answers no ping, as nobody reads it: for so long that it would be closed otherwise, in the wheel's own time.
		start := s.wheel.now()
		until(t, "several deadlines pass", func() bool { return s.wheel.now() > start+6*(s.wheel.ping+s.wheel.pong) })
		close(free)
		for _, want := range []string{`"hang"`, `"behind it"`} {
			if f := held.want("chat"); string(f.Data) != want {
				t.Errorf("%s, want %s", f.Data, want)
			}
		}
	})
}

// hears is a hook for ended sessions, with a chain that runs.
func hears(t *testing.T, h hooks.Hooks) (*hooks.Chain, chan hooks.Disconnection) {
	ended := make(chan hooks.Disconnection, 100)
	h.Disconnect = func(_ context.Context, ds []hooks.Disconnection) error {
		for _, d := range ds {
			ended <- d
		}
		return nil
	}
	c := hooked(t, h)
	run(t, func(ctx context.Context) error { return c.Run(ctx, nil) })
	return c, ended
}

func TestAHookHearsHowASessionEndedAndWhereItStood(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		chain, ended := hears(t, hooks.Hooks{})
		set := tokens(t)
		set.cfg.Hooks = chain
		s := serve(t, p, set)
		for name, c := range map[string]struct {
			end    func(*conn)
			code   int
			reason string
		}{
			"the peer closes":            {func(c *conn) { c.send(string(masked(0x88, "\x11\x30bye"))) }, 4400, "bye"},
			"the peer closes, no code":   {func(c *conn) { c.send(string(masked(0x88, ""))) }, 1005, ""},
			"the peer hangs up":          {func(c *conn) { _ = c.nc.Close() }, 1006, ""},
			"the peer breaks a rule":     {func(c *conn) { c.send(string(masked(0x82, "x"))) }, 1003, "binary messages are not accepted"},
			"the server closes":          {func(*conn) { s.wheel.all()[0].close(CloseRevoked, "out") }, 4501, "out"},
			"the peer says bye and goes": {func(c *conn) { c.send(string(masked(0x88, "\x03\xe8"))); _ = c.nc.Close() }, 1000, ""},
		} {
			conn := s.connect("/ws/a?room=b", "Authorization: Bearer alice")
			w := conn.next("welcome")
			conn.want("subscribed")
			conn.want("subscribed")
			conn.say(`{"type":"chat","room":"b"}`)
			last := conn.next("chat").ID
			c.end(conn)
			conn.closed()
			d := <-ended
			if d.Session.ID != w.field("session") || d.Session.User != "alice" || d.Session.Conn != nil || d.Code != c.code || d.Reason != c.reason || !d.LastOfUser || d.Time.IsZero() {
				t.Errorf("%s: told of %+v, want code %d %q", name, d, c.code, c.reason)
			}
			places := make(map[message.Room]message.ID)
			for _, place := range d.Rooms {
				places[place.Room] = place.Last
			}
			id, _ := message.ParseID(last)
			if len(places) != 2 || places["b"].Position != id.Position || places["b"].Low.Tag() != message.Room("b").Tag() || places["a"].IsZero() {
				t.Errorf("%s: told of the rooms %v, want a, and b at %v", name, places, id)
			}
			until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
		}
	})
}

func TestASessionsEndIsToldBehindItsLastQuestion(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		free, asked := make(chan struct{}), make(chan struct{})
		chain, ended := hears(t, hooks.Hooks{Message: func(_ context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
			close(asked)
			<-free
			return m, nil
		}})
		s := serve(t, p, setup{cfg: Config{Hooks: chain}})
		c := s.connect("/ws/a")
		c.want("subscribed")
		c.say(`{"type":"chat"}`)
		<-asked
		s.wheel.all()[0].cut()
		until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
		if len(ended) != 0 {
			t.Error("told of the end while the hook is asked")
		}
		close(free)
		if d := <-ended; d.Code != 1006 || !strings.HasPrefix(string(d.Rooms[0].Room), "a") {
			t.Errorf("%+v", d)
		}
	})
}
