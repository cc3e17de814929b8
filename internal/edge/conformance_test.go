package edge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// conforming is a case of RFC 6455: what a peer sends and what it gets back. Behind what keeps the connection open the peer closes
// with 1000.
type conforming struct {
	name string
	in   []byte
	out  []string
}

// Frames that a peer sends: with FIN or without.
func fin(op byte, payload string) []byte  { return masked(0x80|op, payload) }
func more(op byte, payload string) []byte { return masked(op, payload) }

func join(frames ...[]byte) []byte { return slices.Concat(frames...) }

// Frames that come back.
func frameOut(kind string, payload []byte) string {
	if len(payload) > 200 {
		return fmt.Sprintf("%s %d bytes from %.10q", kind, len(payload), payload)
	}
	return fmt.Sprintf("%s %q", kind, payload)
}
func textOut(s string) string   { return frameOut("text", []byte(s)) }
func binaryOut(s string) string { return frameOut("binary", []byte(s)) }
func pongOut(s string) string   { return frameOut("pong", []byte(s)) }
func closeOut(code int) string  { return fmt.Sprint("close ", code) }

const (
	opMore, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10

	echoLimit = 1 << 20
)

func closing(code int, reason string) []byte {
	return fin(opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// cases are all of them. That which breaks no rule goes on: the peer's close is answered.
func cases() (all []conforming) {
	goes := func(name string, in []byte, out ...string) {
		all = append(all, conforming{name, join(in, closing(1000, "")), append(out, closeOut(1000))})
	}
	ends := func(name string, code int, in []byte, out ...string) {
		all = append(all, conforming{name, in, append(out, closeOut(code))})
	}
	ofLengths(goes, ends)
	ofHeaders(goes, ends)
	ofFragments(goes, ends)
	ofControls(goes, ends)
	ofText(goes, ends)
	ofCloses(ends)
	return all
}

type (
	goesOn func(name string, in []byte, out ...string)
	isOver func(name string, code int, in []byte, out ...string)
)

func ofLengths(goes goesOn, ends isOver) {
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 70000, echoLimit} {
		s := strings.Repeat("*", n)
		goes(fmt.Sprintf("text of %d bytes", n), fin(opText, s), textOut(s))
		b := strings.Repeat("\xfe", n)
		goes(fmt.Sprintf("binary of %d bytes", n), fin(opBinary, b), binaryOut(b))
	}
	ends("a message above the limit", 1009, fin(opText, strings.Repeat("*", echoLimit+1)))
	ends("a message above the limit in fragments", 1009, join(more(opBinary, strings.Repeat("*", echoLimit)), fin(opMore, "*")))
	head := func(b ...byte) []byte { return append(b, 1, 2, 3, 4) }
	ends("16 bits for 125", 1002, head(0x81, 0x80|126, 0, 125))
	ends("64 bits for 65535", 1002, head(0x81, 0x80|127, 0, 0, 0, 0, 0, 0, 0xff, 0xff))
	ends("a length with its top bit set", 1002, head(0x81, 0x80|127, 0x80, 0, 0, 0, 0, 0, 0, 0))
	ends("a length of a tebibyte", 1009, head(0x82, 0x80|127, 0, 0, 1, 0, 0, 0, 0, 0))
}

func ofHeaders(goes goesOn, ends isOver) {
	for _, rsv := range []byte{0x40, 0x20, 0x10, 0x70} {
		for _, op := range []byte{opText, opBinary, opClose, opPing, opPong} {
			ends(fmt.Sprintf("reserved bits %#x in %d", rsv, op), 1002, masked(0x80|rsv|op, ""))
		}
		ends(fmt.Sprintf("reserved bits %#x behind a message", rsv), 1002, join(fin(opText, "a"), masked(0x80|rsv|opText, "b")), textOut("a"))
		ends(fmt.Sprintf("reserved bits %#x in a continuation", rsv), 1002, join(more(opText, "a"), masked(0x80|rsv|opMore, "b")))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		ends(fmt.Sprintf("opcode %d", op), 1002, fin(op, "x"))
		ends(fmt.Sprintf("opcode %d behind a message", op), 1002, join(fin(opText, "a"), fin(op, "")), textOut("a"))
	}
	ends("no mask", 1002, []byte{0x81, 1, 'a'})
	ends("no mask on a close", 1002, []byte{0x88, 0})
	goes("a mask of zeros", []byte{0x81, 0x81, 0, 0, 0, 0, 'a'}, textOut("a"))
}

func ofFragments(goes goesOn, ends isOver) {
	for op, out := range map[byte]func(string) string{opText: textOut, opBinary: binaryOut} {
		name := map[byte]string{opText: "text", opBinary: "binary"}[op]
		goes(name+" in two", join(more(op, "ab"), fin(opMore, "cd")), out("abcd"))
		goes(name+" in three", join(more(op, "a"), more(opMore, "b"), fin(opMore, "c")), out("abc"))
		goes(name+" in empty ones", join(more(op, ""), more(opMore, ""), fin(opMore, "")), out(""))
		goes(name+" with empty ones around", join(more(op, ""), more(opMore, "ab"), fin(opMore, "")), out("ab"))
		goes(name+" in bytes", join(more(op, ""), bytes.Repeat(more(opMore, "x"), 300), fin(opMore, "")), out(strings.Repeat("x", 300)))
		goes(name+" twice", join(more(op, "a"), fin(opMore, "b"), more(op, "c"), fin(opMore, "d")), out("ab"), out("cd"))
		goes(name+" with a ping inside", join(more(op, "a"), fin(opPing, "p"), fin(opMore, "b")), pongOut("p"), out("ab"))
		goes(name+" with a pong inside", join(more(op, "a"), fin(opPong, "p"), fin(opMore, "b")), out("ab"))
		ends(name+" with a close inside", 1000, join(more(op, "a"), closing(1000, ""), fin(opMore, "b")))
		ends(name+" with a message inside", 1002, join(more(op, "a"), fin(opText, "b")))
		ends(name+" with the beginning of one inside", 1002, join(more(op, "a"), more(op, "b")))
		ends("a continuation behind "+name, 1002, join(fin(op, "a"), fin(opMore, "b")), out("a"))
	}
	ends("a continuation of nothing", 1002, fin(opMore, "a"))
	ends("the beginning of a continuation of nothing", 1002, more(opMore, "a"))
}

func ofControls(goes goesOn, ends isOver) {
	longest := strings.Repeat("\xfe", 125)
	for _, payload := range []string{"", "hello", "\x00\xff\xfe", longest} {
		goes(fmt.Sprintf("a ping of %d bytes", len(payload)), fin(opPing, payload), pongOut(payload))
		goes(fmt.Sprintf("a pong of %d bytes", len(payload)), fin(opPong, payload))
	}
	goes("a pong and a ping", join(fin(opPong, "a"), fin(opPing, "b")), pongOut("b"))
	for name, op := range map[string]byte{"ping": opPing, "pong": opPong, "close": opClose} {
		ends("a "+name+" of 126 bytes", 1002, fin(op, longest+"x"))
		ends("a "+name+" that goes on", 1002, more(op, ""))
	}
	ends("a ping in two", 1002, join(more(opPing, "a"), fin(opMore, "b")))
}

// Text that is UTF-8 and text that is not, whole and split at every byte.
func ofText(goes goesOn, ends isOver) {
	for _, s := range []string{
		"κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufeff", "\ufffd", "\uffff", "\U00010000", "\U0003ffff", "\U0010ffff", "日本語 \U0001f600",
	} {
		goes(fmt.Sprintf("%+q", s), fin(opText, s), textOut(s))
		for i := 1; i < len(s); i++ {
			goes(fmt.Sprintf("%+q split at %d", s, i), join(more(opText, s[:i]), fin(opMore, s[i:])), textOut(s))
		}
	}
	impossible := []string{
		"\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xe0\x9f\xbf", "\xf0\x80\x80\xaf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe", "\xff", "κόσμε\xed\xa0\x80edited", "a\xc3z", "a\xe2\x82z",
	}
	for _, s := range impossible { // told at once: nothing that follows could mend it
		ends(fmt.Sprintf("%+q, and the message goes on", s), 1007, more(opText, s))
	}
	for _, s := range append(impossible, "\xc3", "\xe2\x82", "\xf0\x9f\x98") {
		ends(fmt.Sprintf("%+q", s), 1007, fin(opText, s))
		for i := 1; i < len(s); i++ {
			ends(fmt.Sprintf("%+q split at %d", s, i), 1007, join(more(opText, s[:i]), fin(opMore, s[i:])))
		}
		goes(fmt.Sprintf("%+q in binary", s), fin(opBinary, s), binaryOut(s))
	}
}

func ofCloses(ends isOver) {
	ends("a close without a code", 1005, fin(opClose, ""))
	ends("a close of one byte", 1002, fin(opClose, "\x03"))
	ends("a close with a reason", 1000, closing(1000, "the end"))
	ends("a close with the longest reason", 1000, closing(1000, strings.Repeat("x", 123)))
	ends("a close with a reason that is not UTF-8", 1007, closing(1000, "\xed\xa0\x80"))
	ends("a close, and a message behind it", 1000, join(closing(1000, ""), fin(opText, "x")))
	ends("a close, and a ping behind it", 1000, join(closing(1000, ""), fin(opPing, "x")))
	ends("a close, and another", 1000, join(closing(1000, ""), closing(1001, "")))
	ends("a message, and a close", 1000, join(fin(opText, "x"), closing(1000, "")), textOut("x"))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		ends(fmt.Sprint("a close with ", code), code, closing(code, ""))
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		ends(fmt.Sprint("a close with ", code), 1002, closing(code, ""))
	}
}

// All cases on each path, in one piece and in bytes.
func TestAPeerGetsBackWhatRFC6455Says(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := echo(t, p, echoLimit, 1<<20)
		for _, c := range cases() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for how, step := range map[string]int{"whole": len(c.in), "in bytes": 1} {
					if len(c.in)/step > 5000 {
						continue // the long ones whole only
					}
					got := s.exchange(t, c.in, step)
					if !slices.Equal(got, c.out) {
						t.Errorf("%s: got %q, want %q", how, got, c.out)
					}
				}
			})
		}
	})
}

// exchange sends bytes, so many at a time, and returns what comes back up to the connection's end.
func (s *server) exchange(t *testing.T, in []byte, step int) (got []string) {
	t.Helper()
	c := s.connect("/ws")
	defer func() { _ = c.nc.Close() }()
	sent := make(chan struct{})
	go func() { // both ways at once: what comes back may be too long to wait
		defer close(sent)
		_ = c.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		for part := range slices.Chunk(in, step) {
			if _, err := c.nc.Write(part); err != nil {
				return // it was told enough
			}
		}
	}()
	defer func() { _ = c.nc.Close(); <-sent }()
	for {
		op, payload, err := c.whole(10 * time.Second)
		switch {
		case err != nil:
			return got
		case op == 0x88 && len(payload) < 2:
			return append(got, closeOut(1005))
		case op == 0x88:
			if !utf8.Valid(payload[2:]) {
				t.Errorf("the reason %q is not UTF-8", payload[2:])
			}
			return append(got, closeOut(int(binary.BigEndian.Uint16(payload))))
		case op == 0x81:
			got = append(got, frameOut("text", payload))
		case op == 0x82:
			got = append(got, frameOut("binary", payload))
		case op == 0x8a:
			got = append(got, frameOut("pong", payload))
		default:
			t.Errorf("frame %#x", op)
		}
	}
}
