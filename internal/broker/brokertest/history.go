package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var history = []contract{
	{"history is read forwards page by page", pagesForward},
	{"history is read backwards page by page", pagesBackward},
	{"From is exclusive, and may lie between entries or beyond them", fromBetween},
	{"a page keeps to Bytes, but brings one entry whatever its size", pageBytes},
	{"a room without history is an empty page", emptyPage},
	{"a page names the tip and how far back the room is vouched for", pageTip},
	{"history is read while others publish", readUnderLoad},
	{"a context that has ended reads nothing", endedRead},
	{"rooms with history are listed by name", listedRooms},
}

// twenty has a room with twenty messages.
func twenty(t testing.TB, f Factory) (n *node, all []message.Entry) {
	t.Helper()
	n = start(t, f, Settings{})
	n.fill("general", 20)
	all = n.kept("general")
	if len(all) != 20 {
		t.Fatalf("history has %d entries, want 20", len(all))
	}
	chained(t, all, 0)
	return n, all
}

func listedRooms(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	for _, room := range []message.Room{"b", "team-2", "team-1", "a", message.Global, message.UserRoom("u"), "gone"} {
		n.publish(n.say(room, "1"))
	}
	n.publish(n.hint("hints", "1"))
	n.Broker.Subscribe("empty")
	if err := n.Broker.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix string
		after  message.Room
		limit  int
		want   []message.Room
	}{
		{"", "", 100, []message.Room{"a", "b", "team-1", "team-2"}},
		{"", "", 3, []message.Room{"a", "b", "team-1"}},
		{"", "b", 100, []message.Room{"team-1", "team-2"}},
		{"team-", "", 100, []message.Room{"team-1", "team-2"}},
		{"team-", "team-1", 100, []message.Room{"team-2"}},
		{"x", "", 100, nil},
		{"@", "", 100, nil},
	} {
		got, err := n.Broker.Rooms(t.Context(), c.prefix, c.after, c.limit)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("Rooms(%q, %q, %d) = %q, %v, want %q", c.prefix, c.after, c.limit, got, err, c.want)
		}
	}
}

// same checks that a page holds these entries, with their Prev.
func same(t testing.TB, what string, want, got []message.Entry) {
	t.Helper()
	show := cmp.Transformer("entry", func(e message.Entry) string {
		return fmt.Sprintf("%v after %d: %s", e.Message.ID, e.Prev, e.Message.Data)
	})
	if len(want)+len(got) == 0 {
		return
	}
	if diff := cmp.Diff(want, got, show); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func pagesForward(t testing.TB, f Factory) {
	n, all := twenty(t, f)
	for _, limit := range []int{1, 3, 7, 10, 19, 20, 21, 100} {
		from := message.Position(0)
		for at := 0; at < len(all); at += limit {
			end := min(at+limit, len(all))
			p := n.page(message.Query{Room: "general", From: from, Limit: limit})
			same(t, fmt.Sprintf("page of %d from entry %d", limit, at), all[at:end], p.Entries)
			if more := end < len(all); p.More != more {
				t.Errorf("page of %d from entry %d: More = %v, want %v", limit, at, p.More, more)
			}
			from = all[end-1].Message.ID.Position
		}
	}
}

func pagesBackward(t testing.TB, f Factory) {
	n, all := twenty(t, f)
	for _, limit := range []int{1, 3, 7, 10, 19, 20, 21, 100} {
		from := message.Position(0)
		for at := len(all); at > 0; at -= limit {
			begin := max(at-limit, 0)
			p := n.page(message.Query{Room: "general", From: from, Backward: true, Limit: limit})
			same(t, fmt.Sprintf("page of %d back from entry %d", limit, at), all[begin:at], p.Entries)
			if more := begin > 0; p.More != more {
				t.Errorf("page of %d back from entry %d: More = %v, want %v", limit, at, p.More, more)
			}
			from = all[begin].Message.ID.Position
		}
	}
}

func fromBetween(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	for i := range 5 { // apart, so that a position fits in between
		n.publish(n.say("general", "%d", i))
		last := n.Now()
		n.until("the clock goes on", func() bool { return n.Now() > last.Next() })
	}
	all := n.kept("general")
	pos := func(i int) message.Position { return all[i].Message.ID.Position }
	for _, c := range []struct {
		what          string
		from          message.Position
		older, newer  []message.Entry
		fromTheNewest bool
	}{
		{what: "nothing", from: 0, newer: all, older: all},
		{what: "a position before the first", from: pos(0) - 1, newer: all},
		{what: "the first", from: pos(0), newer: all[1:]},
		{what: "a position between two", from: pos(2) + 1, newer: all[3:], older: all[:3]},
		{what: "a position just before the fourth", from: pos(3) - 1, newer: all[3:], older: all[:3]},
		{what: "the third", from: pos(2), newer: all[3:], older: all[:2]},
		{what: "the last", from: pos(4), older: all[:4]},
		{what: "a position behind the last", from: pos(4) + 1, older: all},
		{what: "a position in a year", from: message.At(pos(4).Millis()+365*86_400_000, 7), older: all},
	} {
		newer := n.page(message.Query{Room: "general", From: c.from, Limit: 10})
		same(t, "after "+c.what, c.newer, newer.Entries)
		older := n.page(message.Query{Room: "general", From: c.from, Backward: true, Limit: 10})
		same(t, "before "+c.what, c.older, older.Entries)
		if newer.More || older.More {
			t.Errorf("from %s: More = %v forwards, %v backwards, want neither", c.what, newer.More, older.More)
		}
	}
}

func pageBytes(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	for range 10 {
		n.publish(n.say("general", "%s", strings.Repeat("x", 1000)))
	}
	all := n.kept("general")
	for _, backward := range []bool{false, true} {
		for _, c := range []struct{ bytes, least, most int }{{1, 1, 1}, {500, 1, 1}, {3900, 2, 3}, {7900, 4, 7}, {1 << 20, 10, 10}, {0, 10, 10}} {
			p := n.page(message.Query{Room: "general", Backward: backward, Limit: 100, Bytes: c.bytes})
			k := len(p.Entries)
			if k < c.least || k > c.most || p.More != (k < 10) {
				t.Errorf("Bytes %d, backward %v: %d entries, More = %v; want %d to %d of 10", c.bytes, backward, k, p.More, c.least, c.most)
				continue
			}
			want := all[:k]
			if backward {
				want = all[10-k:]
			}
			same(t, fmt.Sprintf("Bytes %d, backward %v", c.bytes, backward), want, p.Entries)
		}
	}
}

func emptyPage(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.publish(n.hint("hints", "1"))
	for _, room := range []message.Room{"nobody", "hints", message.UserRoom("{no} body")} {
		for _, q := range []message.Query{{Room: room, Limit: 10}, {Room: room, Limit: 10, Backward: true}, {Room: room, Limit: 10, From: n.Now()}} {
			p := n.page(q)
			if len(p.Entries) > 0 || p.More || p.Tip != 0 || p.Cut != 0 {
				t.Errorf("History(%+v) = %+v, want an empty page", q, p)
			}
			if p.Since == 0 || p.Since > n.Now() {
				t.Errorf("Since = %d, want a position up to Now %d", p.Since, n.Now())
			}
		}
	}
}

func pageTip(t testing.TB, f Factory) {
	n, all := twenty(t, f)
	tip := all[19].Message.ID.Position
	for _, q := range []message.Query{{Limit: 3}, {Limit: 3, Backward: true}, {From: tip, Limit: 3}, {From: all[0].Message.ID.Position, Backward: true, Limit: 3}} {
		q.Room = "general"
		p := n.page(q)
		if p.Tip != tip || p.Cut != 0 {
			t.Errorf("History(%+v): tip %d, cut %d, want %d and 0", q, p.Tip, p.Cut, tip)
		}
		// The bus is younger than its first message, and nothing has been forgotten yet.
		if p.Since == 0 || p.Since > all[0].Message.ID.Position {
			t.Errorf("History(%+v): since %d, want a position up to the first one's %d", q, p.Since, all[0].Message.ID.Position)
		}
	}
}

func readUnderLoad(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	parallel(4, func(i int) {
		if i > 0 {
			hammer(t, "general", 1, 100, n)
			return
		}
		from := message.Position(0)
		for got := 0; got < 300 && !t.Failed(); {
			p, err := n.History(t.Context(), message.Query{Room: "general", From: from, Limit: 7})
			if err != nil {
				t.Errorf("History = %v, want nil", err)
				return
			}
			for _, e := range p.Entries {
				if e.Prev != from {
					t.Errorf("entry %d: prev %d, the one before has %d", got, e.Prev, from)
				}
				from = e.Message.ID.Position
				got++
			}
			if p.More && len(p.Entries) != 7 {
				t.Errorf("a page of %d, where 7 were asked for and there is more", len(p.Entries))
			}
		}
	})
	if got := n.kept("general"); len(got) != 300 {
		t.Errorf("kept %d, want 300", len(got))
	}
	if p := n.page(message.Query{Room: "general", Limit: 300}); p.More || len(p.Entries) != 300 {
		t.Errorf("a page of all 300: %d entries, More = %v", len(p.Entries), p.More)
	}
}

func endedRead(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.fill("general", 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.History(ctx, message.Query{Room: "general", Limit: 3})
	isErr(t, "History", err, context.Canceled)
	isErr(t, "Delete", n.Delete(ctx, "general"), context.Canceled)
	_, _, err = n.Revocations(ctx)
	isErr(t, "Revocations", err, context.Canceled)
	isErr(t, "Revoke", n.Revoke(ctx, broker.Revocation{All: true}), context.Canceled)
	if got := texts(n.kept("general")); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("kept %q after a Delete whose context had ended", got)
	}
}
