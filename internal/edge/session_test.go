package edge

import "testing"

func TestWelcomeComesFirstAndSubscribedAfterTheJoin(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		c := s.connect("/ws/general")
		w := c.next("welcome")
		if w.field("node") != "n1" || len(w.field("session").(string)) != 26 || w.field("user") != w.field("session") {
			t.Errorf("welcome %s", w.Data)
		}
		f := c.next("subscribed")
		if f.Room != "general" || f.field("recovered") != nil {
			t.Errorf("subscribed %s in %q", f.Data, f.Room)
		}
	})
}

func TestAMessageComesBackToAllMembersAndIsAcknowledged(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		a, b := s.connect("/ws/general"), s.connect("/ws/general")
		a.want("subscribed")
		b.want("subscribed")
		a.say(`{"type":"chat","data":{"n":1e400},"ref":"r1","from":"forged","id":"x"}`)
		one, two := a.frame(), a.frame()
		if one.Type == "ack" {
			one, two = two, one
		}
		if one.Type != "chat" || string(one.Data) != `{"n":1e400}` || one.From == "forged" || one.Room != "general" {
			t.Errorf("own message %+v", one)
		}
		if two.Type != "ack" || two.Ref != "r1" || two.field("id") != one.ID {
			t.Errorf("ack %+v for %s", two, one.ID)
		}
		if other := b.next("chat"); other.ID != one.ID || other.From != one.From {
			t.Errorf("other member's %+v", other)
		}
	})
}
