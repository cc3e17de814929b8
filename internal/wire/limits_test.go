package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"unsafe"
)

// clientFrame is a frame as a peer sends it.
func clientFrame(op Opcode, fin bool, payload []byte) []byte {
	h := AppendHeader(nil, op, len(payload))
	h[1] |= maskBit
	if !fin {
		h[0] &^= finBit
	}
	key := [4]byte{0x5a, 0xc3, 0x00, 0x7f}
	b := append(h, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// inFragments is a text message of n frames; the payload is dealt to them evenly.
func inFragments(payload []byte, n int) []byte {
	var b []byte
	for i := range n {
		op := OpContinuation
		if i == 0 {
			op = OpText
		}
		b = append(b, clientFrame(op, i == n-1, payload[i*len(payload)/n:(i+1)*len(payload)/n])...)
	}
	return b
}

func TestLimitsHoldExactly(t *testing.T) {
	text := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	pings := func(n int) []byte { return bytes.Repeat(clientFrame(OpPing, true, nil), n) }
	for _, tc := range []struct {
		name   string
		limits Limits
		at     int
		input  func(n int) []byte
		want   *fault
	}{
		{"bytes in one frame", Limits{MessageBytes: 1000}, 1000, func(n int) []byte { return clientFrame(OpText, true, text(n)) }, errTooBig},
		{"bytes in three frames", Limits{MessageBytes: 1000}, 1000, func(n int) []byte { return inFragments(text(n), 3) }, errTooBig},
		{"bytes of a binary message", Limits{MessageBytes: 1000, Binary: true}, 1000, func(n int) []byte { return clientFrame(OpBinary, true, text(n)) }, errTooBig},
		{"bytes by default", Limits{}, 65536, func(n int) []byte { return clientFrame(OpText, true, text(n)) }, errTooBig},
		{"fragments", Limits{Fragments: 3}, 3, func(n int) []byte { return inFragments(text(9), n) }, errFragments},
		{"a limit of one fragment", Limits{Fragments: 1}, 1, func(n int) []byte { return inFragments(text(9), n) }, errFragments},
		{"fragments by default", Limits{}, 256, func(n int) []byte { return inFragments(nil, n) }, errFragments},
		{"pings", Limits{}, 20, pings, errControlFlood},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, n := range []int{tc.at - 1, tc.at, tc.at + 1} {
				if n == 0 {
					continue
				}
				var p Parser
				p.Allow(20)
				evs := feed(t, &p, tc.input(n), &tc.limits)
				last := evs[len(evs)-1]
				if n <= tc.at && last.Kind == Error || n > tc.at && (last.Code != tc.want.code || last.Reason != tc.want.reason) {
					t.Errorf("%d with a limit of %d: %v", n, tc.at, last)
				}
			}
		})
	}
}

func TestLimitsAreOfOneMessageEach(t *testing.T) {
	var p Parser
	for range 5 {
		if evs := feed(t, &p, inFragments([]byte("12345678"), 4), &Limits{MessageBytes: 8, Fragments: 4}); len(evs) != 1 || evs[0].Kind != Text {
			t.Fatalf("message at its limits: %v", show(evs))
		}
	}
}

func TestAllowReplacesWhatWasLeft(t *testing.T) {
	ping := clientFrame(OpPing, true, []byte("x"))
	for _, tc := range []struct {
		allow []int
		want  int // pings that are taken
	}{
		{nil, 0},
		{[]int{0}, 0},
		{[]int{-1}, 0},
		{[]int{3}, 3},
		{[]int{5, 2}, 2},
	} {
		t.Run(fmt.Sprint(tc.allow), func(t *testing.T) {
			var p Parser
			for _, n := range tc.allow {
				p.Allow(n)
			}
			for i := range tc.want {
				if evs := feed(t, &p, ping, &Limits{}); len(evs) != 1 || evs[0].Kind != Ping {
					t.Fatalf("ping %d: %v", i, show(evs))
				}
			}
			if evs := feed(t, &p, ping, &Limits{}); len(evs) != 1 || evs[0].Code != CodeAbuse {
				t.Errorf("ping %d: %v, want an error", tc.want, show(evs))
			}
		})
	}
	var p Parser
	p.Allow(math.MaxInt)
	if evs := feed(t, &p, ping, &Limits{}); len(evs) != 1 || evs[0].Kind != Ping {
		t.Errorf("with the largest budget: %v", show(evs))
	}
}

func TestACloseNeedsNoBudget(t *testing.T) {
	var p Parser
	if evs := feed(t, &p, clientFrame(OpClose, true, []byte{0x03, 0xe9}), &Limits{}); len(evs) != 1 || evs[0].Kind != Close || evs[0].Code != 1001 {
		t.Errorf("close without a budget: %v", show(evs))
	}
}

func TestAnAnnouncedLengthCostsNoMemory(t *testing.T) {
	var p Parser
	l := &Limits{MessageBytes: math.MaxInt}
	b := binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, math.MaxInt64)
	b = append(b, 0, 0, 0, 0)
	if evs := feed(t, &p, append(b, "ten bytes."...), l); evs != nil {
		t.Fatalf("got %v", show(evs))
	}
	if got := cap(p.part.data); got > 64 {
		t.Errorf("10 bytes of 2^63-1 lie in a buffer of %d", got)
	}
	for range 1000 { // feed holds the buffer to what has come
		feed(t, &p, []byte("and some more"), l)
	}
	if got := len(p.part.data); got != 13_010 {
		t.Errorf("%d bytes were kept, want 13010", got)
	}
}

func TestBetweenMessagesAParserIs16Bytes(t *testing.T) {
	if got := unsafe.Sizeof(Parser{}); got > 16 {
		t.Errorf("a Parser has %d bytes", got)
	}
	var p Parser
	p.Allow(1)
	feedBytes(t, &p, inFragments([]byte("hello"), 2), &Limits{})
	feedBytes(t, &p, clientFrame(OpPing, true, []byte("hello")), &Limits{})
	if p.part != nil {
		t.Error("something is kept after a message and a ping")
	}
}

func TestWholeFramesAreParsedWithoutAllocating(t *testing.T) {
	l := &Limits{Binary: true}
	for _, tc := range []struct {
		name string
		in   []byte
		want Kind
	}{
		{"text of 128 bytes", clientFrame(OpText, true, bytes.Repeat([]byte("é"), 64)), Text},
		{"text of 60,000 bytes", clientFrame(OpText, true, bytes.Repeat([]byte("x"), 60_000)), Text},
		{"binary", clientFrame(OpBinary, true, []byte{0, 255}), Binary},
		{"ping", clientFrame(OpPing, true, []byte("are you there")), Ping},
		{"pong", clientFrame(OpPong, true, nil), Pong},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Parser
			b := make([]byte, len(tc.in))
			bad := 0
			allocs := testing.AllocsPerRun(100, func() {
				p.Allow(1)
				copy(b, tc.in)
				e, n := p.Next(b, l)
				if rest, _ := p.Next(b[n:], l); e.Kind != tc.want || rest.Kind != None {
					bad++
				}
			})
			if allocs != 0 || bad != 0 {
				t.Errorf("%v allocations, %d wrong results", allocs, bad)
			}
		})
	}
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{16, 128, 1024, 60_000} {
		in := clientFrame(OpText, true, bytes.Repeat([]byte("x"), size))
		buf := make([]byte, len(in))
		l := &Limits{}
		b.Run(fmt.Sprintf("text=%d", size), func(b *testing.B) {
			var p Parser
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, in)
				if e, n := p.Next(buf, l); e.Kind != Text || n != len(buf) {
					b.Fatal(e, n)
				}
			}
		})
	}
	b.Run("text=1024/pieces=2", func(b *testing.B) {
		in := clientFrame(OpText, true, bytes.Repeat([]byte("x"), 1024))
		buf := make([]byte, len(in))
		l := &Limits{}
		var p Parser
		b.ReportAllocs()
		for b.Loop() {
			copy(buf, in)
			p.Next(buf[:500], l)
			if e, _ := p.Next(buf[500:], l); e.Kind != Text {
				b.Fatal(e)
			}
		}
	})
}
