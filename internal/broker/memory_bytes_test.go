package broker

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/slack5/realtime/internal/message"
)

func TestTheLargestRoomsLoseTheirOldestFirst(t *testing.T) {
	const bound = 1 << 20
	b, _ := run(t, MemoryConfig{MaxBytes: bound})
	data := `"` + strings.Repeat("x", 998) + `"`
	var small []message.Position
	for range 20 {
		small = append(small, publish(t, b, say("small", data)))
	}
	positions := map[message.Room][]message.Position{}
	for i := range 5000 {
		for _, room := range []message.Room{"large", "larger", "larger"} {
			if i%2 == 0 || room == "larger" {
				positions[room] = append(positions[room], publish(t, b, say(room, data)))
			}
			if got := b.bytes.Load(); got > bound+2000 {
				t.Fatalf("%d bytes are charged, the bound is %d", got, bound)
			}
		}
	}
	if p := page(t, b, message.Query{Room: "small", Limit: 100}); len(p.Entries) != 20 || p.Entries[0].Message.ID.Position != small[0] {
		t.Errorf("the small room keeps %d messages, want all 20", len(p.Entries))
	}
	for room, all := range positions {
		p := page(t, b, message.Query{Room: room, Limit: 10_000})
		n := len(p.Entries)
		if n < 200 || n > 800 {
			t.Fatalf("room %q keeps %d messages, want some hundred", room, n)
		}
		first := p.Entries[0]
		if want := all[len(all)-n]; first.Message.ID.Position != want || first.Prev != all[len(all)-n-1] || p.Cut != 0 {
			t.Errorf("room %q begins at %d after %d, cut %d; want %d after %d, cut 0: expired, not deleted",
				room, first.Message.ID.Position, first.Prev, p.Cut, want, all[len(all)-n-1])
		}
	}
}

func TestTheBoundHoldsWhileManyPublish(t *testing.T) {
	const bound = 256 << 10
	b, stop := run(t, MemoryConfig{MaxBytes: bound})
	data := `"` + strings.Repeat("x", 998) + `"`
	var publishers sync.WaitGroup
	for i := range 8 {
		publishers.Go(func() {
			for k := range 2000 {
				if _, err := b.Publish(t.Context(), Publication{Message: say(message.Room(fmt.Sprintf("room-%d", (i+k)%20)), data)}); err != nil {
					t.Errorf("Publish = %v, want nil", err)
				}
				if got := b.bytes.Load(); got > bound+8*2000 {
					t.Errorf("%d bytes are charged, the bound is %d", got, bound)
					return
				}
			}
		})
	}
	publishers.Wait()
	stop()
	rooms, kept := int64(0), int64(0)
	for i := range b.stripes {
		for _, r := range b.stripes[i].list() {
			rooms += r.bytes
			for k := range r.entries.n {
				kept += cost(r.entries.at(k))
			}
			if r.entries.n > 0 {
				kept += roomCost
			}
		}
	}
	if charged := b.bytes.Load(); charged != rooms || charged != kept {
		t.Errorf("%d bytes are charged in all, %d in the rooms, %d for what is kept", charged, rooms, kept)
	}
}

func TestRoomsComeDownToOneLevel(t *testing.T) {
	for _, c := range []struct {
		sizes        []int64
		excess, want int64
	}{
		{[]int64{100}, 30, 70},
		{[]int64{100, 100}, 30, 85},
		{[]int64{10, 100, 50}, 30, 70},
		{[]int64{10, 100, 50}, 50, 50},
		{[]int64{10, 100, 50}, 70, 40},
		{[]int64{10, 100, 50}, 160, 0},
		{[]int64{10, 100, 50}, 500, 0},
		{nil, 5, 0},
	} {
		var rs []sizedRoom
		for _, n := range c.sizes {
			rs = append(rs, sizedRoom{bytes: n})
		}
		if got := levelFor(rs, c.excess); got != c.want {
			t.Errorf("levelFor(%d, %d) = %d, want %d", c.sizes, c.excess, got, c.want)
		}
	}
}

func TestWhatIsChargedIsWhatTheHeapHolds(t *testing.T) {
	if got := unsafe.Sizeof(message.Message{}); got > 160 {
		t.Fatalf("a Message has %d bytes: messageCost reckons with 160", got)
	}
	for _, size := range []int{2, 100, 1000, 10_000} {
		t.Run(fmt.Sprintf("%d bytes of data", size), func(t *testing.T) {
			b, _ := run(t, MemoryConfig{})
			before := heap()
			names := [10]string{}
			for i := range names {
				names[i] = strings.Repeat(fmt.Sprint(i), message.MaxRoomBytes)
			}
			count := 20_000_000 / (size + 1000)
			for i := range count {
				// A buffer of which data is a part, as of a frame, and a name of its own.
				buf := append(make([]byte, 0, 4096), bytes.Repeat([]byte{'1'}, size+20)...)
				m := say(message.Room(strings.Clone(names[i%10])), "")
				m.Data, m.From = buf[20:], strings.Clone("a-user-of-ours")
				publish(t, b, m)
			}
			held, charged := float64(heap()-before), float64(b.bytes.Load())
			t.Logf("%.0f bytes are charged, the heap holds %.0f", charged, held)
			if charged < held*0.85 || charged > held*1.35 {
				t.Errorf("%.0f bytes are charged, the heap holds %.0f", charged, held)
			}
			if each := held / float64(count); each > float64(size)*1.3+300 {
				t.Errorf("a message holds %.0f bytes", each)
			}
			runtime.KeepAlive(b)
		})
	}
}

func TestRoomsWithOneMessageAreChargedWhatTheyCost(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	before := heap()
	for i := range 50_000 {
		publish(t, b, say(message.Room(fmt.Sprintf("a-room-of-some-length-%d", i)), `"x"`))
	}
	held, charged := float64(heap()-before), float64(b.bytes.Load())
	t.Logf("%.0f bytes are charged, the heap holds %.0f", charged, held)
	if charged < held*0.85 || charged > held*1.35 {
		t.Errorf("%.0f bytes are charged, the heap holds %.0f", charged, held)
	}
	runtime.KeepAlive(b)
}

func TestManySmallRoomsDoNotAllLoseTheirOnlyMessage(t *testing.T) {
	const bound = 1 << 20
	b, _ := run(t, MemoryConfig{MaxBytes: bound})
	full := false
	for i := range 10_000 {
		publish(t, b, say(message.Room(fmt.Sprint("room-", i)), `"x"`))
		got := b.bytes.Load()
		if full = full || got > bound*9/10; full && got < bound*3/4 {
			t.Fatalf("%d bytes are left of a bound of %d", got, bound)
		}
	}
	if !full {
		t.Error("the bound was not reached")
	}
}

func TestTheJanitorMakesPlaceBeforePublishersHaveTo(t *testing.T) {
	const bound = 1 << 20
	b, _ := run(t, MemoryConfig{MaxBytes: bound})
	for b.bytes.Load() <= bound-bound/16 {
		publish(t, b, say("general", `"x"`))
	}
	for deadline := time.After(10 * time.Second); b.bytes.Load() > bound-bound/8; {
		select {
		case <-deadline:
			t.Fatalf("%d bytes are charged still", b.bytes.Load())
		case <-time.After(time.Millisecond):
		}
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
