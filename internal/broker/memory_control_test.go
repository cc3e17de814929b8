package broker

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAskReturnsInTwoSecondsThoughNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b, stop := runServing(t, func(context.Context, Request) Reply { <-release; return Reply{} })
		begin := time.Now()
		replies, unreached, err := b.Ask(t.Context(), Request{Kind: "k"})
		if took := time.Since(begin); took != 2*time.Second || err != nil || len(replies) > 0 || !slices.Equal(unreached, []string{"m1"}) {
			t.Errorf("Ask = %v, %q, %v after %v; want m1 unreached after 2 s", replies, unreached, err, took)
		}
		ended := make(chan struct{})
		go func() { stop(); close(ended) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("Run returned while a question was being answered")
		default:
		}
		close(release)
		<-ended
	})
}

func TestAnAskerIsLetGoWhenRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := runServing(t, func(ctx context.Context, _ Request) Reply { <-ctx.Done(); return Reply{} })
		begin := time.Now()
		asked := make(chan error)
		go func() {
			_, _, err := b.Ask(t.Context(), Request{})
			asked <- err
		}()
		synctest.Wait()
		go stop()
		if err := <-asked; !errors.Is(err, ErrClosed) || time.Since(begin) > 0 {
			t.Errorf("Ask = %v after %v, want ErrClosed at once", err, time.Since(begin))
		}
	})
}

func TestExpiredRevocationsAreForgotten(t *testing.T) {
	inBubble(t, MemoryConfig{}, func(t *testing.T, b *Memory) {
		for _, r := range []Revocation{{User: "ann", Expires: time.Now().Add(time.Minute)}, {User: "bob", Expires: time.Now().Add(time.Hour)}} {
			if err := b.Revoke(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if rs, _, _ := b.Revocations(t.Context()); len(rs) != 1 || rs[0].User != "bob" {
			t.Errorf("in force: %+v, want bob's alone", rs)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.revoked) != 1 {
			t.Errorf("%d revocations are held, want 1", len(b.revoked))
		}
	})
}

func TestNothingIsAcceptedBeforeRun(t *testing.T) {
	b := NewMemory(MemoryConfig{})
	if _, err := b.Publish(t.Context(), Publication{Message: say("general", "1")}); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish = %v, want ErrClosed", err)
	}
	b.Subscribe("general") // calls no Sink
	if got := known(b); got != 0 {
		t.Errorf("%d rooms are known, want 0", got)
	}
}

// runServing runs a Memory named m1 that answers.
func runServing(t *testing.T, f func(context.Context, Request) Reply) (b *Memory, stop func()) {
	return runWith(t, MemoryConfig{NodeID: "m1"}, func(b *Memory) { b.Serve(f) })
}
