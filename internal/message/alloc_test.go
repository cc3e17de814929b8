//go:build !race

package message

import "testing"

// Under the race detector a sync.Pool drops what it likes.
func TestCheckingDataAllocatesNothing(t *testing.T) {
	data := []byte(`{"text":"Hello","at":{"x":1,"y":[1,2,3]}}`)
	if n := testing.AllocsPerRun(1000, func() { _ = CheckJSON(data) }); n != 0 {
		t.Errorf("%v allocations per check, want 0", n)
	}
}
