package hub

import (
	"fmt"
	"slices"
	"testing"

	"github.com/slack5/realtime/internal/message"
)

// What a traversal took stays as it was, whatever is evicted, refilled and appended meanwhile: numbers are given again.
func TestSnapshotOutlivesEvictionAndRefill(t *testing.T) {
	var l log
	frame := func(i int) []byte { return fmt.Appendf(nil, "frame %04d.", i) }
	for i := range 500 {
		l.add(frame(i), rec{pos: message.Position(i + 1), flags: stored})
	}
	var sn snap
	sn.take(&l)
	read := func() (out []byte) {
		for n := sn.front; n < sn.head; n++ { // one by one: a run looks its first entry up only
			b, to := sn.run(n)
			b, _ = sn.upto(b, n, n+1, to)
			out = append(out, b...)
		}
		return out
	}
	want := slices.Clone(read())
	if len(want) != 500*len(frame(0)) {
		t.Fatalf("the snapshot holds %d bytes", len(want))
	}
	for range 3 {
		l.evict()
	}
	front := l.front
	if front == 0 {
		t.Fatal("nothing was evicted")
	}
	var b []byte
	var es []rec
	for i := range 40 {
		es = append(es, rec{pos: message.Position(int(front) - 39 + i), off: int64(len(b)), flags: stored})
		b = append(b, fmt.Appendf(nil, "other %04d.", i)...)
	}
	l.splice(b, es, 1, 1)
	for i := 500; i < 900; i++ {
		l.add(frame(i), rec{pos: message.Position(i + 1), flags: stored})
	}
	sn.b = nil // what it found last is no excuse
	if got := read(); string(got) != string(want) {
		t.Error("the snapshot has changed")
	}
	if got := string(l.frame(front - 40)[:11]); got != "other 0000." {
		t.Errorf("the log's front is %q", got)
	}
	if p := l.place(message.Position(int(front) - 10)); p != front-10 {
		t.Errorf("place = %d, want %d", p, front-10)
	}
}
