//go:build !race

package frame_test

import (
	"testing"

	"github.com/slack5/realtime/internal/frame"
)

func TestReadingAFrameAllocatesNothingButItsTexts(t *testing.T) {
	f := frame.Payload(frame.AppendMessage(nil, typical))
	if n := testing.AllocsPerRun(100, func() { _, _ = frame.DecodeOut(f) }); n != 2 { // room and from
		t.Errorf("%v allocations, want 2", n)
	}
}
