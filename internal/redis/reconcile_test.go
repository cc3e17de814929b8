package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis/redistest"
)

type deaf struct{}

func (deaf) Append(message.Entry)                                                    {}
func (deaf) Live(message.Room, message.Position, bool)                               {}
func (deaf) Gap(message.Room, message.Position, message.Position, message.GapReason) {}
func (deaf) Deleted(message.Room, message.Position)                                  {}
func (deaf) Degraded(message.Room)                                                   {}
func (deaf) Restored(message.Room)                                                   {}

// A full journal is compared with a Redis that has all of it, and put back into one that has nothing.
func BenchmarkReconcile(b *testing.B) {
	for _, rooms := range []int{500, 20_000} {
		server := redistest.Start(b)
		bus := New(Config{Options: Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}}})
		ctx, cancel := context.WithCancel(b.Context())
		ready, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			_ = bus.Run(ctx, deaf{}, func() { close(ready) })
		}()
		<-ready
		data := fmt.Appendf(nil, "%q", strings.Repeat("x", 100))
		minter := message.NewMinter(1)
		fill := func() {
			begin := time.Now().Add(-10 * time.Second).UnixMilli()
			for i := range journalEntries {
				m := &message.Message{ID: message.ID{Low: minter.Low(0, false)}, Type: message.TypeChat, Data: data, Timestamp: begin}
				w := &written{
					room: message.Room(fmt.Sprint("room-", i%rooms)), pos: message.At(begin+int64(i/100), i%100), at: bus.elapsed(),
					env: string(appendEnv(nil, m, 0)),
				}
				w.prev = bus.journal.newest(w.room)
				bus.journal.add([]*written{w}, w.at, false)
			}
		}
		b.Run(fmt.Sprintf("lost/rooms=%d", rooms), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				before := bus.restored.Load()
				server.FlushAll()
				bus.journal.expire(bus.elapsed()+time.Hour, none)
				fill()
				b.StartTimer()
				for bus.restored.Load()-before < journalEntries { // a heartbeat may have begun it
					if !bus.reconcile(ctx, part{slots: allSlots}) {
						b.Fatal("not compared")
					}
				}
			}
		})
		b.Run(fmt.Sprintf("there/rooms=%d", rooms), func(b *testing.B) {
			for b.Loop() {
				if !bus.reconcile(ctx, part{slots: allSlots}) {
					b.Fatal("not compared")
				}
			}
		})
		cancel()
		<-ended
	}
}
