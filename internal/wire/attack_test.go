package wire

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAttacksEndInTheirCloseCode(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     *fault
		before   []string // events that come first
	}{
		{"unmasked text", "81 05 48656c6c6f", errUnmasked, nil},
		{"unmasked ping", "89 00", errUnmasked, nil},
		{"unmasked close", "88 00", errUnmasked, nil},
		{"RSV1 as permessage-deflate sets it", "c1 87 00000000 f248cdc9c90700", errReservedBits, nil},
		{"RSV2", "a1 80 00000000", errReservedBits, nil},
		{"RSV3", "91 80 00000000", errReservedBits, nil},
		{"RSV1 on a ping", "c9 80 00000000", errReservedBits, nil},
		{"RSV1 on a continuation", "01 80 00000000 c0 80 00000000", errReservedBits, nil},
		{"opcode 3", "83 80 00000000", errReservedOpcode, nil},
		{"opcode 7", "87 80 00000000", errReservedOpcode, nil},
		{"opcode 11", "8b 80 00000000", errReservedOpcode, nil},
		{"opcode 15", "8f 80 00000000", errReservedOpcode, nil},
		{"ping of 126 bytes", "89 fe 007e 00000000", errControlLength, nil},
		{"close of 64-bit length", "88 ff 0000000000000002 00000000", errControlLength, nil},
		{"ping in fragments", "09 81 00000000 61 80 81 00000000 62", errControlFragment, nil},
		{"close in fragments", "08 80 00000000", errControlFragment, nil},
		{"close of one byte", "88 81 00000000 03", errCloseLength, nil},
		{"close 1005", "88 82 00000000 03ed", errCloseCode, nil},
		{"close whose reason ends inside a character", "88 84 00000000 03e8 e282", errCloseReason, nil},
		{"close whose reason is a lone continuation byte", "88 83 00000000 03e8 80", errCloseReason, nil},
		{"continuation of nothing", "80 81 00000000 61", errNoMessage, nil},
		{"continuation after a whole message", "81 81 00000000 61 00 80 00000000", errNoMessage, []string{`text "a"`}},
		{"text inside a message", "01 81 00000000 61 81 81 00000000 62", errInterleaved, nil},
		{"binary inside a text", "01 81 00000000 61 82 81 00000000 62", errInterleaved, nil},
		{"125 bytes with a 16-bit length", "81 fe 007d 00000000", errLengthForm, nil},
		{"65535 bytes with a 64-bit length", "81 ff 000000000000ffff 00000000", errLengthForm, nil},
		{"length zero in 64 bits", "81 ff 0000000000000000 00000000", errLengthForm, nil},
		{"2^63+5 bytes announced", "81 ff 8000000000000005 00000000", errLengthRange, nil},
		{"2^64-1 bytes announced", "81 ff ffffffffffffffff 00000000", errLengthRange, nil},
		{"1 TiB announced", "81 ff 0000010000000000 00000000", errTooBig, nil},
		{"2^63-1 bytes announced behind a fragment", "01 81 00000000 61 80 ff 7fffffffffffffff 00000000", errTooBig, nil},
		{"one byte over the limit, announced", "81 fe 0401 00000000", errTooBig, nil},
		{"binary, header only", "82 84 00000000", errBinary, nil},
		{"binary in fragments, header only", "02 84 00000000", errBinary, nil},
		{"invalid UTF-8 whole", "81 82 00000000 c328", errText, nil},
		{"invalid UTF-8 behind a mask", "81 82 37fa213d f4d2", errText, nil},
		{"text that ends inside a character", "81 82 00000000 e282", errText, nil},
		{"last fragment ends inside a character", "01 82 00000000 e282 80 80 00000000", errText, nil},
		{"surrogate split over fragments", "01 81 00000000 ed 00 81 00000000 a0", errText, nil},
		{"overlong slash", "81 82 00000000 c0af", errText, nil},
		{"above U+10FFFF", "01 82 00000000 f490", errText, nil},
		{"nine empty fragments", "01 80 00000000" + strings.Repeat("00 80 00000000", 8), errFragments, nil},
		{"nine fragments of one byte", "01 81 00000000 61" + strings.Repeat("00 81 00000000 61", 7) + "80 81 00000000 61", errFragments, nil},
		{"ping flood", strings.Repeat("89 80 00000000", 5), errControlFlood, []string{`ping ""`, `ping ""`, `ping ""`, `ping ""`}},
		{"pongs nobody asked for, inside a message", "01 80 00000000" + strings.Repeat("8a 80 00000000", 5), errControlFlood, []string{`pong ""`, `pong ""`, `pong ""`, `pong ""`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &Limits{MessageBytes: 1024, Fragments: 8}
			b := unhex(t, tc.in)
			want := append(append([]string{}, tc.before...), show([]Event{{Kind: Error, Code: tc.want.code, Reason: tc.want.reason}})...)
			var whole, cut Parser
			whole.Allow(4)
			cut.Allow(4)
			if diff := cmp.Diff(want, show(feed(t, &whole, b, l))); diff != "" {
				t.Errorf("whole: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(want, show(feedBytes(t, &cut, b, l))); diff != "" {
				t.Errorf("byte by byte: -want +got\n%s", diff)
			}
			if got := feed(t, &whole, unhex(t, "81 81 00000000 61 82"), l); got != nil || whole.Partial() {
				t.Errorf("after the error came %v, Partial() = %v", show(got), whole.Partial())
			}
			if n := len(tc.want.reason); n == 0 || n > maxControl-2 {
				t.Errorf("a reason of %d bytes does not fit a close frame", n)
			}
		})
	}
}

func TestCloseCodesAreThoseThatMayBeSent(t *testing.T) {
	allowed := map[int]bool{}
	for _, c := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014} {
		allowed[c] = true
	}
	for c := 3000; c <= 4999; c++ {
		allowed[c] = true
	}
	for c := range 1 << 16 {
		var p Parser
		e, _ := p.Next(binary.BigEndian.AppendUint16([]byte{0x88, 0x82, 0, 0, 0, 0}, uint16(c)), &Limits{})
		switch {
		case allowed[c] && (e.Kind != Close || int(e.Code) != c):
			t.Errorf("close %d gave %+v, want it accepted", c, e)
		case !allowed[c] && (e.Kind != Error || e.Code != CodeProtocol):
			t.Errorf("close %d gave %+v, want an error", c, e)
		}
	}
}

func TestInvalidTextIsRefusedAtItsFirstImpossibleByte(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		at         int // the byte that must be refused, counted from 0
	}{
		{"continuation byte alone", "a\x80", 1},
		{"overlong lead C0", "\xc0", 0},
		{"overlong lead C1", "abc\xc1", 3},
		{"overlong three bytes", "\xe0\x9f", 1},
		{"overlong four bytes", "\xf0\x8f", 1},
		{"surrogate", "κ\xed\xa0", 3},
		{"above U+10FFFF", "κόσμε\xf4\x90", 11},
		{"lead F5", "\xf5", 0},
		{"lead FF", "\xff", 0},
		{"ASCII inside two bytes", "\xc3(", 1},
		{"ASCII inside three bytes", "\xe2\x82(", 2},
		{"ASCII inside four bytes", "\xf0\x9f\x98(", 3},
		{"one continuation byte too many", "\xf0\x9f\x98\x80\x80", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var whole, bytewise, fragments Parser
			l := &Limits{}
			text := []byte(tc.text)
			// In a frame that announces more, so that only the bytes themselves can be the reason.
			feed(t, &whole, []byte{0x81, 0x80 | 100, 0, 0, 0, 0}, l)
			if evs := feed(t, &whole, text, l); len(evs) != 1 || evs[0].Code != CodeInvalidText {
				t.Errorf("in one piece: %v, want an error", show(evs))
			}
			feed(t, &bytewise, []byte{0x81, 0x80 | 100, 0, 0, 0, 0}, l)
			feed(t, &fragments, []byte{0x01, 0x80, 0, 0, 0, 0}, l)
			for i, c := range text {
				evs := feed(t, &bytewise, []byte{c}, l)
				evs = append(evs, feed(t, &fragments, []byte{0x00, 0x81, 0, 0, 0, 0, c}, l)...)
				if i < tc.at && len(evs) != 0 || i == tc.at && len(evs) != 2 {
					t.Fatalf("at byte %d: %v, want both errors at byte %d", i, show(evs), tc.at)
				}
			}
		})
	}
}
