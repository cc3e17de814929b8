package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var rooms = []contract{
	{"Live names no tip in a room without messages, and what follows is delivered", liveWithoutTip},
	{"Live names the newest message, and what follows is delivered", liveTip},
	{"a room subscribed while others publish misses nothing after its tip", liveUnderLoad},
	{"a room subscribed twice is delivered once", subscribedTwice},
	{"a room that was not subscribed is kept, not delivered", notSubscribed},
	{"Unsubscribe stops the entries, and subscribing again gives Live again", resubscribe},
	{"many rooms at once are delivered, each in its order", manyRooms},
}

func liveWithoutTip(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	if got := n.sink.lives("general"); !slices.Equal(got, []message.Position{0}) {
		t.Errorf("Live named %d, want 0 once", got)
	}
	r := n.publish(n.say("general", "1"))
	if e := n.delivered("general", 1)[0]; e.Message.ID != r.ID || e.Prev != 0 {
		t.Errorf("the first entry is %v with prev %d, want %v with 0", e.Message.ID, e.Prev, r.ID)
	}
}

func liveTip(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	rs := n.fill("general", 3)
	n.subscribe("general")
	if got, want := n.sink.lives("general"), []message.Position{rs[2].ID.Position}; !slices.Equal(got, want) {
		t.Errorf("Live named %d, want %d", got, want)
	}
	r := n.publish(n.say("general", "3"))
	if e := n.delivered("general", 1)[0]; e.Message.ID != r.ID || e.Prev != rs[2].ID.Position {
		t.Errorf("the first entry is %v with prev %d, want %v with %d", e.Message.ID, e.Prev, r.ID, rs[2].ID.Position)
	}
}

func liveUnderLoad(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	var publishers sync.WaitGroup
	enough := make(chan struct{})
	for range 4 {
		publishers.Go(func() {
			for open := true; open; {
				if _, err := n.Publish(t.Context(), broker.Publication{Message: n.say("general", "x")}); err != nil {
					t.Errorf("Publish = %v, want nil", err)
					return
				}
				select {
				case <-enough:
					open = false
				default:
				}
			}
		})
	}
	stop := sync.OnceFunc(func() {
		close(enough)
		publishers.Wait()
	})
	defer stop()
	n.until("history begins", func() bool { return n.page(message.Query{Room: "general", Limit: 1}).Tip != 0 })
	n.subscribe("general")
	n.delivered("general", 50)
	stop()
	last := n.publish(n.say("general", "last"))
	var live []message.Entry
	n.until("the last message is delivered", func() bool {
		live = n.sink.entries("general")
		return live[len(live)-1].Message.ID == last.ID
	})
	p := n.page(message.Query{Room: "general", From: n.sink.lives("general")[0], Limit: 100_000})
	same(t, "delivered, as kept after the tip", p.Entries, live)
}

func subscribedTwice(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	n.fill("general", 3)
	n.delivered("general", 3)
	n.Subscribe("general")
	n.publish(n.say("general", "end"))
	if got := texts(n.delivered("general", 4)); !slices.Equal(got, []string{"0", "1", "2", "end"}) {
		t.Errorf("delivered %q", got)
	}
}

func notSubscribed(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("other")
	n.fill("general", 3)
	n.publish(n.hint("general", "3"))
	n.fill("other", 3)
	n.delivered("other", 3)
	if got := texts(n.kept("general")); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("kept %q, want 0 to 2", got)
	}
	if got := n.sink.entries("general"); len(got) > 0 { // the police has said so as well
		t.Errorf("delivered %q without a subscription", texts(got))
	}
}

func resubscribe(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	n.subscribe("fence")
	n.publish(n.say("general", "on"))
	n.delivered("general", 1)
	n.Unsubscribe("general")
	n.Unsubscribe("never")
	var last broker.Receipt
	fence, missed := 0, message.Low(0)
	n.until("a message is not delivered any more", func() bool {
		last = n.publish(n.say("general", "off"))
		for range 3 { // what goes round meanwhile would have brought it
			fence++
			n.publish(n.say("fence", "%d", fence))
			n.delivered("fence", fence)
		}
		missed = last.ID.Low
		return !slices.ContainsFunc(n.sink.entries("general"), func(e message.Entry) bool { return e.Message.ID.Low == missed })
	})
	n.subscribe("general")
	if got := n.sink.lives("general"); len(got) != 2 || got[1] != last.ID.Position {
		t.Errorf("Live named %d, want twice, the second time %d", got, last.ID.Position)
	}
	r := n.publish(n.say("general", "on again"))
	n.until("a message is delivered again", func() bool {
		es := n.sink.entries("general")
		e := es[len(es)-1]
		return e.Message.ID == r.ID && e.Prev == last.ID.Position
	})
	for _, e := range n.sink.entries("general") {
		if e.Message.ID.Low == missed {
			t.Error("what was published while the room was not subscribed was delivered afterwards")
		}
	}
}

func manyRooms(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	name := func(i int) message.Room { return message.Room(fmt.Sprintf("room/%d", i)) }
	parallel(8, func(w int) {
		for i := w; i < 200; i += 8 {
			n.Subscribe(name(i))
		}
	})
	for i := range 200 {
		n.until("all rooms are live", func() bool { return len(n.sink.lives(name(i))) > 0 })
	}
	parallel(8, func(w int) {
		for k := range 5 {
			for i := w; i < 200; i += 8 {
				if _, err := n.Publish(t.Context(), broker.Publication{Message: n.say(name(i), "%d", k)}); err != nil {
					t.Errorf("Publish = %v, want nil", err)
				}
			}
		}
	})
	for i := range 200 {
		if got := texts(n.delivered(name(i), 5)); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
			t.Fatalf("room %q: delivered %q", name(i), got)
		}
	}
}
