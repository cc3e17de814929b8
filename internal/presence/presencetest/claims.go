package presencetest

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// own is a node's field of a user with so many sessions.
func own(n *node, user string, sessions int32) presence.Field {
	u := field(n.name, user, presence.Online, 1)
	u.Sessions = sessions
	return u
}

// claims claims a field that is as put gives it: without Node.
func (n *node) claims(f presence.Field, most int) bool {
	n.t.Helper()
	f.Node = ""
	taken, err := n.Claim(n.t.Context(), f, most)
	if err != nil {
		n.t.Fatalf("%s: Claim of a session of %q: %v", n.name, f.User, err)
	}
	return taken
}

func claim(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	a, b, c := ns[0], ns[1], ns[2]
	for i, claim := range []struct {
		by   *node
		user string
		own  int32
		most int
		want bool
	}{
		{a, "u", 1, 3, true},
		{b, "u", 1, 3, true},
		{a, "u", 2, 3, true},
		{b, "u", 2, 3, false},
		{c, "u", 1, 3, false},
		{c, "u", 1, 4, true},
		{c, "v", 1, 1, true}, // another user
		{a, "v", 1, 1, false},
		{a, "w", 2, 1, false}, // the node alone has too many
	} {
		if got := claim.by.claims(own(claim.by, claim.user, claim.own), claim.most); got != claim.want {
			t.Errorf("claim %d: the %d. session of %q on %s of at most %d: taken = %v, want %v", i, claim.own, claim.user, claim.by.name, claim.most, got, claim.want)
		}
	}
	fields := []presence.Field{own(a, "u", 2), own(b, "u", 1), own(c, "u", 1)}
	ab := fields[0].With(fields[1].State)
	c.seen("u", presence.Seen{State: ab, Last: seenOf(c, "u")}) // what was refused has changed nothing
	a.put(message.Global, presence.Totals{}, presence.Field{User: "u", State: presence.State{Active: seenAt}})
	b.eventually("the place is free again", func() bool { return b.claims(own(b, "u", 2), 3) })
}

// seenOf is when the store says that the user was last seen: a claim need not say it.
func seenOf(n *node, user string) int64 {
	n.t.Helper()
	got, err := n.Users(n.t.Context(), []string{user})
	if err != nil {
		n.t.Fatal(err)
	}
	return got[0].Last
}

func racingClaims(t testing.TB, f Factory) {
	ns := start(t, f, 3)
	for range 20 {
		var taken atomic.Int32
		var all sync.WaitGroup
		for _, n := range ns {
			all.Go(func() {
				if n.claims(own(n, "u", 1), 2) {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		if taken.Load() != 2 {
			t.Fatalf("%d of 3 claims were taken, want 2", taken.Load())
		}
		for _, n := range ns {
			n.put(message.Global, presence.Totals{}, presence.Field{User: "u", State: presence.State{Active: seenAt}})
		}
		for _, n := range ns {
			n.seesNobody("u")
		}
	}
}

// seesNobody waits until no other node has the user.
func (n *node) seesNobody(user string) {
	n.t.Helper()
	n.sees("Users", func() any {
		got, err := n.Users(n.t.Context(), []string{user})
		if err != nil {
			n.t.Fatalf("%s: Users: %v", n.name, err)
		}
		return got[0].State
	}, presence.State{})
}

// eventually asks until the answer is yes.
func (n *node) eventually(what string, ask func() bool) {
	n.t.Helper()
	n.sees(what, func() any { return ask() }, true)
}
