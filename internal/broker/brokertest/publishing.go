package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var publishing = []contract{
	{"a message published after Now lies after Now", afterNow},
	{"parallel publishers get one order, and each message comes once", oneOrder},
	{"each publisher's messages keep their order", publisherOrder},
	{"what is delivered and kept is what was published", unchanged},
	{"large data arrives byte for byte", largeData},
	{"who is excluded is still excluded in history", exclusions},
	{"an ephemeral message bears the position of the stored one before it", ephemeralPosition},
	{"an ephemeral message in a room without messages bears a Now", ephemeralNow},
	{"an ephemeral message is in no history and breaks no chain", ephemeralNotKept},
	{"a context that has ended publishes nothing", endedContext},
	{"rooms with odd names do not hear each other", oddRooms},
}

func afterNow(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	for i := range 50 {
		now := n.Now()
		room := message.Room(fmt.Sprintf("room-%d", i%10))
		if r := n.publish(n.say(room, "%d", i)); r.ID.Position <= now {
			t.Fatalf("message %d of %q has position %d, Now was %d before it", i, room, r.ID.Position, now)
		}
		if later := n.Now(); later < now {
			t.Fatalf("Now = %d after it was %d", later, now)
		}
	}
}

func oneOrder(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	hammer(t, "general", 16, 50, n)
	live := n.delivered("general", 16*50)
	kept := n.kept("general")
	if diff := cmp.Diff(texts(live), texts(kept)); diff != "" {
		t.Errorf("delivered (-), kept (+):\n%s", diff)
	}
	chained(t, kept, 0)
	once(t, texts(kept), 16, 50)
}

// once checks that what hammer published is there, each message once.
func once(t testing.TB, got []string, publishers, count int) {
	t.Helper()
	var want []string
	for p := range publishers {
		for i := range count {
			want = append(want, fmt.Sprintf("%d/%d", p, i))
		}
	}
	got = slices.Sorted(slices.Values(got))
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published (-), delivered (+):\n%s", diff)
	}
}

func publisherOrder(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	hammer(t, "general", 16, 50, n)
	inOrder(t, texts(n.delivered("general", 16*50)))
}

// inOrder checks that what hammer published is in each publisher's order.
func inOrder(t testing.TB, got []string) {
	t.Helper()
	next := make(map[string]int)
	for _, s := range got {
		publisher, number, _ := strings.Cut(s, "/")
		if want := fmt.Sprint(next[publisher]); number != want {
			t.Fatalf("publisher %s: message %s came where %s was due", publisher, number, want)
		}
		next[publisher]++
	}
}

func unchanged(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	m := n.say("general", "")
	m.Type, m.From, m.Timestamp = "order.placed", "billing service", 1_500_000_000_123
	m.Data = []byte(`{"a": [1,2.50 , "\u00e9é"]}`)
	before := *m
	r := n.publish(m)
	if diff := cmp.Diff(before, *m); diff != "" {
		t.Errorf("Publish changed the message it was given (-before +after):\n%s", diff)
	}
	want := before
	want.ID.Position = r.ID.Position
	if r != (broker.Receipt{ID: want.ID, Timestamp: want.Timestamp}) {
		t.Errorf("Publish = %+v, want the message's id and timestamp", r)
	}
	for from, es := range map[string][]message.Entry{"Append": n.delivered("general", 1), "History": n.kept("general")} {
		if len(es) != 1 {
			t.Fatalf("%s has %d entries, want 1", from, len(es))
		}
		if diff := cmp.Diff(want, *es[0].Message, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("message of %s (-want +got):\n%s", from, diff)
		}
	}
}

func largeData(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	var b bytes.Buffer
	b.WriteString("{ \"pi\" : 3.141592653589793238462643383279502884197,\t\"b\":\"\\u2028\\u0000\\ud83d\\ude00 \u2028 😀 |{}\",\r\n \"n\":9007199254740993,\"fill\":\"")
	b.WriteString(strings.Repeat("ab|é", (message.DefaultMaxDataBytes-b.Len()-2)/5))
	b.WriteString("\"}")
	data := b.Bytes()
	m := n.say("general", "")
	m.Data = data
	n.publish(m)
	for from, es := range map[string][]message.Entry{"Append": n.delivered("general", 1), "History": n.kept("general")} {
		if got := es[0].Message.Data; !bytes.Equal(got, data) {
			t.Errorf("data of %s has %d bytes and differs from the %d published", from, len(got), len(data))
		}
	}
}

func exclusions(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	m := n.say("general", "1")
	m.ExcludeSessions = []string{"s1", strings.Repeat("s", message.MaxSessionIDBytes)}
	m.ExcludeUsers = []string{"bob", "zoë {x}"}
	n.publish(m)
	for from, es := range map[string][]message.Entry{"Append": n.delivered("general", 1), "History": n.kept("general")} {
		got := es[0].Message
		if !slices.Equal(got.ExcludeSessions, m.ExcludeSessions) || !slices.Equal(got.ExcludeUsers, m.ExcludeUsers) {
			t.Errorf("%s excludes %q and %q, want %q and %q", from, got.ExcludeSessions, got.ExcludeUsers, m.ExcludeSessions, m.ExcludeUsers)
		}
	}
}

func ephemeralPosition(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	stored := n.publish(n.say("general", "1"))
	m := n.hint("general", "2")
	r := n.publish(m)
	n.publish(n.say("general", "3"))
	e := n.delivered("general", 3)[1]
	if want := (message.ID{Position: stored.ID.Position, Low: m.ID.Low}); r.ID.Low != m.ID.Low || e.Message.ID != want {
		t.Errorf("ephemeral message: receipt %v, delivered %v, want %v", r.ID, e.Message.ID, want)
	}
	if !e.Message.ID.Low.Unstored() || e.Flags != message.Ephemeral || e.Prev != 0 {
		t.Errorf("ephemeral entry: bit P %v, flags %b, prev %d", e.Message.ID.Low.Unstored(), e.Flags, e.Prev)
	}
}

func ephemeralNow(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	before := n.Now()
	n.publish(n.hint("general", "1"))
	at := n.delivered("general", 1)[0].Message.ID.Position
	if after := n.Now(); at < before || at > after {
		t.Errorf("position %d, want one between %d and %d", at, before, after)
	}
	if r := n.publish(n.say("general", "2")); r.ID.Position <= at {
		t.Errorf("the stored message after it has position %d, not above %d", r.ID.Position, at)
	}
}

func ephemeralNotKept(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	for i := range 6 {
		if i%2 == 0 {
			n.publish(n.hint("general", "%d", i))
		} else {
			n.publish(n.say("general", "%d", i))
		}
	}
	if got := texts(n.delivered("general", 6)); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
		t.Errorf("delivered %q, want 0 to 5 in order", got)
	}
	kept := n.kept("general")
	if got := texts(kept); !slices.Equal(got, []string{"1", "3", "5"}) {
		t.Errorf("kept %q, want the stored ones alone", got)
	}
	chained(t, kept, 0)
}

func endedContext(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.Publish(ctx, broker.Publication{Message: n.say("general", "never"), Caller: "a", Key: "k"})
	isErr(t, "Publish", err, context.Canceled)
	// The next one is the room's first, and takes the key: nothing has happened.
	if r := n.publishKey(n.say("general", "1"), "a", "k"); r.Duplicate {
		t.Error("the key was taken by a message that was not published")
	}
	if got := texts(n.delivered("general", 1)); !slices.Equal(got, []string{"1"}) {
		t.Errorf("delivered %q, want 1 alone", got)
	}
	chained(t, n.kept("general"), 0)
}

func oddRooms(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	users := []string{
		"1", "a b", "a%20b", "100%", "%", "{x}", "x", "a}{b", "Ünï çødé", "a:b@c", "../x", "a/b", "*", "[a-z]?", `back\slash"`,
		strings.Repeat("é", message.MaxUserBytes/2),
	}
	all := []message.Room{message.Global, "global", "1", "user/1", "user:1", "a/b", "A/b", "a:b@c", "room:global", "x", message.Room(strings.Repeat("r", message.MaxRoomBytes))}
	for _, u := range users {
		all = append(all, message.UserRoom(u))
	}
	for _, room := range all {
		n.subscribe(room)
	}
	for _, room := range all {
		n.publish(n.say(room, "%s", room))
	}
	for _, room := range all {
		for from, es := range map[string][]message.Entry{"Append": n.delivered(room, 1), "History": n.kept(room)} {
			if got := texts(es); !slices.Equal(got, []string{string(room)}) || es[0].Message.Room != room {
				t.Errorf("room %q: %s has %q", room, from, got)
			}
		}
	}
}
