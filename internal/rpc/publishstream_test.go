package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
)

// remote is a broker that does not look like the embedded one: its items overlap.
type remote struct{ broker.Broker }

// parts are a node's, published to in either way.
func parts(n *node.Node, overlapping bool) Parts {
	p := Parts{Publisher: n.Publisher(), Broker: n.Broker(), Hub: n.Hub()}
	if overlapping {
		p.Broker = remote{p.Broker}
	}
	return p
}

func bothWays(t *testing.T, test func(t *testing.T, overlapping bool)) {
	for name, overlapping := range map[string]bool{"at once": false, "overlapping": true} {
		t.Run(name, func(t *testing.T) { test(t, overlapping) })
	}
}

func TestAStreamAnswersEachItemInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, overlapping bool) {
		s := serveParts(t, Config{}, parts(core(t), overlapping), nil)
		st, err := s.pub.PublishStream(within10s(t))
		if err != nil {
			t.Fatal(err)
		}
		const n, rooms = 5000, 9
		sent := make(chan error, 1)
		go func() {
			var err error
			for i := 0; i < n && err == nil; i++ {
				it := item(fmt.Sprint("r", i%rooms), fmt.Sprint(i))
				if i%10 == 3 {
					it.Message.Data = "{" // refused
				}
				err = st.Send(&realtimev1.PublishStreamRequest{Item: it, Tag: uint64(n - i)})
			}
			sent <- errors.Join(err, st.CloseSend())
		}()
		want := make([][]string, rooms)
		for i := range n {
			resp, err := st.Recv()
			if err != nil {
				t.Fatalf("answer %d: %v", i, err)
			}
			r := resp.GetResult().GetReceipt()
			if resp.GetTag() != uint64(n-i) || (r == nil) != (i%10 == 3) || r != nil && r.GetRoom() != fmt.Sprint("r", i%rooms) {
				t.Fatalf("answer %d: %v", i, resp)
			}
			if r != nil {
				want[i%rooms] = append(want[i%rooms], fmt.Sprint(i))
			}
		}
		if _, err := st.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the end: %v", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		for room, w := range want {
			if got := s.kept(t, fmt.Sprint("r", room)); !slices.Equal(got, w) {
				t.Errorf("room %d holds %d messages, want the %d that were accepted, in order", room, len(got), len(w))
			}
		}
	})
}

// A slow room holds up the answers behind it, but not other rooms' items, and no more than the window.
func TestAStreamsItemsOverlapUpToTheWindow(t *testing.T) {
	release := make(chan struct{})
	b := &bus{answer: func(_ context.Context, p broker.Publication) (broker.Receipt, error) {
		if p.Message.Room == "slow" {
			<-release
		}
		return broker.Receipt{ID: message.ID{Position: 1}}, nil
	}}
	s := serveParts(t, Config{}, Parts{Publisher: over(t, b, gate{}), Broker: b}, nil)
	st, err := s.pub.PublishStream(within10s(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range window + 10 {
		room := "quick"
		if i%16 == 0 {
			room = "slow"
		}
		if err := st.Send(&realtimev1.PublishStreamRequest{Item: item(room, "1"), Tag: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	// One slow item is with the bus, all quick ones of the window have been.
	until(t, "the window is full", func() bool { return len(b.published()) == 1+window-window/16 })
	close(release)
	for i := range window + 10 {
		if resp, err := st.Recv(); err != nil || resp.GetTag() != uint64(i) {
			t.Fatalf("answer %d: %v, %v", i, resp, err)
		}
	}
	if n := len(b.published()); n != window+10 {
		t.Errorf("%d published", n)
	}
}

// waiting is a gate that opens when told to.
type waiting struct{ open chan struct{} }

func (g waiting) Ready(ctx context.Context, _ message.Room) error {
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAStreamStopsReadingWhileARoomCannotFollow(t *testing.T) {
	b, g := &bus{}, waiting{make(chan struct{})}
	s := serveParts(t, Config{}, Parts{Publisher: over(t, b, g), Broker: broker.NewMemory(broker.MemoryConfig{})}, nil)
	st, err := s.pub.PublishStream(within10s(t))
	if err != nil {
		t.Fatal(err)
	}
	// gRPC's flow control lets so much through that nobody reads, and no more.
	const size, n = 32 << 10, 100
	var mu sync.Mutex
	sent, done := 0, make(chan error, 1)
	go func() {
		for range n {
			if err := st.Send(&realtimev1.PublishStreamRequest{Item: item("r", `"`+string(slices.Repeat([]byte("a"), size))+`"`)}); err != nil {
				done <- err
				return
			}
			mu.Lock()
			sent++
			mu.Unlock()
		}
		done <- st.CloseSend()
	}()
	select {
	case err := <-done:
		t.Fatalf("all was sent to a stream that does not read: %v", err)
	case <-waitUntilStill(t, func() int { mu.Lock(); defer mu.Unlock(); return sent }):
	}
	if got := b.published(); got != nil {
		t.Errorf("%d published through a closed gate", len(got))
	}
	close(g.open)
	for i := range n {
		if resp, err := st.Recv(); err != nil || resp.GetResult().GetReceipt() == nil {
			t.Fatalf("answer %d: %v, %v", i, resp, err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitUntilStill is closed when a count has not changed for twenty looks.
func waitUntilStill(t *testing.T, count func() int) <-chan struct{} {
	t.Helper()
	still := make(chan struct{})
	last, same := count(), 0
	until(t, "the count stands still", func() bool {
		if n := count(); n == last {
			same++
		} else {
			last, same = n, 0
		}
		return same == 20
	})
	close(still)
	return still
}

func TestAnItemHasItsTime(t *testing.T) {
	bothWays(t, func(t *testing.T, overlapping bool) {
		b := &bus{answer: func(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
			if p.Message.Room != "hangs" {
				return broker.Receipt{ID: message.ID{Position: 1}}, nil
			}
			<-ctx.Done()
			return broker.Receipt{}, ctx.Err()
		}}
		p := Parts{Publisher: over(t, b, gate{}), Broker: b}
		if !overlapping {
			p.Broker = broker.NewMemory(broker.MemoryConfig{})
		}
		s := serveParts(t, Config{Timeout: 20 * time.Millisecond}, p, nil)
		st, err := s.pub.PublishStream(within10s(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range []string{"a", "hangs", "b"} {
			if err := st.Send(&realtimev1.PublishStreamRequest{Item: item(room, "1")}); err != nil {
				t.Fatal(err)
			}
		}
		var got []*realtimev1.PublishResult
		for range 3 {
			resp, err := st.Recv()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, resp.GetResult())
		}
		if got, want := outcomes(t, got), []string{"a", "DeadlineExceeded UNSPECIFIED", "b"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestAStreamsItemsAreHeldToTheRate(t *testing.T) {
	s := serveParts(t, Config{Rate: 5}, parts(core(t), false), nil)
	st, err := s.pub.PublishStream(within10s(t))
	if err != nil {
		t.Fatal(err)
	}
	limited := 0
	for range 50 {
		if err := st.Send(&realtimev1.PublishStreamRequest{Item: item("r", "1")}); err != nil {
			t.Fatal(err)
		}
		resp, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e := resp.GetResult().GetError(); e != nil {
			limited++
			if e.GetReason() != realtimev1.ErrorReason_ERROR_REASON_RATE_LIMITED || e.GetRetryAfter().AsDuration() <= 0 || e.GetRetryAfter().AsDuration() > 200*time.Millisecond {
				t.Fatalf("refused with %v", e)
			}
		}
	}
	if got := s.Stats().RateLimited; limited == 0 || got != uint64(limited) || len(s.kept(t, "r")) != 50-limited {
		t.Errorf("%d of 50 refused, %d counted", limited, got)
	}
}

// Who streams through a drain loses nothing: what was published was answered, and what was not answered is sent again.
func TestADrainTearsNoItemOfAStream(t *testing.T) {
	bothWays(t, func(t *testing.T, overlapping bool) {
		n := core(t)
		const rooms, enough = 5, 2000
		first := serveParts(t, Config{}, parts(n, overlapping), nil)
		answered := streamThroughDrain(t, first, rooms, enough)
		second := serveParts(t, Config{}, parts(n, overlapping), nil)
		kept := 0
		for r := range rooms {
			kept += len(second.kept(t, fmt.Sprint("r", r)))
		}
		if kept != answered {
			t.Errorf("%d are published, %d were answered", kept, answered)
		}
		st, err := second.pub.PublishStream(within10s(t))
		if err != nil {
			t.Fatal(err)
		}
		from := answered / 2 // half of it once more
		total := answered + 100
		go func() {
			for i := from; i < total; i++ {
				if st.Send(keyed(i, rooms)) != nil {
					return
				}
			}
			_ = st.CloseSend()
		}()
		for i := from; i < total; i++ {
			resp, err := st.Recv()
			if err != nil || resp.GetTag() != uint64(i) || resp.GetResult().GetReceipt().GetDuplicate() != (i < answered) {
				t.Fatalf("item %d of %d answered: %v, %v", i, answered, resp, err)
			}
		}
		for r := range rooms {
			var want []string
			for i := r; i < total; i += rooms {
				want = append(want, fmt.Sprint(i))
			}
			if got := second.kept(t, fmt.Sprint("r", r)); !slices.Equal(got, want) {
				t.Errorf("room %d holds %d messages, want %d, each once and in order", r, len(got), len(want))
			}
		}
	})
}

func keyed(i, rooms int) *realtimev1.PublishStreamRequest {
	it := item(fmt.Sprint("r", i%rooms), fmt.Sprint(i))
	it.IdempotencyKey = it.GetMessage().GetData()
	return &realtimev1.PublishStreamRequest{Item: it, Tag: uint64(i)}
}

// streamThroughDrain sends without end, drains once enough is answered, and returns how many were.
func streamThroughDrain(t *testing.T, s *served, rooms, enough int) (answered int) {
	t.Helper()
	st, err := s.pub.PublishStream(within10s(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := 0; st.Send(keyed(i, rooms)) == nil; i++ { // fails when the stream has ended
		}
	})
	for {
		resp, err := st.Recv()
		if err != nil {
			if got, _ := read(t, err); got.Code != codes.Unavailable || got.Reason != "realtime/DRAINING" || got.Retry == 0 {
				t.Errorf("the end: %v, want DRAINING", err)
			}
			if answered < enough {
				t.Errorf("%d answered", answered)
			}
			return answered
		}
		if resp.GetTag() != uint64(answered) || resp.GetResult().GetReceipt() == nil || resp.GetResult().GetReceipt().GetDuplicate() {
			t.Fatalf("answer %d: %v", answered, resp)
		}
		if answered++; answered == enough {
			wg.Go(func() { s.Shutdown(t.Context()) })
		}
	}
}

// A stream that says nothing is not in the way of an end, nor one whose item is on its way.
func TestADrainEndsAStreamThatWaits(t *testing.T) {
	bothWays(t, func(t *testing.T, overlapping bool) {
		arrived, release := make(chan struct{}, 1), make(chan struct{})
		b := &bus{answer: func(ctx context.Context, _ broker.Publication) (broker.Receipt, error) {
			arrived <- struct{}{}
			<-release
			return broker.Receipt{ID: message.ID{Position: 1}}, ctx.Err() // not ended by the drain
		}}
		p := Parts{Publisher: over(t, b, gate{}), Broker: b}
		if !overlapping {
			p.Broker = broker.NewMemory(broker.MemoryConfig{})
		}
		s := serveParts(t, Config{Timeout: time.Minute}, p, nil)
		var busy, idle realtimev1.PublisherService_PublishStreamClient
		for _, st := range []*realtimev1.PublisherService_PublishStreamClient{&busy, &idle} {
			var err error
			if *st, err = s.pub.PublishStream(within10s(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := busy.Send(&realtimev1.PublishStreamRequest{Item: item("r", "1"), Tag: 9}); err != nil {
			t.Fatal(err)
		}
		<-arrived
		ended := make(chan struct{})
		go func() { defer close(ended); s.Shutdown(within10s(t)) }()
		if _, err := idle.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the idle one: %v", err)
		}
		close(release)
		if resp, err := busy.Recv(); err != nil || resp.GetTag() != 9 || resp.GetResult().GetReceipt() == nil {
			t.Errorf("the item under way: %v, %v", resp, err)
		}
		if _, err := busy.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("the busy one: %v", err)
		}
		<-ended
		if got := s.log.records(t); got != nil {
			t.Errorf("logged: %v", got)
		}
	})
}

// Whoever leaves takes nothing back: what was read is published.
func TestACallerThatLeavesFreesItsStream(t *testing.T) {
	bothWays(t, func(t *testing.T, overlapping bool) {
		s := serveParts(t, Config{}, parts(core(t), overlapping), nil)
		ctx, leave := context.WithCancel(t.Context())
		st, err := s.pub.PublishStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := st.Send(keyed(i, 3)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := st.Recv(); err != nil {
			t.Fatal(err)
		}
		leave()
		s.Shutdown(t.Context()) // returns when nothing of the stream is left
		if got := s.log.records(t); got != nil {
			t.Errorf("logged: %v", got)
		}
	})
}

func TestAnItemThatIsNoMessageEndsTheStream(t *testing.T) {
	s := serveParts(t, Config{}, parts(core(t), false), nil)
	st, err := s.pub.PublishStream(within10s(t))
	if err != nil {
		t.Fatal(err)
	}
	it := item("r", `"`+string(slices.Repeat([]byte("a"), 4<<20))+`"`)
	if err := st.Send(&realtimev1.PublishStreamRequest{Item: it}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an item above 4 MiB: %v, want RESOURCE_EXHAUSTED, as any call", err)
	}
	s.Shutdown(t.Context())
	if got := s.log.records(t); got != nil {
		t.Errorf("what callers do wrong is logged: %v", got)
	}
}
