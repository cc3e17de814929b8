package wire

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fuzzLimits are small, so that the fuzzer reaches them.
var fuzzLimits = Limits{MessageBytes: 1024, Fragments: 16, Binary: true}

const fuzzControl = 12

// script makes mostly legal frames of what the fuzzer chose, so that it need not find masks and lengths by luck. An even
// first byte passes the rest on as it is. Otherwise each frame is a byte that chooses opcode, fragmentation and breach,
// a length, and the payload.
func script(in []byte) []byte {
	if len(in) == 0 {
		return nil
	}
	raw := in[0]%2 == 0
	if in = in[1:]; raw {
		return in
	}
	var out []byte
	for len(in) >= 2 {
		choice, n := in[0], min(int(in[1]), len(in)-2)
		payload := in[2 : 2+n]
		in = in[2+n:]
		op := []Opcode{OpText, OpText, OpContinuation, OpContinuation, OpBinary, OpPing, OpPong, OpClose}[choice&7]
		frame := clientFrame(op, choice&8 == 0, payload)
		switch choice >> 4 {
		case 15:
			frame[0] |= 0x10 << (n % 3)
		case 14:
			frame[1] &^= maskBit
		case 13: // a longer form of the same length
			frame = append(binary.BigEndian.AppendUint16([]byte{frame[0], maskBit | length16}, uint16(n)), frame[2:]...)
		case 12:
			frame = append(binary.BigEndian.AppendUint64([]byte{frame[0], maskBit | length64}, uint64(n)), frame[2:]...)
		case 11: // a length that will not come, often beyond all limits
			frame = append(binary.BigEndian.AppendUint64([]byte{frame[0], maskBit | length64}, uint64(n)<<56|1<<16), frame[2:]...)
		case 10:
			frame[0] ^= 0x03
		}
		out = append(out, frame...)
	}
	return out
}

func addSeeds(f *testing.F) {
	long := func(choice byte) string { return string([]byte{choice, 255}) + string(make([]byte, 255)) }
	for _, s := range []string{
		"\x01\x00\x05hello\x08\x01\xf0\x05\x01p\x02\x03\x9f\x98\x80\x07\x05\x03\xe8bye",
		"\x01\x08\x01\xed\x02\x02\xa0\x80",
		"\x01\x08\x00" + "\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00\x0a\x00",
		"\x01\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a\x05\x01a",
		"\x01" + long(0x08) + long(0x0a) + long(0x0a) + long(0x0a) + long(0x02),
		"\x01\x04\x03\xff\x00\x80\x07\x02\x03\xed",
		"\x01\xf0\x01a", "\x01\xe0\x01a", "\x01\xd0\x01a", "\x01\xc0\x01a", "\x01\xb0\x01a", "\x01\xb0\x80a", "\x01\xa0\x01a",
		"\x00\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
		"\x00\x81\xfe\x00\x7e\x01\x02\x03\x04",
		"\x00\x88\x81\x00\x00\x00\x00\x03",
	} {
		f.Add([]byte(s), []byte{0, 3, 1, 200})
	}
}

// feedCut is feed in pieces: of cuts[0]+1 bytes, cuts[1]+1 and so on, and then the rest.
func feedCut(t testing.TB, p *Parser, b, cuts []byte) []Event {
	t.Helper()
	p.Allow(fuzzControl)
	var evs []Event
	for _, c := range cuts {
		n := min(int(c)+1, len(b))
		evs = append(evs, feed(t, p, b[:n], &fuzzLimits)...)
		b = b[n:]
	}
	return append(evs, feed(t, p, b, &fuzzLimits)...)
}

// FuzzSplit: the same bytes give the same events, wherever they are cut.
func FuzzSplit(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		b := script(in)
		var whole Parser
		want := feedCut(t, &whole, b, nil)
		if i := slices.IndexFunc(want, func(e Event) bool { return e.Kind == Close || e.Kind == Error }); i >= 0 && i != len(want)-1 {
			t.Fatalf("events behind the last: %q", show(want))
		}
		check := func(cuts []byte) {
			t.Helper()
			var p Parser
			got := feedCut(t, &p, b, cuts)
			if !slices.Equal(show(want), show(got)) {
				t.Fatalf("cut %v: -whole +cut\n%s", cuts, cmp.Diff(show(want), show(got)))
			}
			if p.Partial() != whole.Partial() {
				t.Fatalf("cut %v: Partial() = %v, whole %v", cuts, p.Partial(), whole.Partial())
			}
		}
		check(cuts)
		check(make([]byte, len(b)))
		for i := range min(len(b), 40) {
			check([]byte{byte(i)})
		}
	})
}
