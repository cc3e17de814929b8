package limit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestABucketAdmitsItsBurstAndThenItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(20, 40)
		for i := range 40 {
			if _, ok := b.Take(); !ok {
				t.Fatalf("event %d of the burst refused", i)
			}
		}
		for range 3 { // asking costs nothing
			if retry, ok := b.Take(); ok || retry != 50*time.Millisecond {
				t.Fatalf("Take() = %v, %v, want 50ms and a refusal", retry, ok)
			}
		}
		time.Sleep(50 * time.Millisecond)
		if _, ok := b.Take(); !ok {
			t.Error("refused after the time it had named")
		}
	})
}

func TestABucketAdmitsManyTogetherOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(100, 100)
		expect := func(n int, want time.Duration) {
			t.Helper()
			if retry, ok := b.TakeN(n); retry != want || ok != (want == 0) {
				t.Errorf("TakeN(%d) = %v, %v, want %v", n, retry, ok, want)
			}
		}
		expect(60, 0)
		expect(60, 200*time.Millisecond) // and costs nothing
		expect(40, 0)
		time.Sleep(time.Second)
		expect(350, 0) // full: more than it holds, on credit
		expect(1, 2510*time.Millisecond)
		time.Sleep(2510 * time.Millisecond)
		expect(1, 0)
		expect(101, time.Second)
	})
}
