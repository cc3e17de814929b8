package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// deaf is a Sink that takes everything.
type deaf struct{}

func (deaf) Append(message.Entry)                                                    {}
func (deaf) Live(message.Room, message.Position, bool)                               {}
func (deaf) Gap(message.Room, message.Position, message.Position, message.GapReason) {}
func (deaf) Deleted(message.Room, message.Position)                                  {}
func (deaf) Degraded(message.Room)                                                   {}
func (deaf) Restored(message.Room)                                                   {}

var minter = message.NewMinter(1)

func say(room message.Room, data string) *message.Message {
	return &message.Message{ID: message.ID{Low: minter.Low(room.Tag(), false)}, Type: message.TypeChat, Room: room, Data: []byte(data), Timestamp: 1}
}

// run makes a Memory and runs it until the returned function is called, at the latest until the test ends.
func run(t testing.TB, cfg MemoryConfig) (b *Memory, stop func()) {
	t.Helper()
	return runWith(t, cfg, func(*Memory) {})
}

// runWith is run, with something done before.
func runWith(t testing.TB, cfg MemoryConfig, before func(b *Memory)) (b *Memory, stop func()) {
	t.Helper()
	b = NewMemory(cfg)
	before(b)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	ready := make(chan struct{})
	running.Go(func() {
		if err := b.Run(ctx, deaf{}, func() { close(ready) }); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	<-ready
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return b, stop
}

// publish publishes and returns the position.
func publish(t testing.TB, b *Memory, m *message.Message) message.Position {
	t.Helper()
	r, err := b.Publish(t.Context(), Publication{Message: m})
	if err != nil {
		t.Fatalf("Publish = %v, want nil", err)
	}
	return r.ID.Position
}

func page(t testing.TB, b *Memory, q message.Query) message.Page {
	t.Helper()
	p, err := b.History(t.Context(), q)
	if err != nil {
		t.Fatalf("History = %v, want nil", err)
	}
	return p
}

// known counts the rooms of which there is any state.
func known(b *Memory) (n int) {
	for i := range b.stripes {
		n += len(b.stripes[i].list())
	}
	return n
}

// inBubble runs f with a Memory in a bubble of its own time.
func inBubble(t *testing.T, cfg MemoryConfig, f func(t *testing.T, b *Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, stop := run(t, cfg)
		f(t, b)
		stop()
	})
}

func TestHistoryExpiresInIdleRoomsThatNobodyAsks(t *testing.T) {
	inBubble(t, MemoryConfig{Retention: Retention{Age: time.Minute}}, func(t *testing.T, b *Memory) {
		for i := range 500 {
			publish(t, b, say(message.Room(fmt.Sprint("room-", i)), `"x"`))
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if got := b.bytes.Load(); got < 500*messageCost {
			t.Fatalf("%d bytes are charged before anything has expired", got)
		}
		time.Sleep(time.Second + memoryStripes/sweepStripes*sweepEvery + time.Second)
		synctest.Wait()
		if got := b.bytes.Load(); got != 0 {
			t.Errorf("%d bytes are charged a sweep after everything has expired, want 0", got)
		}
	})
}

func TestARoomIsForgottenAnHourAfterItsRetention(t *testing.T) {
	inBubble(t, MemoryConfig{Retention: Retention{Age: time.Minute}}, func(t *testing.T, b *Memory) {
		tip := publish(t, b, say("quiet", "1"))
		b.Subscribe("held")
		publish(t, b, say("held", "1"))
		before := b.Now()
		time.Sleep(time.Minute + vouchFor - time.Second)
		p := page(t, b, message.Query{Room: "quiet", Limit: 1})
		if p.Tip != tip || p.Since > before {
			t.Errorf("just before: tip %d, since %d; want %d, and at most %d", p.Tip, p.Since, tip, before)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := known(b); got != 1 {
			t.Errorf("%d rooms are known, want the subscribed one alone", got)
		}
		p = page(t, b, message.Query{Room: "quiet", Limit: 1})
		if p.Tip != 0 || p.Since <= tip {
			t.Errorf("afterwards: tip %d, since %d; want 0, and above the forgotten %d", p.Tip, p.Since, tip)
		}
		if next := publish(t, b, say("quiet", "2")); next <= tip {
			t.Errorf("the next message has position %d, the forgotten one had %d", next, tip)
		}
		b.Unsubscribe("held")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := known(b); got != 1 { // quiet
			t.Errorf("%d rooms are known after the last member has left, want 1", got)
		}
	})
}

func TestRoomsThatNeverHadAMessageLeaveNothing(t *testing.T) {
	inBubble(t, MemoryConfig{}, func(t *testing.T, b *Memory) {
		for i := range 1000 {
			room := message.Room(fmt.Sprint("room-", i))
			page(t, b, message.Query{Room: room, Limit: 1})
			b.Unsubscribe(room)
			if err := b.Delete(t.Context(), room); err != nil {
				t.Fatal(err)
			}
		}
		if got := known(b); got != 0 {
			t.Errorf("%d rooms are known after questions alone, want 0", got)
		}
		for i := range 1000 {
			room := message.Room(fmt.Sprint("room-", i))
			b.Subscribe(room)
			hint := say(room, "1")
			hint.Ephemeral = true
			publish(t, b, hint)
			b.Unsubscribe(room)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := known(b); got != 0 {
			t.Errorf("%d rooms are known after a sweep, want 0", got)
		}
	})
}

func TestEmptyRoomsAreForgottenBeforeTheyFillTheMemory(t *testing.T) {
	inBubble(t, MemoryConfig{MaxBytes: 1, Retention: Retention{Messages: -1}}, func(t *testing.T, b *Memory) {
		tips := make(map[message.Room]message.Position)
		for i := range 4 * minEmpty * memoryStripes {
			room := message.Room(fmt.Sprint("room-", i))
			tips[room] = publish(t, b, say(room, "1"))
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		b.Subscribe("room-0")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := known(b); got > minEmpty*memoryStripes+1 || got < minEmpty*memoryStripes*9/10 {
			t.Errorf("%d rooms are known, want about %d", got, minEmpty*memoryStripes)
		}
		if p := page(t, b, message.Query{Room: "room-0", Limit: 1}); p.Tip != tips["room-0"] {
			t.Errorf("a subscribed room's tip is %d, want %d", p.Tip, tips["room-0"])
		}
		for i := 1; i <= 1000; i++ {
			room := message.Room(fmt.Sprint("room-", len(tips)-i))
			if p := page(t, b, message.Query{Room: room, Limit: 1}); p.Tip != tips[room] {
				t.Fatalf("room %q is forgotten, though many are older", room)
			}
		}
		for room, tip := range tips {
			if p := page(t, b, message.Query{Room: room, Limit: 1}); p.Tip != tip && (p.Tip != 0 || p.Since < tip) {
				t.Fatalf("room %q is forgotten, its tip was %d, but it is vouched for since %d", room, tip, p.Since)
			}
			if next := publish(t, b, say(room, "2")); next <= tip {
				t.Fatalf("room %q: position %d after %d", room, next, tip)
			}
		}
	})
}

func TestPositionsGoOnWithinAMillisecondAndBeyondIt(t *testing.T) {
	inBubble(t, MemoryConfig{}, func(t *testing.T, b *Memory) {
		now, last := b.Now(), message.Position(0)
		for i := range 10_000 { // no time passes in a bubble: more than the 4096 of one millisecond
			p := publish(t, b, say("general", "1"))
			if p <= last || p <= now {
				t.Fatalf("message %d has position %d after %d, Now was %d", i, p, last, now)
			}
			last = p
		}
		if p := publish(t, b, say("other", "1")); p <= now {
			t.Errorf("another room's position %d is not above Now %d", p, now)
		}
	})
}

func TestPositionsGoOnWhenTheClockIsSetBack(t *testing.T) {
	inBubble(t, MemoryConfig{}, func(t *testing.T, b *Memory) {
		ahead := time.Now().Add(time.Hour)
		b.clock.read(ahead) // before it was set back
		first := publish(t, b, say("general", "1"))
		if first.Time().Before(ahead) {
			t.Errorf("position of %v, the clock was at %v before", first.Time(), ahead)
		}
		now := b.Now()
		if now >= first {
			t.Errorf("Now = %d, not below %d, which was given in the same millisecond", now, first)
		}
		if p := publish(t, b, say("other", "1")); p <= now {
			t.Errorf("position %d of another room is not above Now %d", p, now)
		}
		if p := publish(t, b, say("general", "1")); p <= first {
			t.Errorf("position %d is not above %d", p, first)
		}
	})
}

// slow is a Sink whose first Append waits.
type slow struct {
	deaf
	entered, release chan struct{}
	once             *sync.Once
}

func (s slow) Append(message.Entry) {
	s.once.Do(func() {
		close(s.entered)
		<-s.release
	})
}

func TestAMessageThatWaitedForItsRoomLiesAfterANowOfThatTime(t *testing.T) {
	s := slow{entered: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	b, _ := run(t, MemoryConfig{})
	var sink Sink = s
	b.sink.Store(&sink)
	b.Subscribe("general")
	var publishers sync.WaitGroup
	publishers.Go(func() { publish(t, b, say("general", "1")) })
	<-s.entered
	var waited message.Position
	publishers.Go(func() { waited = publish(t, b, say("general", "2")) })
	<-time.After(20 * time.Millisecond) // by now it waits
	now := b.Now()
	close(s.release)
	publishers.Wait()
	if waited <= now {
		t.Errorf("position %d, but Now was %d before it was given", waited, now)
	}
}

func TestRunReturnsOnlyWhenTheSinkHasReturned(t *testing.T) {
	s := slow{entered: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	b, stop := run(t, MemoryConfig{})
	var sink Sink = s
	b.sink.Store(&sink)
	b.Subscribe("general")
	var others sync.WaitGroup
	others.Go(func() { publish(t, b, say("general", "1")) })
	<-s.entered
	ended := make(chan struct{})
	others.Go(func() { stop(); close(ended) })
	select {
	case <-ended:
		t.Error("Run returned while the Sink was being called")
	case <-time.After(20 * time.Millisecond):
	}
	close(s.release)
	others.Wait()
}

func TestAMessageThatWaitedForARoomThatWasForgottenIsNotLost(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	old := b.room("general")
	var publisher sync.WaitGroup
	publisher.Go(func() { publish(t, b, say("general", "1")) })
	<-time.After(20 * time.Millisecond) // by now it waits for the room
	st := b.stripe("general")
	st.mu.Lock()
	old.dead = true
	delete(st.rooms, "general")
	st.mu.Unlock()
	old.mu.Unlock()
	publisher.Wait()
	if p := page(t, b, message.Query{Room: "general", Limit: 1}); len(p.Entries) != 1 {
		t.Errorf("%d entries, want the message", len(p.Entries))
	}
}

func TestNothingIsVouchedForBeforeTheStart(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	if p := page(t, b, message.Query{Room: "general", Limit: 1}); p.Since.Time().Before(time.Now().Add(-time.Minute)) {
		t.Errorf("Since = %v, the bus has just begun", p.Since.Time())
	}
}

func TestDeleteFreesWhatWasCharged(t *testing.T) {
	b, _ := run(t, MemoryConfig{})
	for range 100 {
		publish(t, b, say("general", `"x"`))
	}
	if err := b.Delete(t.Context(), "general"); err != nil || b.bytes.Load() != 0 {
		t.Errorf("Delete = %v, %d bytes are still charged", err, b.bytes.Load())
	}
	publish(t, b, say("general", `"x"`))
	if got, want := b.bytes.Load(), roomCost+cost(say("general", `"x"`)); got != want {
		t.Errorf("%d bytes are charged for one message, want %d", got, want)
	}
}

func TestRetentionTakesWhatAPatternLeavesOut(t *testing.T) {
	patterns, err := message.NewPatterns(map[string]Retention{"few*": {Messages: 5}, "brief*": {Age: time.Second}, "none": {Messages: -1}})
	if err != nil {
		t.Fatal(err)
	}
	b := NewMemory(MemoryConfig{Retention: Retention{Messages: 7}, Patterns: patterns})
	for room, want := range map[message.Room]Retention{
		"any":    {Messages: 7, Age: DefaultRetention.Age},
		"few-1":  {Messages: 5, Age: DefaultRetention.Age},
		"brief":  {Messages: 7, Age: time.Second},
		"none":   {Messages: -1, Age: DefaultRetention.Age},
		"none-1": {Messages: 7, Age: DefaultRetention.Age},
	} {
		if got := b.retention(room); got != want {
			t.Errorf("retention of %q = %+v, want %+v", room, got, want)
		}
	}
}

func TestARoomWithoutHistoryKeepsItsTip(t *testing.T) {
	b, _ := run(t, MemoryConfig{Retention: Retention{Messages: -1}})
	publish(t, b, say("general", "1"))
	tip := publish(t, b, say("general", "2"))
	if p := page(t, b, message.Query{Room: "general", Limit: 10}); len(p.Entries) > 0 || p.Tip != tip || b.bytes.Load() != 0 {
		t.Errorf("page %+v, %d bytes; want no entry, tip %d, 0 bytes", p, b.bytes.Load(), tip)
	}
}

func TestAMemoryRunsOnce(t *testing.T) {
	b, stop := run(t, MemoryConfig{})
	stop()
	if err := b.Run(t.Context(), deaf{}, func() { t.Error("ready was called") }); err == nil {
		t.Error("a second Run = nil, want an error")
	}
}
