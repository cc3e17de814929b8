package presencetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

const room = message.Room("general")

// seenAt is a time within the last seven days, always the same one.
var seenAt = time.Now().UnixMilli()

var contracts = []contract{
	{"a node's own fields do not come back to it", 1, ownStay},
	{"who has left was last seen when he was last active", 1, lastSeen},
	{"a call whose context has ended fails", 1, endedContext},

	{"what was put before Follow is in the Roster, what is put later comes in order", 2, rosterThenChanged},
	{"the Sink is called by one goroutine at a time", 3, oneAtATime},
	{"a field is absolute: said again it changes nothing", 2, absolute},
	{"an offline field is gone", 2, offline},
	{"fields of two nodes stand side by side", 3, sideBySide},
	{"Read returns what a follower holds", 3, readAsHeld},
	{"what is put and followed at the same time is not lost", 2, racingFollow},
	{"after Unfollow nothing comes, until it is followed anew", 2, unfollow},
	{"a user's room has his fields of the place where everyone is", 3, usersRoom},
	{"Count sums the others' totals", 3, counts},
	{"Users merges what the others have of a user", 3, users},
	{"Claim takes a session while there is room for it on all nodes together", 3, claim},
	{"of claims at one moment no more are taken than there is room for", 3, racingClaims},
	{"Rooms lists the others' rooms with users by name", 3, rooms},
	{"a node that has left stands until the grace is over", 2, leave},
	{"a node that ends without leaving is gone", 2, crash},
}

// field is some field of a user.
func field(node, user string, status presence.Status, n int64) presence.Field {
	return presence.Field{Node: node, User: user, State: presence.State{
		Status: status, Sessions: int32(n%7 + 1), Since: 1_000_000 + n, Active: seenAt + n, Newest: 2_000_000 + n, Info: fmt.Appendf(nil, `{"n":%d}`, n),
	}}
}

// put puts fields whose Node is not the Store's to look at.
func (n *node) put(room message.Room, totals presence.Totals, fields ...presence.Field) {
	given := make([]presence.Field, len(fields))
	for i, f := range fields {
		f.Node = ""
		given[i] = f
	}
	n.Put(room, given, totals)
	clear(given) // the Store does not keep it
}

func ownStay(t testing.TB, f Factory) {
	a := start(t, f, 1)[0]
	u := field(a.name, "u", presence.Online, 1)
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, u)
	a.put(message.Global, presence.Totals{Online: 1, Sessions: 2}, u)
	a.follow(room)
	a.follow(message.UserRoom("u"))
	a.put(room, presence.Totals{Away: 1, Sessions: 2}, field(a.name, "u", presence.Away, 1))
	a.holds(room)
	a.holds(message.UserRoom("u"))
	a.reads(room)
	a.reads(message.Global)
	a.counts(room, presence.Totals{})
	a.lists("", "", 10)
	if a.Stale() {
		t.Error("Stale() = true though nothing is away")
	}
	got, err := a.Users(t.Context(), []string{"u"})
	if err != nil || len(got) != 1 || !cmp.Equal(got[0].State, presence.State{}) {
		t.Errorf("Users of the node's own user = %+v, %v; want nothing but Last", got, err)
	}
}

func lastSeen(t testing.TB, f Factory) {
	a := start(t, f, 1)[0]
	at := seenAt
	here := presence.Field{User: "u", State: presence.State{Status: presence.Online, Sessions: 1, Since: at - 50, Active: at - 40}}
	gone := presence.Field{User: "u", State: presence.State{Active: at - 10}}
	a.put(message.Global, presence.Totals{Online: 1, Sessions: 1}, here)
	a.put(message.Global, presence.Totals{}, gone)
	a.seen("u", presence.Seen{Last: at - 10})
}

func endedContext(t testing.TB, f Factory) {
	a := start(t, f, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, read := a.Read(ctx, room)
	_, count := a.Count(ctx, []message.Room{room})
	_, users := a.Users(ctx, []string{"u"})
	_, rooms := a.Rooms(ctx, "", "", 1)
	_, claim := a.Claim(ctx, own(a, "u", 1), 1)
	for name, err := range map[string]error{"Read": read, "Count": count, "Users": users, "Rooms": rooms, "Claim": claim} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
}

func rosterThenChanged(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	early := field(a.name, "early", presence.Online, 1)
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, early)
	b.reads(room, early) // it is there
	b.follow(room)
	b.holds(room, early)
	for n := range int64(20) {
		a.put(room, presence.Totals{Online: 2, Sessions: 3}, field(a.name, "late", presence.Online, n))
	}
	b.holds(room, early, field(a.name, "late", presence.Online, 19))
	b.mu.Lock()
	defer b.mu.Unlock()
	last := int64(0)
	for _, c := range b.calls[room] {
		if c.User == "late" && c.Since < last {
			t.Fatalf("Changed brought since %d after %d", c.Since, last)
		}
		last = c.Since
	}
}

// oneAtATime gives calls of several rooms, that come from several nodes, the time to overlap.
func oneAtATime(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	c.slow.Store(int64(5 * time.Millisecond))
	c.follow(room)
	c.follow("other")
	for n := range int64(5) {
		a.put(room, presence.Totals{Online: 1}, field(a.name, "u", presence.Online, n))
		b.put("other", presence.Totals{Online: 1}, field(b.name, "v", presence.Online, n))
		b.put(room, presence.Totals{Online: 1}, field(b.name, "v", presence.Online, n))
	}
	c.holds(room, field(a.name, "u", presence.Online, 4), field(b.name, "v", presence.Online, 4))
	c.holds("other", field(b.name, "v", presence.Online, 4))
}

func absolute(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	b.follow(room)
	u := field(a.name, "u", presence.Online, 1)
	totals := presence.Totals{Online: 1, Sessions: 2}
	for range 3 {
		a.put(room, totals, u)
	}
	v := field(a.name, "v", presence.Away, 2)
	a.put(room, presence.Totals{Online: 1, Away: 1, Sessions: 5}, v)
	b.holds(room, u, v)
	b.reads(room, u, v)
	b.counts(room, presence.Totals{Online: 1, Away: 1, Sessions: 5})
}

func offline(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	b.follow(room)
	u, v := field(a.name, "u", presence.Online, 1), field(a.name, "v", presence.Away, 2)
	a.put(room, presence.Totals{Online: 1, Away: 1, Sessions: 5}, u, v)
	b.holds(room, u, v)
	gone := presence.Field{User: "u", State: presence.State{Active: seenAt}}
	for range 2 {
		a.put(room, presence.Totals{Away: 1, Sessions: 3}, gone)
	}
	b.holds(room, v)
	b.reads(room, v)
	a.put(room, presence.Totals{Online: 1, Away: 1, Sessions: 5}, u)
	b.holds(room, u, v)
}

func sideBySide(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	c.follow(room)
	ua, ub := field(a.name, "u", presence.Online, 1), field(b.name, "u", presence.Away, 2)
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, ua)
	b.put(room, presence.Totals{Away: 1, Sessions: 3}, ub)
	c.holds(room, ua, ub)
	a.put(room, presence.Totals{}, presence.Field{User: "u"})
	c.holds(room, ub)
	c.reads(room, ub)
}

func readAsHeld(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	r := rand.New(rand.NewPCG(1, 2))
	ns[2].follow(room)
	last := make(map[owner]presence.Field)
	for i := range int64(200) {
		by := ns[r.IntN(2)]
		u := field(by.name, fmt.Sprint("u", r.IntN(10)), presence.Status(r.IntN(3)), i)
		by.put(room, presence.Totals{}, u)
		last[owner{by.name, u.User}] = u
	}
	var want []presence.Field
	for _, u := range last {
		if u.Status != presence.Offline {
			want = append(want, u)
		}
	}
	ns[2].holds(room, want...)
	ns[2].reads(room, want...)
}

func racingFollow(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	for i := range int64(30) {
		name := message.Room(fmt.Sprint("race-", i))
		u, v := field(a.name, "u", presence.Online, i), field(a.name, "v", presence.Away, i)
		a.put(name, presence.Totals{Online: 1}, u)
		var put sync.WaitGroup
		put.Go(func() { a.put(name, presence.Totals{Online: 1, Away: 1}, v) })
		b.follow(name)
		put.Wait()
		b.holds(name, u, v)
	}
}

func unfollow(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	b.follow(room)
	b.follow("mark")
	b.Unfollow(room)
	n := int64(0)
	for quiet := false; !quiet; { // what is under way may arrive, but not for ever
		n++
		if n > 1000 {
			t.Fatal("after Unfollow a thousand changes have come")
		}
		b.mu.Lock()
		before := len(b.calls[room])
		b.mu.Unlock()
		a.put(room, presence.Totals{Online: 1}, field(a.name, "u", presence.Online, n))
		a.put("mark", presence.Totals{Online: 1}, field(a.name, "m", presence.Online, n))
		b.holds("mark", field(a.name, "m", presence.Online, n))
		b.mu.Lock()
		quiet = len(b.calls[room]) == before
		b.mu.Unlock()
	}
	b.follow(room)
	b.holds(room, field(a.name, "u", presence.Online, n))
	n++
	a.put(room, presence.Totals{Online: 1}, field(a.name, "u", presence.Online, n))
	b.holds(room, field(a.name, "u", presence.Online, n))
}

func usersRoom(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	ua, ub := field(a.name, "u", presence.Online, 1), field(b.name, "u", presence.Away, 2)
	other := field(a.name, "other", presence.Online, 3)
	a.put(message.Global, presence.Totals{Online: 2}, ua, other)
	c.reads(message.Global, ua, other)
	c.follow(message.UserRoom("u"))
	c.holds(message.UserRoom("u"), ua)
	b.put(message.Global, presence.Totals{Away: 1}, ub)
	c.holds(message.UserRoom("u"), ua, ub)
	a.put(message.Global, presence.Totals{Online: 1}, presence.Field{User: "u"})
	c.holds(message.UserRoom("u"), ub)
}

func counts(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	a.put(room, presence.Totals{Online: 3, Away: 1, Sessions: 9}, field(a.name, "u", presence.Online, 1))
	b.put(room, presence.Totals{Online: 1, Sessions: 1}, field(b.name, "v", presence.Online, 1))
	c.put(room, presence.Totals{Online: 100, Sessions: 100}, field(c.name, "w", presence.Online, 1))
	c.counts(room, presence.Totals{Online: 4, Away: 1, Sessions: 10})
	a.put(message.Global, presence.Totals{Online: 7, Away: 2, Sessions: 11}, field(a.name, "u", presence.Online, 1))
	c.counts(message.Global, presence.Totals{Online: 7, Away: 2, Sessions: 11})
	a.put(room, presence.Totals{}, presence.Field{User: "u"})
	c.counts(room, presence.Totals{Online: 1, Sessions: 1})
}

func users(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	ua, ub := field(a.name, "u", presence.Away, 1), field(b.name, "u", presence.Online, 2)
	a.put(message.Global, presence.Totals{Away: 1}, ua)
	b.put(message.Global, presence.Totals{Online: 1}, ub)
	c.seen("u", presence.Seen{State: ua.With(ub.State), Last: ub.Active})
	b.put(message.Global, presence.Totals{}, presence.Field{User: "u", State: presence.State{Active: ub.Active}})
	c.seen("u", presence.Seen{State: ua.State, Last: ub.Active})
	a.put(message.Global, presence.Totals{}, presence.Field{User: "u", State: presence.State{Active: ua.Active}})
	c.seen("u", presence.Seen{Last: ub.Active})
}

func rooms(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	one := presence.Totals{Online: 1, Sessions: 1}
	for _, name := range []message.Room{"team.b", "team.a", "lobby", message.Global} {
		a.put(name, one, field(a.name, "u", presence.Online, 1))
	}
	b.put("team.c", one, field(b.name, "v", presence.Online, 1))
	b.put("team.a", one, field(b.name, "v", presence.Online, 1))
	c.put("own", one, field(c.name, "w", presence.Online, 1))
	c.lists("", "", 10, "lobby", "team.a", "team.b", "team.c")
	c.lists("team.", "", 10, "team.a", "team.b", "team.c")
	c.lists("team.", "team.a", 1, "team.b")
	a.put("team.b", presence.Totals{}, presence.Field{User: "u"})
	c.lists("team.", "team.a", 10, "team.c")
}

func leave(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	u, v := field(a.name, "u", presence.Online, 1), field(a.name, "v", presence.Online, 2)
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, u)
	b.follow(room)
	b.holds(room, u)
	a.Leave()
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, v, presence.Field{User: "u"}) // too late
	a.stop()
	b.reads(room, u)
	b.counts(room, presence.Totals{Online: 1, Sessions: 2})
	b.mu.Lock()
	if len(b.gone) > 0 {
		t.Errorf("Gone(%q) before the grace was over", b.gone)
	}
	b.mu.Unlock()
	b.isLeftBy(a)
}

func crash(t testing.TB, f Factory) {
	ns := start(t, f, 2)
	a, b := ns[0], ns[1]
	u := field(a.name, "u", presence.Online, 1)
	a.put(room, presence.Totals{Online: 1, Sessions: 2}, u)
	b.follow(room)
	b.holds(room, u)
	a.stop()
	b.isLeftBy(a)
}

// isLeftBy waits until nothing is left of the other node.
func (n *node) isLeftBy(other *node) {
	n.t.Helper()
	n.until("Gone", func() bool { return len(n.gone) == 1 && n.gone[0] == other.name })
	n.holds(room)
	n.reads(room)
	n.counts(room, presence.Totals{})
	n.lists("", "", 10)
}
