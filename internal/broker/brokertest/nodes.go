package brokertest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// twoNodes are the cases for buses that carry between nodes.
var twoNodes = []contract{
	{"two nodes deliver the same messages in the same order", twoOneOrder},
	{"what one node publishes lies after the other's Now", twoNow},
	{"a key repeated on two nodes at the same moment publishes once", twoRacingKeys},
	{"a node reads what another has stored, and its Live names that tip", twoHistory},
	{"an ephemeral message reaches the members of other nodes", twoEphemeral},
	{"a deletion on one node is told to the members of another", twoDelete},
	{"a node without subscription hears nothing of another's messages", twoNotSubscribed},
	{"a question reaches all nodes, and the silent one is named", twoAsk},
	{"a revocation on one node is in force on the other", twoRevoke},
	{"a node that has ended leaves the other at work", twoEnd},
}

func twoOneOrder(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	a.subscribe("general")
	b.subscribe("general")
	hammer(t, "general", 16, 50, a, b)
	left, right := texts(a.delivered("general", 16*50)), texts(b.delivered("general", 16*50))
	if diff := cmp.Diff(left, right); diff != "" {
		t.Errorf("delivered on a (-), on b (+):\n%s", diff)
	}
	once(t, left, 16, 50)
	inOrder(t, left)
	if diff := cmp.Diff(left, texts(b.kept("general"))); diff != "" {
		t.Errorf("delivered (-), kept (+):\n%s", diff)
	}
}

func twoNow(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	for i := range 50 {
		now := a.Now()
		if r := b.publish(b.say("general", "%d", i)); r.ID.Position <= now {
			t.Fatalf("b's message has position %d, Now was %d on a before it", r.ID.Position, now)
		}
		a, b = b, a
	}
}

func twoRacingKeys(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	a.subscribe("general")
	b.subscribe("general")
	raceKeys(t, a, b)
	a.publish(a.say("general", "end"))
	for _, n := range []*node{a, b} {
		if got := texts(n.delivered("general", 2)); len(got) != 2 || got[1] != "end" {
			t.Errorf("%s delivered %q, want one message and the end", n.Name, got)
		}
	}
}

func twoHistory(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	rs := a.fill("general", 20)
	want := a.kept("general")
	same(t, "b's history", want, b.kept("general"))
	b.subscribe("general")
	if got := b.sink.lives("general"); got[0] != rs[19].ID.Position {
		t.Errorf("Live on b named %d, want %d", got[0], rs[19].ID.Position)
	}
}

func twoEphemeral(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	b.subscribe("general")
	stored := a.publish(a.say("general", "1"))
	b.delivered("general", 1)
	m := a.hint("general", "2")
	a.publish(m)
	if got, want := b.delivered("general", 2)[1].Message.ID, (message.ID{Position: stored.ID.Position, Low: m.ID.Low}); got != want {
		t.Errorf("b delivered %v, want %v", got, want)
	}
}

func twoDelete(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	b.subscribe("general")
	tip := a.fill("general", 3)[2].ID.Position
	b.delivered("general", 3)
	if err := a.Delete(t.Context(), "general"); err != nil {
		t.Fatalf("Delete = %v, want nil", err)
	}
	b.until("b's members are told", func() bool { return slices.Equal(b.sink.deleted("general"), []message.Position{tip}) })
	if p := b.page(message.Query{Room: "general", Limit: 10}); len(p.Entries) > 0 || p.Cut != tip || p.Tip != tip {
		t.Errorf("b's page = %+v, want none, tip and cut %d", p, tip)
	}
	next := b.publish(b.say("general", "next"))
	if e := b.delivered("general", 4)[3]; e.Message.ID != next.ID || e.Prev != tip {
		t.Errorf("delivered %v with prev %d, want %v with %d", e.Message.ID, e.Prev, next.ID, tip)
	}
}

func twoNotSubscribed(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	a.subscribe("general")
	b.subscribe("other")
	a.fill("general", 5)
	a.delivered("general", 5)
	a.fill("other", 5)
	b.delivered("other", 5)
	if got := b.sink.entries("general"); len(got) > 0 {
		t.Errorf("b delivered %q without a subscription", texts(got))
	}
}

func twoAsk(t testing.TB, f Factory) {
	nodes := prepare(t, f, 2, Settings{})
	a, b := nodes[0], nodes[1]
	a.Serve(echo("a"))
	b.Serve(func(ctx context.Context, r broker.Request) broker.Reply {
		if r.Kind == "unheard" {
			return deaf(ctx, r)
		}
		return echo("b")(ctx, r)
	})
	a.run()
	b.run()
	for _, n := range nodes {
		replies, unreached, err := n.Ask(t.Context(), broker.Request{Kind: "k", Body: []byte("1")})
		if err != nil || len(unreached) > 0 {
			t.Errorf("Ask on %s: unreached %q, %v", n.Name, unreached, err)
		}
		got := make(map[string]string)
		for _, r := range replies {
			got[r.Node] = string(r.Body)
		}
		if diff := cmp.Diff(map[string]string{a.Name: "a|k|1", b.Name: "b|k|1"}, got); diff != "" {
			t.Errorf("replies on %s (-want +got):\n%s", n.Name, diff)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	replies, unreached, err := a.Ask(ctx, broker.Request{Kind: "unheard"})
	if err != nil || len(replies) != 1 || replies[0].Node != a.Name || !slices.Equal(unreached, []string{b.Name}) {
		t.Errorf("Ask = %d replies, unreached %q, %v; want a's reply and %q unreached", len(replies), unreached, err, b.Name)
	}
}

func twoRevoke(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	now := time.Now().Truncate(time.Second)
	_, before := b.inForce()
	r := broker.Revocation{User: "bob", Before: now, Expires: now.Add(time.Hour)}
	a.revoke(r)
	got, after := b.inForce()
	if diff := cmp.Diff([]broker.Revocation{r}, got); diff != "" {
		t.Errorf("in force on b (-want +got):\n%s", diff)
	}
	if before == after {
		t.Errorf("b's version is still %d", after)
	}
	b.revoke(broker.Revocation{User: "bob"})
	if got, _ := a.inForce(); len(got) > 0 {
		t.Errorf("in force on a: %+v, after b took it back", got)
	}
}

func twoEnd(t testing.TB, f Factory) {
	a, b := startTwo(t, f, Settings{})
	a.subscribe("general")
	b.subscribe("general")
	a.fill("general", 3)
	b.delivered("general", 3)
	a.stop()
	b.publish(b.say("general", "on"))
	if got := texts(b.delivered("general", 4)); got[3] != "on" {
		t.Errorf("b delivered %q", got)
	}
	_, err := a.Publish(t.Context(), broker.Publication{Message: a.say("general", "off")})
	isErr(t, "Publish on the node that has ended", err, broker.ErrClosed)
}
