package broker

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
)

func BenchmarkPublish(b *testing.B) {
	data := `"` + strings.Repeat("x", 126) + `"`
	for name, change := range map[string]func(*message.Message){"stored": func(*message.Message) {}, "ephemeral": func(m *message.Message) { m.Ephemeral = true }} {
		b.Run(name, func(b *testing.B) {
			bus, _ := run(b, MemoryConfig{})
			bus.Subscribe("general")
			m := say("general", data)
			change(m)
			p := Publication{Message: m}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bus.Publish(b.Context(), p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublishWithKey(b *testing.B) {
	bus, _ := run(b, MemoryConfig{IdempotencyTTL: time.Second, MaxKeys: 1 << 30})
	m := say("general", `"x"`)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := bus.Publish(b.Context(), Publication{Message: m, Caller: "ann", Key: fmt.Sprint(i)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishIntoRooms(b *testing.B) {
	data := `"` + strings.Repeat("x", 126) + `"`
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			bus, _ := run(b, MemoryConfig{})
			ms := make([]*message.Message, n)
			for i := range ms {
				ms[i] = say(message.Room(fmt.Sprint("room-", i)), data)
				bus.Subscribe(ms[i].Room)
			}
			var at atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := int(at.Add(7919)); pb.Next(); i++ {
					if _, err := bus.Publish(b.Context(), Publication{Message: ms[i%n]}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkHistoryPage(b *testing.B) {
	bus, _ := run(b, MemoryConfig{})
	for range 10_000 {
		publish(b, bus, say("general", `"x"`))
	}
	b.ReportAllocs()
	for b.Loop() {
		page(b, bus, message.Query{Room: "general", Backward: true, Limit: 256, Bytes: 512 << 10})
	}
}

// BenchmarkSweep is a tick of the janitor over 100,000 rooms.
func BenchmarkSweep(b *testing.B) {
	bus, _ := run(b, MemoryConfig{})
	for i := range 100_000 {
		publish(b, bus, say(message.Room(fmt.Sprint("room-", i)), `"x"`))
	}
	b.ReportAllocs()
	for turn := 0; b.Loop(); turn++ {
		for i := range sweepStripes {
			bus.sweep(&bus.stripes[(turn*sweepStripes+i)%memoryStripes])
		}
	}
}
