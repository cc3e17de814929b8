package hub

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/slack5/realtime/internal/message"
)

// sink is a Writer that takes everything and counts.
type sink struct{ bytes *atomic.Int64 }

func (w sink) TryWrite(b []byte) (int, error) { w.bytes.Add(int64(len(b))); return len(b), nil }
func (sink) Touch() uint64                    { return 0 }
func (sink) Resume()                          {}
func (sink) Shut(int)                         {}
func (sink) Release()                         {}

// nowhere is a feed without history.
type nowhere struct{ h *Hub }

func (f *nowhere) Subscribe(r message.Room) { f.h.Live(r, 0, false) }
func (*nowhere) Unsubscribe(message.Room)   {}
func (*nowhere) Now() message.Position      { return message.At(1, 0) }
func (*nowhere) History(context.Context, message.Query) (message.Page, error) {
	return message.Page{}, nil
}

func running(tb testing.TB, cfg Config) *Hub {
	f := &nowhere{}
	f.h = New(cfg, f, message.NewMinter(1), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // ended before the clean-ups that wait
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.h.Run(ctx) })
	tb.Cleanup(func() { cancel(); wg.Wait() })
	return f.h
}

func fillRoom(tb testing.TB, h *Hub, name message.Room, n int, bytes *atomic.Int64) {
	tb.Helper()
	for range n {
		s, err := h.Open(Open{ID: "s", User: "s", Writer: sink{bytes}, Joins: []Join{{Room: name}}, Anchor: name, Fallback: name})
		if err != nil {
			tb.Fatal(err)
		}
		if err := s.AwaitJoins(context.Background()); err != nil { //nolint:usetesting // as above
			tb.Fatal(err)
		}
	}
}

// eventually spins until cond holds: what it waits for happens on another goroutine at once.
func eventually(tb testing.TB, cond func() bool) {
	tb.Helper()
	for i := 0; !cond(); i++ {
		if i > 1<<30 {
			tb.Fatal("it never happened")
		}
		runtime.Gosched()
	}
}

func chat(i int) message.Entry {
	return message.Entry{Message: &message.Message{ID: message.ID{Position: message.At(2, 0) + message.Position(i), Low: 1 << 63}, Type: "chat", Room: "x", From: "u", Data: []byte(`{"text":"hello, everyone in this room"}`), Timestamp: 1}, Prev: message.At(2, 0) + message.Position(i-1)}
}

func TestDeliveryAllocatesNothing(t *testing.T) {
	const members = 1000
	h := running(t, Config{Shards: 1})
	var bytes atomic.Int64
	fillRoom(t, h, "x", members, &bytes)
	i := 1
	deliver := func() {
		before := h.stats.delivered.Load()
		h.Append(chat(i))
		i++
		eventually(t, func() bool { return h.stats.delivered.Load() == before+members })
	}
	for range 300 {
		deliver()
	}
	if n := testing.AllocsPerRun(200, deliver); n > 4 {
		t.Errorf("%.1f allocations for %d deliveries: more than the message itself and the log's growth", n, members)
	}
}

// The cost of a delivery is flat in the number of members.
func BenchmarkDelivery(b *testing.B) {
	for _, members := range []int{1, 100, 1000, 18000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			h := running(b, Config{Shards: 1})
			var bytes atomic.Int64
			fillRoom(b, h, "x", members, &bytes)
			b.ReportAllocs()
			n := uint64(0)
			for b.Loop() {
				h.Append(chat(int(n) + 1))
				n++
				for h.stats.delivered.Load() < n*uint64(members) {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*uint64(members)), "ns/delivery")
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	h := running(b, Config{Shards: 1})
	h.acquire("x")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		h.Append(chat(i))
	}
}
