package edge

import (
	"fmt"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
)

func TestEveryFormOfLastIDIsUnderstood(t *testing.T) {
	m := message.NewMinter(1)
	a := message.ID{Position: message.At(5_000_000, 1), Low: m.Low(message.Room("a").Tag(), false)}
	b := message.ID{Position: message.At(6_000_000, 2), Low: m.Low(message.Room("b").Tag(), true)}
	for _, c := range []struct {
		query string
		want  []message.ID
	}{
		{"", nil},
		{"last_id=", nil},
		{"last_id=undefined", nil},
		{"last_id=null", nil},
		{"last_id=%zz", nil},
		{"last_id=" + a.String()[:35], nil},
		{"last_id=" + a.String(), []message.ID{a}},
		{"last_id=" + a.String() + "&last_id=" + b.String(), []message.ID{a, b}},
		{"last_id=" + a.String() + "," + b.String(), []message.ID{a, b}},
		{"last_id=" + a.String() + "%2C%20" + b.String(), []message.ID{a, b}},
		{"room=x?last_id=" + a.String(), []message.ID{a}},
		{"last_id=null," + b.String() + ",", []message.ID{b}},
	} {
		got := ask("", c.query).lastIDs
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.query, got, c.want)
		}
	}
}

func TestEachRoomGoesOnAtItsOwnIDElseBeforeTheNewest(t *testing.T) {
	m := message.NewMinter(1)
	rooms := []message.Room{"a", "b", message.UserRoom("u"), message.Global}
	id := func(room message.Room, ms int64) message.ID {
		return message.ID{Position: message.At(ms, 3), Low: m.Low(room.Tag(), false)}
	}
	back := func(id message.ID) message.ID {
		return message.ID{Position: id.Position.Before(30 * time.Second)}
	}
	oldA, newA := id("a", 1_000_000), id("a", 2_000_000)
	me := id(message.UserRoom("u"), 3_000_000)
	other := id("elsewhere", 4_000_000)
	for _, c := range []struct {
		name string
		ids  []message.ID
		want map[message.Room]message.ID
	}{
		{"none given", nil, map[message.Room]message.ID{}},
		{"one room's", []message.ID{newA}, map[message.Room]message.ID{"a": newA, "b": back(newA), message.UserRoom("u"): back(newA), message.Global: back(newA)}},
		{"two rooms'", []message.ID{newA, me}, map[message.Room]message.ID{"a": newA, "b": back(me), message.UserRoom("u"): me, message.Global: back(me)}},
		{"of one room the older", []message.ID{newA, oldA}, map[message.Room]message.ID{"a": oldA, "b": back(newA), message.UserRoom("u"): back(newA), message.Global: back(newA)}},
		{"of no room of the session", []message.ID{other}, map[message.Room]message.ID{"a": back(other), "b": back(other), message.UserRoom("u"): back(other), message.Global: back(other)}},
	} {
		p := newResumePoints(c.ids, rooms)
		for _, r := range rooms {
			got, ok := p.of(r)
			if want, resume := c.want[r]; ok != resume || got != want {
				t.Errorf("%s: %s from %v %v, want %v %v", c.name, r, got, ok, want, resume)
			}
		}
	}
	if got, ok := resumeFrom("b", newA.String()); !ok || got != back(newA) {
		t.Errorf("b from an id of a: %v %v", got, ok)
	}
	if got, ok := resumeFrom("a", newA.String()); !ok || got != newA {
		t.Errorf("a from its own id: %v %v", got, ok)
	}
	if _, ok := resumeFrom("a", "undefined"); ok {
		t.Error("undefined is a position")
	}
}
