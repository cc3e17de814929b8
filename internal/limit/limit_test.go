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
