package broker

import (
	"fmt"
	"sync"
	"testing"

	"github.com/slack5/realtime/internal/message"
)

// ear is a Sink that knows what it was told of each room.
type ear struct {
	deaf
	mu    sync.Mutex
	tips  map[message.Room]message.Position
	heard map[message.Room][]message.Entry
}

func (e *ear) Live(room message.Room, tip message.Position, _ bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tips[room] = tip
}

func (e *ear) Append(entry message.Entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[entry.Message.Room] = append(e.heard[entry.Message.Room], entry)
}

// listen has the ear hear what the Memory says from now on.
func listen(b *Memory) *ear {
	e := &ear{tips: make(map[message.Room]message.Position), heard: make(map[message.Room][]message.Entry)}
	var s Sink = e
	b.sink.Store(&s)
	return e
}

func TestASubscriptionAloneMakesNoRoom(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	e := listen(b)
	const rooms = 200
	name := func(i int) message.Room { return message.Room(fmt.Sprint("room-", i)) }
	for i := range rooms {
		b.Subscribe(name(i))
		b.Subscribe(name(i)) // it stays so
	}
	if n := known(b); n != 0 || len(e.tips) != rooms {
		t.Errorf("%d of %d rooms are live, and %d have a record", len(e.tips), rooms, n)
	}
	for i := range rooms / 2 {
		b.Unsubscribe(name(i))
	}
	for i := range rooms {
		publish(t, b, say(name(i), `1`))
		publish(t, b, say(name(i), `2`))
	}
	for i := range rooms {
		want := 2
		if i < rooms/2 {
			want = 0
		}
		if n := len(e.heard[name(i)]); n != want {
			t.Errorf("of room %d, %d entries were heard, want %d", i, n, want)
		}
	}
	left := 0
	for i := range b.stripes {
		left += len(b.stripes[i].subscribed)
	}
	if left != 0 {
		t.Errorf("%d rooms are noted beside their record", left)
	}
}

func TestAFirstMessageMeetsTheSubscriptionWheneverItComes(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	e := listen(b)
	for i := range 2000 {
		name := message.Room(fmt.Sprint("room-", i))
		var at message.Position
		var all sync.WaitGroup
		all.Go(func() { b.Subscribe(name) })
		all.Go(func() { at = publish(t, b, say(name, `1`)) })
		all.Wait()
		// Either its entry came, or Live had told of it.
		if heard, tip := e.heard[name], e.tips[name]; len(heard) > 1 || (len(heard) == 1) == (tip == at) {
			t.Fatalf("room %d: %d entries were heard, its tip was %v and the message's position %v", i, len(heard), tip, at)
		}
		all.Go(func() { b.Unsubscribe(name) })
		all.Go(func() { publish(t, b, say(name, `2`)) })
		all.Wait()
		before := len(e.heard[name])
		publish(t, b, say(name, `3`))
		if len(e.heard[name]) != before {
			t.Fatalf("room %d: something was heard after Unsubscribe had returned", i)
		}
	}
}
