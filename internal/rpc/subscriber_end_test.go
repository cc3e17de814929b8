package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
)

// positions are what a backend keeps: the last id of each room, whatever event told it.
type positions map[string]string

func (p positions) request() *realtimev1.SubscribeRequest {
	req := &realtimev1.SubscribeRequest{}
	for room, id := range p {
		req.Rooms = append(req.Rooms, from(room, id))
	}
	return req
}

func (p positions) take(resp *realtimev1.SubscribeResponse) {
	if m := resp.GetMessage(); m != nil {
		p[m.GetRoom()] = m.GetId()
	} else if s := resp.GetSubscribed(); s != nil {
		p[s.GetRoom()] = s.GetLatestId()
	}
}

// A backend is killed at any moment and called again with what it knew: it has every message once, in order.
func TestABackendThatIsKilledAndComesBackMissesNothing(t *testing.T) {
	const each = 1500
	rooms := []string{"a", "b", "@global"}
	b := backendOf(t, Config{}, node.Config{Hub: hub.Config{RoomBytes: 16 << 10}})
	pos, next := positions{}, map[string]int{}
	for _, r := range rooms {
		pos[r] = ""
	}
	f := open(t, b.dial(t), pos.request())
	for range rooms {
		pos.take(f.recv())
	}
	var wg sync.WaitGroup
	for _, r := range rooms {
		wg.Go(func() {
			for i := range each {
				b.publish(t, message.Room(r), fmt.Sprint(i))
			}
		})
	}
	got, kills := 0, 0
	for got < len(rooms)*each {
		for n := rand.IntN(2 * each / 4); n > 0 && got < len(rooms)*each; n-- {
			resp := f.recv()
			pos.take(resp)
			m := resp.GetMessage()
			if m == nil {
				if g := resp.GetGap(); g != nil {
					t.Fatalf("a gap: %v", g)
				}
				continue
			}
			if want := fmt.Sprintf("%s chat %d", m.GetRoom(), next[m.GetRoom()]); words(resp) != want {
				t.Fatalf("came %q, want %q", words(resp), want)
			}
			next[m.GetRoom()]++
			got++
		}
		f.leave()
		f = open(t, b.dial(t), pos.request())
		kills++
	}
	wg.Wait()
	t.Logf("%d messages, killed %d times", got, kills)
}

// pattern is long data that tells its number.
func pattern(i, size int) string { return fmt.Sprintf(`"%06d%s"`, i, strings.Repeat("x", size)) }

// What is not read does not stay with the node: it lies in history, and is fetched from there when it is.
func TestAReaderThatPausesIsRefilledFromHistory(t *testing.T) {
	const count, size = 600, 16 << 10
	b := backendOf(t, Config{}, node.Config{Hub: hub.Config{RoomBytes: 128 << 10}})
	f := b.live(t, "room")
	for i := range count {
		b.publish(t, "room", pattern(i, size))
		if i == 40 { // more than fits on the way, and all of it in the log
			until(t, "the stream is blocked", func() bool { return b.node.Hub().Stats().Blocked == 1 })
		}
	}
	if st := b.node.Hub().Stats(); st.LogBytes > count*size/4 || st.Delivered > count/4 {
		t.Fatalf("the log holds %d bytes and %d were delivered: the test does not test it", st.LogBytes, st.Delivered)
	}
	for i := range count {
		if m := f.recv().GetMessage(); m.GetData() != pattern(i, size) {
			t.Fatalf("message %d is %.20q", i, m.GetData())
		}
	}
	b.publish(t, "room", `"live"`)
	f.expect(`room chat "live"`)
	if st := b.node.Hub().Stats(); st.Sessions != 1 {
		t.Errorf("%d sessions", st.Sessions)
	}
}

func TestAReaderThatNeverReadsIsEnded(t *testing.T) {
	const count, size = 100, 16 << 10
	cfg := hub.Config{WriteTimeout: 300 * time.Millisecond, CloseTimeout: 100 * time.Millisecond}
	b := backendOf(t, Config{}, node.Config{Hub: cfg})
	f := b.live(t, "room")
	for i := range count {
		b.publish(t, "room", pattern(i, size))
	}
	until(t, "the hub has let it go", func() bool { return b.node.Hub().Stats().Sessions == 0 })
	all, err := f.end()
	want := told{Code: codes.ResourceExhausted, Reason: "realtime/OVERLOADED", Retry: time.Second}
	if got, text := read(t, err); !cmp.Equal(want, got) || !strings.Contains(text, "last ids") {
		t.Errorf("ended with %v, want %+v", err, want)
	}
	pos := positions{"room": ""}
	for i, resp := range all {
		if resp.GetMessage().GetData() != pattern(i, size) {
			t.Fatalf("message %d is %.20q", i, words(resp))
		}
		pos.take(resp)
	}
	if len(all) == 0 || len(all) == count {
		t.Fatalf("%d messages were read", len(all))
	}
	got := len(all)
	for calls := 0; got < count && calls < 20; calls++ { // on a busy machine it may once more be too slow
		again, _ := b.upTo(t, pos, count-got)
		for _, resp := range again {
			if resp.GetMessage().GetData() != pattern(got, size) {
				t.Fatalf("after it came back message %d is %.20q", got, words(resp))
			}
			got++
		}
	}
	if got != count {
		t.Errorf("%d of %d messages came", got, count)
	}
	if got := b.log.records(t); got != nil {
		t.Errorf("logged: %v", got)
	}
}

// upTo calls again from what is known and reads at most n messages.
func (b *backend) upTo(t *testing.T, pos positions, n int) (all []*realtimev1.SubscribeResponse, err error) {
	t.Helper()
	f := open(t, b.sub, pos.request())
	defer f.leave()
	for len(all) < n {
		resp, err := f.stream.Recv()
		if err != nil {
			return all, err
		}
		if pos.take(resp); resp.GetMessage() != nil {
			all = append(all, resp)
		}
	}
	return all, nil
}

// What lies in the pipe is handed over before a stream ends with its node.
func TestADrainHandsOverWhatWasWritten(t *testing.T) {
	const count, size = 220, 1 << 10 // more than the windows of a connection hold, less than the pipe alone
	b := backendOf(t, Config{}, node.Config{})
	idle := b.live(t, "quiet")
	f := open(t, b.dial(t), &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", "")}})
	f.expect("subscribed room")
	for i := range count {
		b.publish(t, "room", pattern(i, size))
	}
	until(t, "all is in the pipe", func() bool { return b.node.Hub().Stats().Delivered == count })
	ended := make(chan struct{})
	go func() { defer close(ended); b.Shutdown(t.Context()) }()
	_, err := idle.end()
	draining := told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}
	if got, _ := read(t, err); !cmp.Equal(draining, got) {
		t.Errorf("an idle stream ended with %v", err)
	}
	all, err := f.end()
	if got, _ := read(t, err); !cmp.Equal(draining, got) {
		t.Errorf("ended with %v", err)
	}
	for i, resp := range all {
		if resp.GetMessage().GetData() != pattern(i, size) {
			t.Fatalf("message %d is %.20q", i, words(resp))
		}
	}
	if len(all) != count {
		t.Errorf("%d of %d messages came", len(all), count)
	}
	<-ended
	until(t, "the hub has let them go", func() bool { return b.node.Hub().Stats().Sessions == 0 })
}

// flood publishes to the room until the test's end.
func (b *backend) flood(t *testing.T, room message.Room) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			b.publish(t, room, pattern(i, 1<<10))
		}
	})
	return func() { cancel(); wg.Wait() }
}

func TestARoomThatIsNeverSilentDoesNotHoldUpTheEnd(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := b.live(t, "room")
	defer b.flood(t, "room")()
	f.recv()
	ended := make(chan error, 1)
	go func() { _, err := f.end(); ended <- err }()
	b.Shutdown(t.Context())
	if got, _ := read(t, <-ended); got.Code != codes.Unavailable || got.Reason != "realtime/DRAINING" {
		t.Errorf("ended with %+v", got)
	}
	until(t, "the hub has let it go", func() bool { return b.node.Hub().Stats().Sessions == 0 })
}

func TestAReaderThatDoesNotReadDoesNotHoldUpTheEnd(t *testing.T) {
	b := backendOf(t, Config{Timeout: 200 * time.Millisecond}, node.Config{})
	b.live(t, "room")
	stop := b.flood(t, "room")
	until(t, "the stream is blocked", func() bool { return b.node.Hub().Stats().Blocked > 0 })
	stop()
	b.Shutdown(t.Context())
	until(t, "the hub has let it go", func() bool { return b.node.Hub().Stats().Sessions == 0 })
}

func TestACallerThatLeavesLeavesNothingBehind(t *testing.T) {
	for name, paused := range map[string]bool{"idle": false, "blocked": true} {
		t.Run(name, func(t *testing.T) {
			b := backendOf(t, Config{}, node.Config{})
			f := b.live(t, "room", "@global")
			if paused {
				for i := range 100 {
					b.publish(t, "room", pattern(i, 16<<10))
				}
				until(t, "the stream is blocked", func() bool { return b.node.Hub().Stats().Blocked == 1 })
			}
			f.leave()
			until(t, "no session, no member", func() bool {
				st := b.node.Hub().Stats()
				return st.Sessions == 0 && st.Rooms == 0
			})
			if got := b.log.records(t); got != nil {
				t.Errorf("logged: %v", got)
			}
		})
	}
}

// dead is a feed of rooms that never become live.
type dead struct{ broker.Broker }

func (dead) Subscribe(message.Room)   {}
func (dead) Unsubscribe(message.Room) {}
func (dead) Now() message.Position    { return message.At(time.Now().UnixMilli(), 0) }

func TestARoomThatIsNotToBeHadEndsTheStream(t *testing.T) {
	h := hub.New(hub.Config{JoinTimeout: 100 * time.Millisecond}, dead{}, message.NewMinter(1), slog.New(slog.DiscardHandler))
	run(t, h.Run)
	b := served1(t, Config{}, Parts{Hub: h})
	_, err := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", "")}}).end()
	want := told{Code: codes.Unavailable, Reason: "realtime/BROKER_UNAVAILABLE", Retry: time.Second}
	if got, _ := read(t, err); !cmp.Equal(want, got) {
		t.Errorf("ended with %v, want %+v", err, want)
	}
	until(t, "the hub has let it go", func() bool { return h.Stats().Sessions == 0 })
}

func TestAHubThatHasEndedTakesNoStream(t *testing.T) {
	h := hub.New(hub.Config{}, dead{}, message.NewMinter(1), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Fatal(err)
	}
	b := served1(t, Config{}, Parts{Hub: h})
	_, err := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", "")}}).end()
	want := told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}
	if got, _ := read(t, err); !cmp.Equal(want, got) {
		t.Errorf("ended with %v, want %+v", err, want)
	}
}
