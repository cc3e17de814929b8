package brokertest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var retention = []contract{
	{"a room keeps its newest messages, by count", keptByCount},
	{"a room keeps no message beyond its age", keptByAge},
	{"a room pattern decides how much is kept", keptByPattern},
	{"Delete empties history, tells members, and positions go on", deleteTells},
	{"Delete concerns one room, and one without messages not at all", deleteOne},
	{"what was deleted does not come back while others publish", deleteUnderLoad},
}

func keptByCount(t testing.TB, f Factory) {
	n := start(t, f, Settings{Retention: broker.Retention{Messages: 10}})
	n.subscribe("general")
	total := 10 + 2*f.Overkeep + 15
	rs := n.fill("general", total)
	var kept []message.Entry
	n.until(fmt.Sprintf("at most %d messages are kept", 10+f.Overkeep), func() bool {
		kept = n.kept("general")
		return len(kept) <= 10+f.Overkeep
	})
	if len(kept) < 10 {
		t.Fatalf("%d messages are kept, want at least 10", len(kept))
	}
	chained(t, kept, rs[total-len(kept)-1].ID.Position)
	for i, r := range rs[total-len(kept):] {
		if kept[i].Message.ID != r.ID {
			t.Fatalf("entry %d is %v, want %v: the newest are kept", i, kept[i].Message.ID, r.ID)
		}
	}
	if p := n.page(message.Query{Room: "general", Limit: total, Backward: true}); p.More || p.Tip != rs[total-1].ID.Position || p.Cut != 0 {
		t.Errorf("More = %v, tip %d, cut %d; want false, %d, 0", p.More, p.Tip, p.Cut, rs[total-1].ID.Position)
	}
	if got := n.delivered("general", total); len(got) != total {
		t.Errorf("%d were delivered, want all %d", len(got), total)
	}
}

func keptByAge(t testing.TB, f Factory) {
	n := start(t, f, Settings{Retention: broker.Retention{Age: f.ShortestAge}})
	n.subscribe("general")
	begin := time.Now()
	rs := n.fill("general", 3)
	tip := rs[2].ID.Position
	if kept := n.kept("general"); len(kept) != 3 && time.Since(begin) < f.ShortestAge {
		t.Errorf("kept %q before their time was over, want all 3", texts(kept))
	}
	n.until(fmt.Sprintf("nothing is kept after %v", f.ShortestAge), func() bool {
		p := n.page(message.Query{Room: "general", Limit: 10})
		if p.Tip != tip || p.Cut != 0 {
			t.Fatalf("tip %d, cut %d; want %d and 0 whatever has expired", p.Tip, p.Cut, tip)
		}
		return len(p.Entries) == 0 && !p.More
	})
	next := n.publish(n.say("general", "next"))
	if es := n.kept("general"); len(es) != 1 || es[0].Message.ID != next.ID || es[0].Prev != tip {
		t.Errorf("kept %q; want the next one, which tells that the one before it had %d", texts(es), tip)
	}
	n.delivered("general", 4)
}

func keptByPattern(t testing.TB, f Factory) {
	n := start(t, f, Settings{Patterns: map[string]broker.Retention{"brief/*": {Messages: 3}, "brief/not": {Messages: 1000}}})
	rooms := map[message.Room]bool{"brief/a": true, "brief/not": false, "brief": false, message.UserRoom("brief/a"): false}
	total := 3 + f.Overkeep + 17
	for room := range rooms {
		n.fill(room, total)
	}
	for room, brief := range rooms {
		if !brief {
			if got := len(n.kept(room)); got != total {
				t.Errorf("room %q keeps %d messages, want all %d", room, got, total)
			}
			continue
		}
		n.until(fmt.Sprintf("room %q keeps at most %d messages", room, 3+f.Overkeep), func() bool { return len(n.kept(room)) <= 3+f.Overkeep })
		if got := texts(n.kept(room)); len(got) < 3 || got[len(got)-1] != fmt.Sprint(total-1) {
			t.Errorf("room %q keeps %q, want the newest 3 at least", room, got)
		}
	}
}

func deleteTells(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	tip := n.fill("general", 5)[4].ID.Position
	n.delivered("general", 5)
	if err := n.Delete(t.Context(), "general"); err != nil {
		t.Fatalf("Delete = %v, want nil", err)
	}
	if p := n.page(message.Query{Room: "general", Limit: 10}); len(p.Entries) != 0 || p.More || p.Tip != tip || p.Cut != tip {
		t.Errorf("page after Delete = %+v, want none, tip and cut %d", p, tip)
	}
	n.until("members are told", func() bool { return slices.Equal(n.sink.deleted("general"), []message.Position{tip}) })
	next := n.publish(n.say("general", "next"))
	if next.ID.Position <= tip {
		t.Errorf("the next message has position %d, the deleted one had %d", next.ID.Position, tip)
	}
	if e := n.delivered("general", 6)[5]; e.Message.ID != next.ID || e.Prev != tip {
		t.Errorf("delivered %v with prev %d, want %v with %d", e.Message.ID, e.Prev, next.ID, tip)
	}
	p := n.page(message.Query{Room: "general", Backward: true, Limit: 10})
	if got := texts(p.Entries); !slices.Equal(got, []string{"next"}) || p.Entries[0].Prev != tip || p.Cut != tip {
		t.Errorf("kept %q, cut %d, want the next one behind the cut %d", got, p.Cut, tip)
	}
}

func deleteOne(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("never")
	n.fill("general", 3)
	n.fill("other", 3)
	for _, room := range []message.Room{"never", "other", "unknown"} {
		if err := n.Delete(t.Context(), room); err != nil {
			t.Errorf("Delete(%q) = %v, want nil", room, err)
		}
	}
	if got := len(n.kept("general")); got != 3 {
		t.Errorf("room general keeps %d, want its 3", got)
	}
	if got := len(n.kept("other")); got != 0 {
		t.Errorf("room other keeps %d, want 0", got)
	}
	r := n.publish(n.say("never", "1"))
	if e := n.delivered("never", 1)[0]; e.Message.ID != r.ID || e.Prev != 0 {
		t.Errorf("the first message of a room deleted while it had none: prev %d", e.Prev)
	}
	if got := n.sink.deleted("never"); len(got) > 0 {
		t.Errorf("members of a room without messages were told of a deletion up to %d", got)
	}
}

func deleteUnderLoad(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	parallel(5, func(i int) {
		if i > 0 {
			hammer(t, "general", 1, 100, n)
			return
		}
		for range 10 {
			if err := n.Delete(t.Context(), "general"); err != nil {
				t.Errorf("Delete = %v, want nil", err)
			}
			p, err := n.History(t.Context(), message.Query{Room: "general", Limit: 1000})
			if err != nil {
				t.Errorf("History = %v, want nil", err)
			}
			for _, e := range p.Entries {
				if e.Message.ID.Position <= p.Cut {
					t.Errorf("position %d is kept, the cut is %d", e.Message.ID.Position, p.Cut)
				}
			}
		}
	})
	n.delivered("general", 400)
	p := n.page(message.Query{Room: "general", Limit: 1000})
	chained(t, p.Entries, p.Cut)
}
