package edge

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// sessionsOf lists an edge's sessions.
func (s *server) sessionsOf(f control.Filter) []control.Session {
	s.t.Helper()
	list, more, err := s.Sessions(s.t.Context(), control.Query{Filter: f, Limit: 100})
	if err != nil || more {
		s.t.Fatalf("Sessions = %d, more %v, %v", len(list), more, err)
	}
	return list
}

// holds waits until so many sessions have begun: a session's first frames may come a little earlier.
func (s *server) holds(n int) {
	s.t.Helper()
	until(s.t, "all have begun", func() bool { return len(s.sessionsOf(control.Filter{})) == n })
}

func TestSessionsAreToldWithAllThatIsKnownOfThem(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		set := tokens(t)
		set.cfg.Anonymous = true
		s := serve(t, p, set)
		before := time.Now().Truncate(time.Millisecond)
		alice := s.connect("/ws?room=b&room=a", "Authorization: Bearer alice~*=rw~1h", "User-Agent: "+strings.Repeat("x", 255)+"ä\xff")
		id := alice.want("welcome").field("session").(string)
		alice.want("subscribed")
		alice.want("subscribed")
		last := s.bus.put("a", `1`).String()
		alice.want("chat")
		nobody := s.connect("/ws/a")
		nobodyID := nobody.want("welcome").field("session").(string)
		nobody.want("subscribed")
		s.holds(2)

		list := s.sessionsOf(control.Filter{User: "alice"})
		if len(list) != 1 {
			t.Fatalf("%d sessions of alice", len(list))
		}
		one := list[0]
		if one.ID != id || one.User != "alice" || one.Agent != strings.Repeat("x", 255) || one.BlockedSince != 0 || one.Address != "127.0.0.1" {
			t.Errorf("told %+v", one)
		}
		if c := time.UnixMilli(one.Connected); c.Before(before) || c.After(time.Now()) || one.LastSeen < one.Connected || time.UnixMilli(one.LastSeen).After(time.Now().Add(time.Second)) {
			t.Errorf("connected %v, last seen %v", c, time.UnixMilli(one.LastSeen))
		}
		if left := time.Until(time.UnixMilli(one.Expires)); left < 59*time.Minute || left > time.Hour {
			t.Errorf("expires in %v", left)
		}
		if len(one.Rooms) != 2 || one.Rooms[0].Room != "a" || one.Rooms[0].Position[:18] != last[:18] || one.Rooms[0].Lag != 0 || one.Rooms[1].Room != "b" {
			t.Errorf("rooms %+v, the last message of a is %s", one.Rooms, last)
		}
		for name, c := range map[string]struct {
			filter control.Filter
			want   []string
		}{
			"all":               {control.Filter{}, []string{id, nobodyID}},
			"in a room of both": {control.Filter{Room: "a"}, []string{id, nobodyID}},
			"in a room of one":  {control.Filter{Room: "b"}, []string{id}},
			"in no room":        {control.Filter{Room: "c"}, nil},
			"an anonymous user": {control.Filter{User: nobodyID}, []string{nobodyID}},
			"one session":       {control.Filter{Session: nobodyID}, []string{nobodyID}},
			"none":              {control.Filter{Session: "none"}, nil},
		} {
			var got []string
			for _, one := range s.sessionsOf(c.filter) {
				got = append(got, one.ID)
			}
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	})
}

func TestSessionsAreToldInPages(t *testing.T) {
	s := serve(t, fast, setup{})
	var want, got []string
	for range 7 {
		want = append(want, s.connect("/ws/a").want("welcome").field("session").(string))
	}
	slices.Sort(want)
	s.holds(len(want))
	for q, more := (control.Query{Limit: 3}), true; more; {
		var list []control.Session
		var err error
		if list, more, err = s.Sessions(t.Context(), q); err != nil || len(list) > 3 || len(list) == 0 {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		for _, one := range list {
			got = append(got, one.ID)
		}
		q.After = list[len(list)-1].ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func TestOperatorsCloseSessionsWithTheirCode(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, tokens(t))
		dial := func(user string) (*conn, string) {
			c := s.connect("/ws/a?token=" + user)
			id, _ := c.want("welcome").field("session").(string)
			c.want("subscribed")
			return c, id
		}
		one, _ := dial("alice")
		two, twoID := dial("alice")
		three, threeID := dial("alice")
		bob, bobID := dial("bob")
		s.holds(4)
		d := control.Disconnect{User: "alice", Except: []string{threeID}, Code: 4321, Reason: "as asked"}
		if done := s.Disconnect(d); done != (control.Disconnected{Found: 3, Closed: 2}) {
			t.Errorf("%+v", done)
		}
		for _, c := range []*conn{one, two} {
			if code, reason := c.closed(); code != 4321 || reason != "as asked" {
				t.Errorf("closed %d %q", code, reason)
			}
		}
		if done := s.Disconnect(d); done.Closed != 0 {
			t.Errorf("once more: %+v", done)
		}
		if done := s.Disconnect(control.Disconnect{Sessions: []string{bobID, threeID, "none"}, Code: 4003}); done != (control.Disconnected{Found: 2, Closed: 2}) {
			t.Errorf("by id: %+v", done)
		}
		for _, c := range []*conn{three, bob} {
			if code, reason := c.closed(); code != 4003 || reason != "disconnected" {
				t.Errorf("closed %d %q", code, reason)
			}
		}
		until(t, "nobody is there", func() bool { return len(s.sessionsOf(control.Filter{})) == 0 })
		until(t, "one that has gone is not found", func() bool {
			return s.Disconnect(control.Disconnect{Sessions: []string{twoID}, Code: 4003}) == control.Disconnected{}
		})
	})
}

func TestOperatorsPutSessionsIntoRoomsAndOut(t *testing.T) {
	set := tokens(t)
	set.cfg.MaxRooms = 3
	s := serve(t, fast, set)
	alice := s.connect("/ws/own?token=alice~own=rw")
	alice.want("subscribed")
	full := s.connect("/ws?room=own&room=two&room=three&token=alice~*=r")
	for range 3 {
		full.want("subscribed")
	}
	bob := s.connect("/ws/own?token=bob")
	bob.want("subscribed")
	s.holds(3)
	in := control.Placing{User: "alice", Rooms: []message.Room{"vip", "vip"}}
	if n := s.Join(t.Context(), in); n != 1 {
		t.Errorf("%d sessions are in all rooms, want that with a place for one more", n)
	}
	f := alice.next("subscribed")
	if f.Room != "vip" || f.field("by") != "server" || f.field("grants") != "r" || f.Ref != "" {
		t.Errorf("told %+v %s", f, f.Data)
	}
	if n := s.Join(t.Context(), in); n != 1 {
		t.Errorf("once more: %d", n)
	}
	s.bus.put("vip", `"for vips"`)
	alice.next("chat") // and nothing of the second join before it
	alice.say(`{"type":"chat","room":"vip","ref":"1"}`)
	alice.next("error not_permitted")

	alice.say(`{"type":"auth","data":{"token":"alice~other=rw"}}`)
	if f := alice.next("unsubscribed"); f.Room != "own" || f.field("reason") != "permission" {
		t.Errorf("a new token without a grant: %+v %s", f, f.Data)
	}
	alice.next("renewed")
	s.bus.put("vip", `"still for vips"`)
	alice.next("chat")

	out := control.Placing{User: "alice", Rooms: []message.Room{"vip", "nowhere"}}
	if n := s.Leave(out); n != 2 {
		t.Errorf("%d sessions of alice, want 2", n)
	}
	if f := alice.next("unsubscribed"); f.Room != "vip" || f.field("reason") != "operator" {
		t.Errorf("told %+v %s", f, f.Data)
	}
	alice.say(`{"type":"subscribe","room":"vip"}`)
	alice.next("error not_permitted")
	if n := s.Leave(out); n != 2 {
		t.Errorf("once more: %d", n)
	}
	if n := s.Join(t.Context(), control.Placing{User: "nobody", Rooms: in.Rooms}); n != 0 {
		t.Errorf("%d sessions of nobody", n)
	}
	bob.say(`{"type":"ping"}`)
	bob.next("pong") // nothing of all this
}

// A room that one leaves by oneself is not kept open by who once put one there.
func TestALeftRoomIsNoLongerAnOperators(t *testing.T) {
	s := serve(t, fast, tokens(t))
	c := s.connect("/ws?token=alice~own=rw")
	until(t, "it has begun", func() bool {
		return s.Join(t.Context(), control.Placing{User: "alice", Rooms: []message.Room{"vip"}}) == 1
	})
	c.want("subscribed")
	c.say(`{"type":"subscribe","room":"vip"}`) // again: it is there
	c.want("subscribed")
	c.say(`{"type":"unsubscribe","room":"vip"}`)
	c.want("unsubscribed")
	c.say(`{"type":"subscribe","room":"vip"}`)
	c.next("error not_permitted")
}

// revoking is a setup whose tokens "user~id" can be revoked by id.
func revoking(t *testing.T) (set setup, revoke func(ids ...string)) {
	var list atomic.Pointer[[]string]
	revoke = func(ids ...string) { list.Store(&ids) }
	revoke()
	return setup{cfg: Config{
		Verify: func(token string) (auth.Identity, error) {
			user, id, _ := strings.Cut(token, "~")
			return auth.Identity{User: user, TokenID: id, IssuedAt: time.Unix(1_800_000_000, 0), Grants: everything}, nil
		},
		Revoked: func(user, id string, issued time.Time) bool {
			if user == "" || issued.Unix() != 1_800_000_000 {
				t.Errorf("asked about %q, %q, %v", user, id, issued)
			}
			return slices.Contains(*list.Load(), id)
		},
	}}, revoke
}

func TestRevokedTokensLetNobodyInAndEndTheirSessions(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		set, revoke := revoking(t)
		set.cfg.Anonymous = true
		s := serve(t, p, set)
		bad, good, renewed := s.connect("/ws/a?token=alice~t1"), s.connect("/ws/a?token=alice~t2"), s.connect("/ws/a?token=bob~t1")
		nobody := s.connect("/ws/a")
		for _, c := range []*conn{bad, good, renewed, nobody} {
			c.want("subscribed")
		}
		s.holds(4)
		renewed.say(`{"type":"auth","data":{"token":"bob~t3"}}`)
		renewed.want("renewed")
		revoke("t1")
		if n := s.EndRevoked(); n != 1 {
			t.Errorf("%d sessions ended, want 1", n)
		}
		if code, reason := bad.closed(); code != 4501 || reason != "revoked" {
			t.Errorf("closed %d %q", code, reason)
		}
		if n := s.EndRevoked(); n != 0 {
			t.Errorf("once more: %d", n)
		}
		if res := s.get("GET", "/ws/a?token=alice~t1", upgrade()...); res.StatusCode != 401 {
			t.Errorf("let in: %d", res.StatusCode)
		}
		c := s.connect("/ws/a?refuse=close&token=alice~t1")
		c.want("error bad_token")
		if code, _ := c.closed(); code != 4501 {
			t.Errorf("closed %d", code)
		}
		good.say(`{"type":"auth","data":{"token":"alice~t1"},"ref":"1"}`)
		good.want("error bad_token")
		for _, c := range []*conn{good, renewed, nobody} {
			c.say(`{"type":"ping"}`)
			c.want("pong")
		}
	})
}

// A token that is revoked while its session begins or renews is seen by nobody who ends sessions: the session looks again.
func TestATokenRevokedJustThenEndsItsSessionToo(t *testing.T) {
	set, revoke := revoking(t)
	judge := set.cfg.Revoked
	var asked atomic.Int32
	set.cfg.Revoked = func(user, id string, issued time.Time) bool {
		defer asked.Add(1)
		defer revoke("late") // the answer is older than the revocation
		return judge(user, id, issued)
	}
	s := serve(t, fast, set)
	if code, _ := s.connect("/ws/a?token=alice~late").closed(); code != 4501 {
		t.Errorf("a session that begins: closed %d", code)
	}
	revoke()
	c := s.connect("/ws/a?token=alice~good")
	until(t, "both have begun", func() bool { return asked.Load() == 4 })
	revoke()
	c.say(`{"type":"auth","data":{"token":"alice~late"}}`)
	if code, _ := c.closed(); code != 4501 {
		t.Errorf("a session that renews: closed %d", code)
	}
}

// limited is a setup whose tokens "user~n" allow n sessions.
func limited(t *testing.T, told, refuse bool) (set setup, s func() *server) {
	p := presence.New(presence.Config{}, presence.NewMemory(presence.MemoryConfig{}), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	var srv *server
	set.cfg = Config{
		Verify: func(token string) (auth.Identity, error) {
			id := auth.Identity{Grants: everything}
			user, most, _ := strings.Cut(token, "~")
			id.User = user
			_, err := fmt.Sscan(most, &id.MaxSessions)
			return id, err
		},
		Claims: p, RefuseSessions: refuse,
		Trim: func(_ context.Context, user string, most int) error {
			list := srv.sessionsOf(control.Filter{User: user})
			slices.SortStableFunc(list, func(a, b control.Session) int { return int(a.Connected - b.Connected) })
			for _, one := range list[:max(0, len(list)-most)] {
				srv.Disconnect(control.Disconnect{Sessions: []string{one.ID}, Code: int(CloseReplaced)})
			}
			return nil
		},
	}
	if told {
		set.cfg.Presence = p
	}
	return set, func() *server { srv = serve(t, fast, set); return srv }
}

func TestAUserWithTooManySessionsLosesTheOldest(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint("presence ", told), func(t *testing.T) {
			_, start := limited(t, told, false)
			s := start()
			var all []*conn
			for i := range 4 {
				c := s.connect("/ws/a?token=alice~2")
				c.want("subscribed")
				all = append(all, c)
				if i >= 2 {
					if code, reason := all[i-2].closed(); code != 4503 || reason != "replaced by a newer session" {
						t.Errorf("closed %d %q", code, reason)
					}
				}
				begun := time.Now()
				until(t, "a millisecond has passed", func() bool { return time.Since(begun) > 2*time.Millisecond }) // sessions are told apart by when they came
			}
			s.connect("/ws/a?token=bob~2").want("subscribed")
			for _, c := range all[2:] {
				c.say(`{"type":"ping"}`)
				c.want("pong")
			}
		})
	}
}

func TestWhereTheNewestIsRefusedAPlaceMustBecomeFree(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprint("presence ", told), func(t *testing.T) {
			_, start := limited(t, told, true)
			s := start()
			first := s.connect("/ws/a?token=alice~1")
			first.want("subscribed")
			res := s.get("GET", "/ws/a?token=alice~1", upgrade()...)
			if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
				t.Errorf("%d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
			}
			c := s.connect("/ws/a?refuse=close&token=alice~1")
			c.want("error session_limit")
			if code, _ := c.closed(); code != 4502 {
				t.Errorf("closed %d", code)
			}
			if n := s.Stats().Refused["session_limit"]; n != 2 {
				t.Errorf("%d refusals counted, want 2", n)
			}
			if res := s.get("GET", "/ws/b//c?token=alice~1", upgrade()...); res.StatusCode != 400 { // takes no place
				t.Errorf("%d", res.StatusCode)
			}
			_ = first.nc.Close()
			until(t, "the place is free", func() bool {
				raw := s.raw()
				return raw.ask("/ws/a?token=alice~1", nil).StatusCode == 101
			})
		})
	}
}
