package edge

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// named is a setup in which the header Test names the user.
func named() setup {
	return setup{cfg: Config{Verify: func(token string) (auth.Identity, error) {
		return auth.Identity{User: token, Grants: everything}, nil
	}}}
}

func TestUserAndSessionAreWhoTheServerSays(t *testing.T) {
	s := serve(t, fast, named())
	c := s.connect("/ws/general", "Authorization: Bearer alice")
	if w := c.next("welcome"); w.field("user") != "alice" || w.field("session") == "alice" {
		t.Errorf("welcome %s", w.Data)
	}
	c.want("subscribed")
	c.say(`{"type":"chat","from":"bob","timestamp":"1999-01-01T00:00:00Z","id":"x"}`)
	if f := c.want("chat"); f.From != "alice" || strings.HasPrefix(f.Timestamp, "1999") || f.ID == "x" {
		t.Errorf("message %+v", f)
	}
	s.bus.put(message.UserRoom("alice"), `"for you"`)
	if f := c.want("chat"); f.Room != "@me" || string(f.Data) != `"for you"` {
		t.Errorf("notification %+v", f)
	}
	s.bus.put(message.Global, `"for all"`)
	if f := c.want("chat"); f.Room != "@global" {
		t.Errorf("broadcast %+v", f)
	}
}

func TestOneSubscribeFrameIsAnsweredForEachOfItsRooms(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{MaxRooms: 3}})
	c := s.connect("/ws/general")
	c.want("subscribed")
	c.say(`{"type":"subscribe","ref":"s","data":{"rooms":{"a":null,"b":"undefined","a//c":null,"@x":null,"general":null,"d":null}}}`)
	got := map[string]string{}
	for range 6 {
		f := c.frame()
		if f.Ref != "s" {
			t.Errorf("ref %q on %s", f.Ref, f.what())
		}
		got[f.Room] = f.what()
	}
	for room, what := range map[string]string{"a": "subscribed", "b": "subscribed", "general": "subscribed", "a//c": "error bad_room", "@x": "error not_permitted", "d": "error room_limit"} {
		if got[room] != what {
			t.Errorf("%s: %q, want %q", room, got[room], what)
		}
	}
	c.say(`{"type":"unsubscribe","ref":"u","data":{"rooms":["a","nowhere"]}}`)
	got = map[string]string{}
	for range 2 {
		f := c.frame()
		got[f.Room] = f.what()
		if f.what() == "unsubscribed" && f.field("reason") != "requested" {
			t.Errorf("unsubscribed %s", f.Data)
		}
	}
	if got["a"] != "unsubscribed" || got["nowhere"] != "error not_joined" {
		t.Errorf("unsubscribe answered %v", got)
	}
	c.say(`{"type":"subscribe","room":"d","ref":"again"}`)
	if f := c.next("subscribed"); f.Room != "d" {
		t.Errorf("a place given back is not free: %+v", f)
	}
}

func TestSubscribeTakesAtMost128RoomsInAFrame(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{MaxRooms: 200}})
	for n, code := range map[int]string{127: "", 128: "", 129: "error room_limit"} {
		c := s.connect("/ws")
		c.next("welcome")
		var rooms []string
		for i := range n {
			rooms = append(rooms, fmt.Sprintf(`"r%d":null`, i))
		}
		c.say(`{"type":"subscribe","data":{"rooms":{%s}}}`, strings.Join(rooms, ","))
		if code != "" {
			c.next(code)
			continue
		}
		for range n {
			c.next("subscribed")
		}
	}
}

func TestAFrameBehindSubscribeIsHandledWhenTheJoinStands(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{bus: func(b *bus) { b.late["slow"] = true }})
		c := s.connect("/ws")
		c.next("welcome")
		c.send(string(text(`{"type":"subscribe","room":"slow"}`)) + string(text(`{"type":"chat","room":"slow","ref":"m"}`)))
		pause(1e8)
		s.bus.open("slow")
		c.next("subscribed")
		what := []string{c.frame().Type, c.frame().Type}
		slices.Sort(what)
		if what[0] != "ack" || what[1] != "chat" {
			t.Errorf("then %v", what)
		}
	})
}

func TestASessionThatSendsInOnopenGetsItsOwnMessage(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		for range 20 {
			c := s.raw()
			c.ask("/ws/general", text(`{"type":"chat","data":"mine"}`))
			for c.frame().Type != "chat" {
			}
			_ = c.nc.Close()
		}
	})
}

func TestAfterUnsubscribeNothingOfTheRoomComesOrIsTaken(t *testing.T) {
	s := serve(t, fast, setup{})
	c := s.connect("/ws/general")
	c.want("subscribed")
	c.send(string(text(`{"type":"unsubscribe","room":"general"}`)) + string(text(`{"type":"chat","room":"general"}`)))
	c.next("unsubscribed")
	c.next("error not_joined")
	s.bus.put("general", `"x"`)
	c.say(`{"type":"ping","ref":"p"}`)
	c.next("pong")
	c.send(string(text(`{"type":"subscribe","room":"general"}`)) + string(text(`{"type":"unsubscribe","room":"general"}`)) +
		string(text(`{"type":"subscribe","room":"general"}`)) + string(text(`{"type":"chat","room":"general"}`)))
	for _, what := range []string{"subscribed", "unsubscribed", "subscribed", "chat"} {
		c.next(what)
	}
}

func TestAKeyPublishesOnce(t *testing.T) {
	s := serve(t, fast, named())
	a, b := s.connect("/ws/general", "Authorization: Bearer alice"), s.connect("/ws/general", "Authorization: Bearer alice")
	a.want("subscribed")
	b.want("subscribed")
	a.say(`{"type":"chat","key":"k","ref":"1"}`)
	first := a.want("ack")
	b.say(`{"type":"chat","key":"k","ref":"2"}`)
	second := b.want("ack")
	if second.field("duplicate") != true || second.field("id") != first.field("id") || first.field("duplicate") != nil {
		t.Errorf("acks %s and %s", first.Data, second.Data)
	}
}

func TestKeysOfAnonymousSessionsAreTheirOwn(t *testing.T) {
	s := serve(t, fast, setup{})
	for range 2 {
		c := s.connect("/ws/general")
		c.want("subscribed")
		c.say(`{"type":"chat","key":"k","ref":"1"}`)
		if f := c.want("ack"); f.field("duplicate") != nil {
			t.Errorf("ack %s", f.Data)
		}
	}
}

func TestConfiguredTypesMayBeSentAndEphemeralOnesAreNotKept(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Types: map[message.Type]TypeConfig{"typing": {Ephemeral: true}, "vote": {}}}})
	c := s.connect("/ws/general")
	c.want("subscribed")
	for _, typ := range []string{"typing", "vote"} {
		c.say(`{"type":"%s"}`, typ)
		if f := c.next(typ); string(f.Data) != "null" {
			t.Errorf("absent data came as %s", f.Data)
		}
	}
	c.say(`{"type":"history"}`)
	f := c.next("history")
	if got := f.messages(); len(got) != 1 || got[0].Type != "vote" {
		t.Errorf("kept %s", f.Data)
	}
	for _, typ := range []message.Type{"system", "ack", "Bad"} {
		if _, err := New(Config{Anonymous: true, Types: map[message.Type]TypeConfig{typ: {}}}, nil, nil, nil, s.log); err == nil {
			t.Errorf("%s may be configured", typ)
		}
	}
}

func TestPresenceStatusIsAcknowledged(t *testing.T) {
	s := serve(t, fast, setup{})
	c := s.connect("/ws")
	c.next("welcome")
	c.say(`{"type":"presence","data":{"status":"away"},"ref":"p","room":"any"}`)
	if f := c.next("ack"); string(f.Data) != "{}" || f.Ref != "p" {
		t.Errorf("%+v", f)
	}
}

func TestASessionGoesOnAtItsLastID(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, named())
		var ids []message.ID
		for i := range 5 {
			ids = append(ids, s.bus.put("general", fmt.Sprint(i)))
		}
		s.bus.put(message.UserRoom("alice"), `"note"`)
		c := s.connect("/ws/general?last_id="+ids[1].String(), "Authorization: Bearer alice")
		w := c.next("welcome")
		if id, _ := message.ParseID(w.ID); id.Position != ids[1].Position || id.Low.Tag() != message.Room("general").Tag() {
			t.Errorf("welcome %s does not repeat the position of %s", w.ID, ids[1])
		}
		replayed, note := 0, false
		for replayed < 3 || !note {
			f := c.frame()
			switch {
			case f.Room == "general" && f.Type == "chat":
				if string(f.Data) != fmt.Sprint(2+replayed) {
					t.Errorf("replayed %s as number %d", f.Data, replayed)
				}
				replayed++
			case f.Room == "@me":
				note = true
			case f.what() == "subscribed":
				if f.field("recovered") != true || f.field("replayed") != 3.0 || replayed != 3 {
					t.Errorf("after %d: %s", replayed, f.Data)
				}
			}
		}
		c.say(`{"type":"subscribe","room":"general","data":{"last_id":"%s"}}`, ids[0])
		if f := c.want("subscribed"); f.field("replayed") != 0.0 || f.field("recovered") != nil {
			t.Errorf("a room already joined: %s", f.Data)
		}
	})
}

func TestOwnFramesBeyondTheirBudgetEndTheSession(t *testing.T) {
	s := serve(t, fast, setup{hub: hub.Config{OwnFrameBytes: 4096}})
	c := s.connect("/ws/general")
	c.want("subscribed")
	s.bus.put("general", `"`+strings.Repeat("x", 5000)+`"`)
	c.say(`{"type":"history"}`)
	if code, _ := c.closed(); code != 4000 {
		t.Errorf("closed %d", code)
	}
}

func TestASessionIsInAtMostItsRoomsHoweverItLeavesAndJoins(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Anonymous: true, MaxRooms: 4}})
	c := s.connect("/ws/a?room=b&room=c&room=d")
	for range 4 {
		c.want("subscribed")
	}
	// In one read, so that the room is left while the frames behind it are handled.
	c.send(strings.Repeat(string(text(`{"type":"unsubscribe","room":"a"}`))+string(text(`{"type":"subscribe","room":"a"}`)), 3) +
		string(text(`{"type":"unsubscribe","data":{"rooms":["a","b"]}}`)) + string(text(`{"type":"subscribe","room":"e"}`)) +
		string(text(`{"type":"subscribe","room":"f"}`)) + string(text(`{"type":"subscribe","room":"g"}`)) +
		string(text(`{"type":"subscribe","room":"h","ref":"last"}`)))
	in := map[string]bool{"a": true, "b": true, "c": true, "d": true}
	for {
		f := c.frame()
		switch f.what() {
		case "subscribed":
			in[f.Room] = true
		case "unsubscribed":
			delete(in, f.Room)
		}
		if len(in) > 4 {
			t.Fatalf("in %d rooms, 4 are allowed", len(in))
		}
		if f.Ref == "last" {
			break
		}
	}
	if len(in) != 4 {
		t.Errorf("in %d rooms, want 4", len(in))
	}
}
