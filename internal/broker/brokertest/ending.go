package brokertest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

var ending = []contract{
	{"nothing is accepted once Run has ended", closed},
	{"what was under way when Run ended reaches no Sink afterwards", endUnderLoad},
	{"a question under way when Run ends is ended with it", endWhileAsked},
	{"no goroutine is left when Run has ended", noLeak},
}

func closed(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(echo("one"))
	n.run()
	n.subscribe("general")
	n.fill("general", 3)
	n.delivered("general", 3)
	n.stop()
	ctx := t.Context()
	_, err := n.Publish(ctx, broker.Publication{Message: n.say("general", "late")})
	isErr(t, "Publish", err, broker.ErrClosed)
	_, err = n.Publish(ctx, broker.Publication{Message: n.hint("general", "late"), Caller: "a", Key: "k"})
	isErr(t, "Publish of an ephemeral message with a key", err, broker.ErrClosed)
	isErr(t, "Delete", n.Delete(ctx, "general"), broker.ErrClosed)
	_, err = n.History(ctx, message.Query{Room: "general", Limit: 1})
	isErr(t, "History", err, broker.ErrClosed)
	_, _, err = n.Ask(ctx, broker.Request{Kind: "k"})
	isErr(t, "Ask", err, broker.ErrClosed)
	isErr(t, "Revoke", n.Revoke(ctx, broker.Revocation{All: true}), broker.ErrClosed)
	_, _, err = n.Revocations(ctx)
	isErr(t, "Revocations", err, broker.ErrClosed)
	n.Subscribe("general") // neither waits, and the police hears of no Live
	n.Subscribe("other")
	n.Unsubscribe("general")
}

func endUnderLoad(t testing.TB, f Factory) {
	n := start(t, f, Settings{})
	n.subscribe("general")
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for i := 0; ; i++ {
				n.Subscribe(message.Room(fmt.Sprintf("room-%d", i%1000)))
				if _, err := n.Publish(t.Context(), broker.Publication{Message: n.say("general", "%d", i)}); err != nil {
					isErr(t, "Publish", err, broker.ErrClosed)
					return
				}
			}
		})
	}
	n.delivered("general", 50)
	n.stop()
	others.Wait()
}

func endWhileAsked(t testing.TB, f Factory) {
	n := prepare(t, f, 1, Settings{})[0]
	asked := make(chan struct{})
	n.Serve(func(ctx context.Context, r broker.Request) broker.Reply {
		close(asked)
		return deaf(ctx, r)
	})
	n.run()
	var asker sync.WaitGroup
	asker.Go(func() {
		if replies, _, err := n.Ask(t.Context(), broker.Request{Kind: "k"}); len(replies) > 0 {
			t.Errorf("Ask = %v, %v, want no reply", replies, err)
		}
	})
	n.await(asked, "the question arrives")
	n.stop()
	asker.Wait()
}

func noLeak(t testing.TB, f Factory) {
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, others) }) // the first one registered is the last to run
	n := prepare(t, f, 1, Settings{})[0]
	n.Serve(echo("one"))
	n.run()
	n.subscribe("general")
	hammer(t, "general", 4, 10, n)
	n.delivered("general", 40)
	if _, _, err := n.Ask(t.Context(), broker.Request{Kind: "k"}); err != nil {
		t.Errorf("Ask = %v, want nil", err)
	}
}
