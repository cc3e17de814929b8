package limit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const second = int64(time.Second)

func TestAMeterAdmitsItsBurstAndThenItsRate(t *testing.T) {
	var m Meter
	var s Shared
	r := Per(20, 40)
	at := func(now int64, n int, want time.Duration) {
		t.Helper()
		_, free := s.Peek(r, now)
		retry, ok := m.Take(r, now, n)
		if retry != want || ok != (want == 0) {
			t.Errorf("Meter.Take(%d) at %v = %v, %v, want %v", n, time.Duration(now), retry, ok, want)
		}
		if sretry, sok := s.Take(r, now, n); sretry != retry || sok != ok {
			t.Errorf("Shared.Take(%d) at %v = %v, %v, a Meter's %v, %v", n, time.Duration(now), sretry, sok, retry, ok)
		}
		if n == 1 && free != ok {
			t.Errorf("Peek at %v = %v, Take %v", time.Duration(now), free, ok)
		}
	}
	for range 40 {
		at(0, 1, 0)
	}
	for range 3 { // asking costs nothing
		at(0, 1, 50*time.Millisecond)
	}
	at(second/20-1, 1, 1)
	at(second/20, 1, 0)
	at(second, 19, 0)
	at(second, 1, 50*time.Millisecond)
	at(100*second, 100, 0) // full: more than it holds, on credit
	at(100*second, 1, 3*time.Second+50*time.Millisecond)
	at(103*second+second/20, 1, 0)
}

func TestTheZeroRateIsNoLimit(t *testing.T) {
	for _, r := range []Rate{{}, Per(0, 5), Per(5, 0), Per(-1, -1), Rate{}.Share(7)} {
		var m Meter
		var s Shared
		g := NewGate(r, 0)
		if !r.None() {
			t.Errorf("%+v is a limit", r)
		}
		for range 1000 {
			_, meter := m.Take(r, 0, 1<<20)
			_, shared := s.Take(r, 0, 1<<20)
			wait, gate := g.Enter(0)
			if !meter || !shared || !gate || wait != 0 {
				t.Fatalf("%+v refuses", r)
			}
		}
	}
}

func TestRatesAboveTheClocksPrecisionStillAdmit(t *testing.T) {
	var m Meter
	r := Per(math.MaxInt, 2)
	for i := range 2 {
		if _, ok := m.Take(r, 0, 1); !ok {
			t.Errorf("event %d of the burst refused", i)
		}
	}
	if retry, ok := m.Take(r, 0, 1); ok || retry != 1 {
		t.Errorf("Take() = %v, %v, want a nanosecond", retry, ok)
	}
}

func TestNodesShareARate(t *testing.T) {
	whole := Per(100, 200)
	for _, c := range []struct{ nodes, burst, rate int }{{0, 200, 100}, {1, 200, 100}, {2, 100, 50}, {100, 2, 1}, {1000, 1, 0}} {
		var m Meter
		r, admitted := whole.Share(c.nodes), 0
		for ; admitted < 1000; admitted++ {
			if _, ok := m.Take(r, 0, 1); !ok {
				break
			}
		}
		later := 0
		for ; later < 1000; later++ {
			if _, ok := m.Take(r, second, 1); !ok {
				break
			}
		}
		if admitted != c.burst || later != c.rate {
			t.Errorf("%d nodes: %d at once and %d a second later, want %d and %d", c.nodes, admitted, later, c.burst, c.rate)
		}
	}
}

func TestASharedMeterAdmitsNoMoreToManyAtOnce(t *testing.T) {
	var s Shared
	var wg sync.WaitGroup
	var admitted atomic.Int64
	r := Per(1, 100)
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, ok := s.Take(r, 0, 1); ok {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != 100 {
		t.Errorf("%d admitted, want 100", n)
	}
}

func TestAGateSpreadsACrowdAndSendsTheRestAwayOneAfterTheOther(t *testing.T) {
	g := NewGate(Per(10, 5), time.Second)
	enter := func(now int64, want time.Duration, in bool) {
		t.Helper()
		if wait, ok := g.Enter(now); wait != want || ok != in {
			t.Fatalf("Enter(%v) = %v, %v, want %v, %v", time.Duration(now), wait, ok, want, in)
		}
	}
	for range 5 {
		enter(0, 0, true)
	}
	for i := range 10 {
		enter(0, time.Duration(i+1)*100*time.Millisecond, true)
	}
	for i := range 10 { // behind those who wait, and behind each other
		enter(0, 1500*time.Millisecond+time.Duration(i+1)*100*time.Millisecond, false)
	}
	enter(1600*second/1000, 0, true) // the first of them comes back in time
	for range 1000 {
		_, _ = g.Enter(1600 * second / 1000)
	}
	enter(1600*second/1000, maxAway, false)
}

func TestATableForgetsWhoWasNotAskedForLongest(t *testing.T) {
	table := NewTable[string, int](2)
	a := table.Of("a")
	*a = 7
	table.Of("b")
	if table.Known("a") != a || table.Known("x") != nil {
		t.Error("Known knows others than those that were asked for")
	}
	if table.Of("a") != a {
		t.Fatal("not the same")
	}
	table.Of("c") // in place of b
	*table.Of("c") = 1
	if got := *table.Of("a"); got != 7 {
		t.Errorf("a has %d, want 7", got)
	}
	if got := *table.Of("b"); got != 0 {
		t.Errorf("b has %d, want to be new", got)
	}
	if table.known.Len() != 2 {
		t.Errorf("%d peers, want 2", table.known.Len())
	}
}

func TestATableGivesManyAtOnceTheSame(t *testing.T) {
	table := NewTable[int, Shared](100)
	var wg sync.WaitGroup
	var admitted atomic.Int64
	for range 8 {
		wg.Go(func() {
			for k := range 100 {
				if _, ok := table.Of(k).Take(Per(1, 1), 0, 1); ok {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != 100 {
		t.Errorf("%d admitted, want 100", n)
	}
}

func TestSeatsAreCountedForEachAndGivenBack(t *testing.T) {
	s := NewSeats[string](2)
	for i, want := range []bool{true, true, false} {
		if s.Take("a") != want {
			t.Errorf("seat %d of a: %v", i, !want)
		}
	}
	if !s.Take("b") {
		t.Error("b has none because of a")
	}
	s.Leave("a")
	if !s.Take("a") || s.Take("a") {
		t.Error("a has not one more after one was given back")
	}
	for _, k := range []string{"a", "a", "b"} {
		s.Leave(k)
	}
	if len(s.taken) != 0 {
		t.Errorf("left behind: %v", s.taken)
	}
	open := NewSeats[string](0)
	for range 1000 {
		if !open.Take("a") {
			t.Fatal("seats without a most are refused")
		}
	}
	if open.Leave("a"); len(open.taken) != 0 {
		t.Errorf("counted without a most: %v", open.taken)
	}
}

func FuzzAMeterNeverAdmitsMoreThanItsRate(f *testing.F) {
	f.Add(20, 40, []byte{0, 1, 50, 200, 0, 0, 7})
	f.Fuzz(func(t *testing.T, perSecond, burst int, steps []byte) {
		perSecond, burst = 1+abs(perSecond)%1000, 1+abs(burst)%1000
		r := Per(perSecond, burst)
		var m Meter
		var now, admitted int64
		for _, step := range steps {
			now += int64(step) * int64(time.Millisecond)
			if _, ok := m.Take(r, now, 1); ok {
				admitted++
			}
			if most := int64(burst) + now/r.cost; admitted > most {
				t.Fatalf("%d admitted after %v of %d/s and %d at once", admitted, time.Duration(now), perSecond, burst)
			}
		}
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

func BenchmarkMeter(b *testing.B) {
	var m Meter
	r := Per(1e9, 100)
	b.ReportAllocs()
	for i := range b.N {
		m.Take(r, int64(i), 1)
	}
}

func BenchmarkShared(b *testing.B) {
	var m Shared
	r := Per(1e9, 100)
	b.ReportAllocs()
	for i := range b.N {
		m.Take(r, int64(i), 1)
	}
}

func TestMetersDoNotAllocate(t *testing.T) {
	var m Meter
	var s Shared
	r := Per(20, 40)
	var now int64
	if n := testing.AllocsPerRun(100, func() { now++; m.Take(r, now, 1); s.Take(r, now, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
