package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var keys = []contract{
	{"a repeated key gets the first receipt and publishes nothing", repeatedKey},
	{"a key repeated at the same moment publishes once", racingKeys},
	{"an ephemeral message's key is remembered too", ephemeralKey},
	{"other callers, keys and rooms do not collide with a key", separateKeys},
	{"a key outlives the deletion of its message", keyOutlivesDelete},
	{"a key is free again when its time is over", keyExpires},
}

func repeatedKey(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	first := n.publishKey(n.say("general", "1"), "ann", "k")
	n.publish(n.say("general", "2"))
	again := n.say("general", "other content")
	again.Timestamp += 1000
	got := n.publishKey(again, "ann", "k")
	if want := (broker.Receipt{ID: first.ID, Timestamp: first.Timestamp, Duplicate: true}); first.Duplicate || got != want {
		t.Errorf("first %+v, second %+v, want %+v", first, got, want)
	}
	n.publish(n.say("general", "3"))
	want := []string{"1", "2", "3"}
	if live, kept := texts(n.delivered("general", 3)), texts(n.kept("general")); !slices.Equal(live, want) || !slices.Equal(kept, want) {
		t.Errorf("delivered %q, kept %q, want %q", live, kept, want)
	}
}

func racingKeys(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	raceKeys(t, n)
	n.publish(n.say("general", "end"))
	if got := texts(n.delivered("general", 2)); len(got) != 2 {
		t.Errorf("delivered %q, want one message and the end", got)
	}
}

// raceKeys publishes sixteen messages with one key at once, from the nodes in turn, and checks that one is the first.
func raceKeys(t testing.TB, nodes ...*node) {
	t.Helper()
	var mu sync.Mutex
	ids := make(map[message.ID]int)
	firsts := 0
	parallel(16, func(i int) {
		n := nodes[i%len(nodes)]
		r, err := n.Publish(t.Context(), broker.Publication{Message: n.say("general", "%d", i), Caller: "ann", Key: "k"})
		if err != nil {
			t.Errorf("Publish = %v, want nil", err)
		}
		mu.Lock()
		defer mu.Unlock()
		ids[r.ID]++
		if !r.Duplicate {
			firsts++
		}
	})
	if len(ids) != 1 || firsts != 1 {
		t.Errorf("16 publications of one key have %d ids, %d are not called duplicates; want 1 and 1", len(ids), firsts)
	}
}

func ephemeralKey(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	first := n.publishKey(n.hint("general", "1"), "ann", "k")
	second := n.publishKey(n.hint("general", "2"), "ann", "k")
	if !second.Duplicate || second.ID.Low != first.ID.Low {
		t.Errorf("first %+v, second %+v, want the first's identity, as a duplicate", first, second)
	}
	n.publish(n.say("general", "end"))
	if got := texts(n.delivered("general", 2)); !slices.Equal(got, []string{"1", "end"}) {
		t.Errorf("delivered %q, want the first and the end", got)
	}
}

func separateKeys(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	type use struct {
		room        message.Room
		caller, key string
	}
	long := strings.Repeat("k", message.MaxKeyBytes)
	seen := make(map[message.ID]use)
	for i, u := range []use{
		{"general", "ann", "k"},
		{"general", "bob", "k"},
		{"general", "ann", "K"},
		{"general", "ann", "k2"},
		{"other", "ann", "k"},
		{message.Global, "ann", "k"},
		{message.UserRoom("ann"), "ann", "k"},
		{"general", "annk", ""}, // no key at all, twice
		{"general", "annk", ""},
		{"general", "", "annk"},
		{"general", "a", "nnk"},
		{"general", "an", "nk"},
		{"general", "ann", long},
		{"general", "ann", long[1:]},
	} {
		r := n.publishKey(n.say(u.room, "%d", i), u.caller, u.key)
		if other, twice := seen[r.ID]; r.Duplicate || twice {
			t.Errorf("%+v got the receipt of %+v", u, other)
		}
		seen[r.ID] = u
	}
}

func keyOutlivesDelete(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	first := n.publishKey(n.say("general", "1"), "ann", "k")
	if err := n.Delete(t.Context(), "general"); err != nil {
		t.Fatalf("Delete = %v", err)
	}
	if again := n.publishKey(n.say("general", "2"), "ann", "k"); !again.Duplicate || again.ID != first.ID {
		t.Errorf("Publish after Delete = %+v, want the first receipt %+v", again, first)
	}
}

func keyExpires(t testing.TB, f Factory) {
	n := start(t, f, Settings{IdempotencyTTL: f.ShortestTTL})
	begin := time.Now()
	first := n.publishKey(n.say("general", "first"), "ann", "k")
	n.until(fmt.Sprintf("a key is free after %v", f.ShortestTTL), func() bool {
		return !n.publishKey(n.say("general", "again"), "ann", "k").Duplicate
	})
	if took := time.Since(begin); took < f.ShortestTTL {
		t.Errorf("the key was free after %v, want %v", took, f.ShortestTTL)
	}
	kept := n.kept("general")
	if len(kept) != 2 || kept[0].Message.ID != first.ID {
		t.Errorf("kept %q, want the first and the one after the key's time", texts(kept))
	}
}
