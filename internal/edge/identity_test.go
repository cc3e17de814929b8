package edge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// everything is what most tokens grant.
var everything, _ = auth.CompileGrants(map[string]string{"*": "rwph"})

// tokens is a setup in which a token is "user", "user rooms" (a=rw,b=r) or "user rooms lifetime".
func tokens(t *testing.T) setup {
	return setup{cfg: Config{Verify: func(token string) (auth.Identity, error) {
		parts := strings.Fields(strings.ReplaceAll(token, "~", " "))
		switch {
		case token == "expired":
			return auth.Identity{}, fmt.Errorf("jwt: %w", auth.ErrExpired)
		case len(parts) == 0 || parts[0] == "bad":
			return auth.Identity{}, auth.ErrToken
		}
		id := auth.Identity{User: parts[0], Grants: everything}
		if len(parts) > 1 {
			rooms := map[string]string{}
			for pair := range strings.SplitSeq(parts[1], ",") {
				k, v, _ := strings.Cut(pair, "=")
				rooms[k] = v
			}
			var err error
			if id.Grants, err = auth.CompileGrants(rooms); err != nil {
				t.Error(err)
			}
		}
		if len(parts) > 2 {
			d, err := time.ParseDuration(parts[2])
			if err != nil {
				t.Error(err)
			}
			id.Expires = time.Now().Add(d)
		}
		return id, nil
	}}}
}

func TestATokenComesByHeaderSubprotocolOrURL(t *testing.T) {
	set := tokens(t)
	s := serve(t, fast, set)
	set.cfg.NoQueryToken, set.cfg.Anonymous = true, true
	strict := serve(t, fast, set)
	for name, c := range map[string]struct {
		s       *server
		target  string
		headers []string
		user    string // "": refused; "?": anonymous
	}{
		"header":                        {s, "/ws", []string{"Authorization: Bearer alice"}, "alice"},
		"header in other case":          {s, "/ws", []string{"authorization: bearer  alice "}, "alice"},
		"subprotocol":                   {s, "/ws", []string{"Sec-WebSocket-Protocol: realtime, bearer.alice"}, "alice"},
		"URL":                           {s, "/ws?token=alice", nil, "alice"},
		"URL behind a second ?":         {s, "/ws?room=a?token=alice", nil, "alice"},
		"header before the others":      {s, "/ws?token=bad", []string{"Sec-WebSocket-Protocol: bearer.bad", "Authorization: Bearer alice"}, "alice"},
		"subprotocol before the URL":    {s, "/ws?token=bad", []string{"Sec-WebSocket-Protocol: bearer.alice, realtime"}, "alice"},
		"none":                          {s, "/ws", nil, ""},
		"an empty one":                  {s, "/ws?token=", nil, ""},
		"a bad one":                     {s, "/ws?token=bad", nil, ""},
		"another scheme":                {s, "/ws", []string{"Authorization: Basic alice"}, ""},
		"a cookie":                      {s, "/ws", []string{"Cookie: token=alice"}, ""},
		"none where none is needed":     {strict, "/ws", nil, "?"},
		"a bad one where none is":       {strict, "/ws", []string{"Authorization: Bearer bad"}, ""},
		"in the URL, which is not read": {strict, "/ws?token=bad", nil, "?"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := c.s.raw()
			res := conn.ask(c.target, nil, c.headers...)
			if c.user == "" {
				if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%d", res.StatusCode)
				}
				return
			}
			if res.StatusCode != 101 {
				t.Fatalf("%d", res.StatusCode)
			}
			w := conn.next("welcome")
			if user := w.field("user"); c.user == "?" && user != w.field("session") || c.user != "?" && user != c.user {
				t.Errorf("user %v", user)
			}
		})
	}
}

func TestWithoutKeysNoTokenIsValid(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Anonymous: true}})
	if res := s.get("GET", "/ws?token=alice", upgrade()...); res.StatusCode != 401 {
		t.Errorf("%d", res.StatusCode)
	}
	if n := s.Stats().BadTokens; n != 1 {
		t.Errorf("%d counted", n)
	}
}

func TestGrantsDecideWhatASessionMayDo(t *testing.T) {
	s := serve(t, fast, tokens(t))
	for name, c := range map[string]struct {
		room, say, want string
	}{
		"join what is not granted":   {"", `{"type":"subscribe","room":"secret","ref":"r"}`, "error not_permitted"},
		"join what is denied":        {"", `{"type":"subscribe","room":"no","ref":"r"}`, "error not_permitted"},
		"join what is granted":       {"", `{"type":"subscribe","room":"read","ref":"r"}`, "subscribed"},
		"send without w":             {"read", `{"type":"chat","room":"read","ref":"r"}`, "error not_permitted"},
		"send with w":                {"write", `{"type":"chat","room":"write","ref":"r"}`, "chat"},
		"who without p":              {"read", `{"type":"who","room":"read","ref":"r"}`, "error not_permitted"},
		"history without h":          {"read", `{"type":"history","room":"read","ref":"r"}`, "error not_permitted"},
		"history with h":             {"keeps", `{"type":"history","room":"keeps","ref":"r"}`, "history"},
		"the user's own history":     {"", `{"type":"history","room":"@me","ref":"r"}`, "history"},
		"everyone's history":         {"", `{"type":"history","room":"@global","ref":"r"}`, "history"},
		"send where it is no member": {"", `{"type":"chat","room":"write","ref":"r"}`, "error not_joined"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.connect("/ws/"+c.room, "Authorization: Bearer alice~read=r,write=rw,keeps=rh,no=")
			conn.want("welcome")
			if c.room != "" {
				conn.want("subscribed")
			}
			conn.say("%s", c.say)
			if f := conn.next(c.want); f.Ref != "r" && c.want != "chat" {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestRoomsOfTheURLAreHeldToTheGrants(t *testing.T) {
	s := serve(t, fast, tokens(t))
	alice := "Authorization: Bearer alice~open=rw"
	if res := s.get("GET", "/ws/secret", upgrade(alice)...); res.StatusCode != 403 {
		t.Errorf("a room that is not granted: %d", res.StatusCode)
	}
	c := s.connect("/ws/secret?refuse=close", alice)
	c.next("error not_permitted")
	if code, reason := c.closed(); code != 4502 || reason == "" {
		t.Errorf("closed %d %q", code, reason)
	}
	c = s.connect("/ws/secret?room=open", alice)
	c.next("welcome")
	if f := c.want("subscribed"); f.Room != "open" || f.field("grants") != "rw" || f.field("presence") != "off" {
		t.Errorf("%s %s", f.Room, f.Data)
	}
	c = s.connect("/ws/secret?room=open", alice)
	if f := c.want("error not_permitted"); f.Room != "secret" {
		t.Errorf("%+v", f)
	}
}

func TestASessionEndsWithItsToken(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		set := tokens(t)
		set.cfg.PingInterval = 100 * time.Millisecond // a wheel with fine units
		s := serve(t, p, set)
		c := s.connect("/ws/a", "Authorization: Bearer alice~a=rw~400ms")
		if w := c.next("welcome"); w.field("expires") == nil {
			t.Errorf("%s", w.Data)
		}
		if f := c.want("expiring"); f.field("in_ms").(float64) > 500 {
			t.Errorf("%s", f.Data)
		}
		if code, reason := c.closed(); code != 4500 || reason != "token expired" {
			t.Errorf("closed %d %q", code, reason)
		}
		until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
	})
}

func TestATokenIsRenewedInPlace(t *testing.T) {
	set := tokens(t)
	set.cfg.PingInterval = 100 * time.Millisecond
	s := serve(t, fast, set)
	c := s.connect("/ws/a?room=b", "Authorization: Bearer alice~a=rwp,b=rw~30s")
	c.want("subscribed")
	c.want("subscribed")
	for _, bad := range []string{"bad", "expired", "bob"} {
		c.say(`{"type":"auth","ref":"x","data":{"token":"%s"}}`, bad)
		if f := c.want("error bad_token"); f.Ref != "x" {
			t.Errorf("%+v", f)
		}
	}
	c.say(`{"type":"auth","ref":"y","data":{"token":"alice~a=r~4s"}}`)
	if f := c.next("unsubscribed"); f.Room != "b" || f.field("reason") != "permission" {
		t.Errorf("%s", f.Data)
	}
	if f := c.next("renewed"); f.Ref != "y" || f.field("expires") == nil {
		t.Errorf("%s", f.Data)
	}
	c.want("expiring")
	c.say(`{"type":"chat","room":"b","ref":"1"}`)
	c.want("error not_joined")
	c.say(`{"type":"chat","room":"a","ref":"2"}`)
	c.want("error not_permitted")
	c.say(`{"type":"auth","data":{"token":"alice"}}`)
	if f := c.want("renewed"); f.field("expires") != nil {
		t.Errorf("a token without end: %s", f.Data)
	}
	c.say(`{"type":"subscribe","room":"b","ref":"3"}`)
	c.want("subscribed")
	end := s.wheel.all()[0].expires.Load()
	if end != 0 {
		t.Errorf("ends at %d", end)
	}
}

func TestAnAnonymousSessionTakesNoToken(t *testing.T) {
	set := tokens(t)
	set.cfg.Anonymous = true
	s := serve(t, fast, set)
	c := s.connect("/ws/a")
	c.want("subscribed")
	c.say(`{"type":"auth","data":{"token":"alice"}}`)
	c.want("error bad_token")
}

// callbacks notes what the edge calls.
type callbacks struct {
	mu   sync.Mutex
	told []string
}

func (c *callbacks) add(what string) {
	c.mu.Lock()
	c.told = append(c.told, what)
	c.mu.Unlock()
}

func (c *callbacks) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.told)
}

func TestCallbacksSeeASessionsLife(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		cb := &callbacks{}
		var conns sync.Map
		s := serve(t, p, setup{cfg: Config{
			Opened: func(c *Conn) {
				cb.add(fmt.Sprint("opened ", c.Rooms(), c.User() == c.ID()))
				conns.Store("", c)
				if err := c.Send(&message.Message{Type: "hello", Room: "a", From: "me", Data: []byte(`1`)}); err != nil {
					t.Error(err)
				}
			},
			Closed: func(*Conn) { cb.add("closed") },
			Hooks: inside(t, func(_ context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
				switch string(m.Data) {
				case `"swallow"`:
					return nil, nil
				case `"refuse"`:
					return nil, &message.Error{Err: message.ErrTooLarge, Field: "data", Text: "as asked"}
				}
				return &message.Message{Type: m.Type, Data: []byte(`"changed"`), From: "somebody"}, nil
			}),
		}})
		c := s.raw()
		if res := c.ask("/ws/a", text(`{"type":"chat","data":"swallow","ref":"1"}`)); res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
		c.want("subscribed")
		if f := c.next("hello"); string(f.Data) != "1" || f.Room != "a" || f.From != "me" {
			t.Errorf("%+v", f)
		}
		if f := c.next("ack"); f.Ref != "1" || string(f.Data) != "{}" {
			t.Errorf("%+v", f)
		}
		c.say(`{"type":"chat","data":"refuse","ref":"2"}`)
		c.next("error too_large")
		c.say(`{"type":"chat"}`)
		if f := c.next("chat"); string(f.Data) != `"changed"` || f.From != "somebody" {
			t.Errorf("%+v", f)
		}
		conn, _ := conns.Load("")
		conn.(*Conn).Close(CloseMayReturn, "come back")
		if code, reason := c.closed(); code != 4003 || reason != "come back" {
			t.Errorf("closed %d %q", code, reason)
		}
		until(t, "it is closed", func() bool { return len(cb.all()) == 2 })
		if got := cb.all(); !slices.Equal(got, []string{"opened [a] true", "closed"}) {
			t.Errorf("%q", got)
		}
		if err := conn.(*Conn).Send(&message.Message{Type: "x"}); err == nil {
			t.Error("an ended session takes frames")
		}
	})
}

func TestClosedFollowsEachOpenedOnceAlsoWhenTheSessionDiesInIt(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		cb := &callbacks{}
		free := make(chan struct{})
		s := serve(t, p, setup{cfg: Config{
			Opened: func(*Conn) { cb.add("opened"); <-free },
			Closed: func(*Conn) { cb.add("closed") },
		}})
		c := s.connect("/ws/a")
		c.want("subscribed")
		until(t, "the callback runs", func() bool { return len(cb.all()) == 1 })
		s.wheel.all()[0].cut()
		until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
		if got := cb.all(); len(got) != 1 {
			t.Errorf("%q while Opened runs", got)
		}
		close(free)
		until(t, "it is closed", func() bool { return slices.Equal(cb.all(), []string{"opened", "closed"}) })
	})
}

// Who keeps the id of a refusal as its next last_id, as a simple program does, has missed nothing.
func TestTheIDOfARefusalIsASafePlaceToBegin(t *testing.T) {
	s := serve(t, fast, tokens(t))
	c := s.connect("/ws/a?refuse=close", "Authorization: Bearer bad")
	id := c.next("error bad_token").ID
	c = s.connect("/ws/a?last_id="+id, "Authorization: Bearer alice")
	c.next("welcome")
	if f := c.next("subscribed"); f.field("recovered") != true {
		t.Errorf("%s", f.Data)
	}
}
