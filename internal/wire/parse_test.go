package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unhex reads bytes as written in the tables: hex digits with spaces, and after a "+" a text for what a mask of zeros
// leaves as it is.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	digits, text, _ := strings.Cut(s, "+")
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, text...)
}

// feed gives p a copy of b and returns what comes out, with data that lives on.
func feed(t testing.TB, p *Parser, b []byte, l *Limits) []Event {
	t.Helper()
	var evs []Event
	for b = bytes.Clone(b); ; {
		rest := bytes.Clone(b)
		e, n := p.Next(b, l)
		if !bytes.Equal(b[n:], rest[n:]) {
			t.Fatalf("Next changed bytes that it did not take")
		}
		if p.part != nil && cap(p.part.data)+cap(p.part.control) > 2*len(p.part.data)+2*len(p.part.control)+64 {
			t.Fatalf("a buffer of %d bytes for %d that have come", cap(p.part.data), len(p.part.data))
		}
		if e.Kind == None {
			if n != len(b) {
				t.Fatalf("Next returned None and took %d of %d bytes", n, len(b))
			}
			return evs
		}
		e.Data = bytes.Clone(e.Data)
		evs = append(evs, e)
		b = b[n:]
	}
}

// feedBytes is feed, one byte at a time.
func feedBytes(t testing.TB, p *Parser, b []byte, l *Limits) []Event {
	t.Helper()
	var evs []Event
	for i := range b {
		evs = append(evs, feed(t, p, b[i:i+1], l)...)
	}
	return evs
}

// show makes events readable and comparable.
func show(evs []Event) []string {
	names := map[Kind]string{Text: "text", Binary: "binary", Ping: "ping", Pong: "pong"}
	out := []string{}
	for _, e := range evs {
		switch e.Kind {
		case Close:
			out = append(out, fmt.Sprintf("close %d %q", e.Code, e.Data))
		case Error:
			out = append(out, fmt.Sprintf("error %d %s", e.Code, e.Reason))
		default:
			out = append(out, fmt.Sprintf("%s %q", names[e.Kind], e.Data))
		}
	}
	return out
}

func TestFramesBecomeEvents(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []string
	}{
		{"RFC 6455's masked Hello", "81 85 37fa213d 7f9f4d5158", []string{`text "Hello"`}},
		{"empty text", "81 80 01020304", []string{`text ""`}},
		{"text of 126 bytes, length in 16 bits", "81 fe 007e 00000000 +" + strings.Repeat("a", 126), []string{`text "` + strings.Repeat("a", 126) + `"`}},
		{"three texts in one piece", "81 81 00000000 61 81 81 00000000 62 81 81 00000000 63", []string{`text "a"`, `text "b"`, `text "c"`}},
		{"three fragments, each with its own mask", "01 81 01010101 60 00 82 02020202 6061 80 81 00000000 64", []string{`text "abcd"`}},
		{"only empty fragments", "01 80 00000000 00 80 00000000 80 80 00000000", []string{`text ""`}},
		{"ping between fragments comes first", "01 81 00000000 61 89 82 00000000 6869 80 81 00000000 62", []string{`ping "hi"`, `text "ab"`}},
		{"two pings between fragments stay apart", "01 81 00000000 61 89 81 00000000 70 89 81 00000000 71 80 81 00000000 62", []string{`ping "p"`, `ping "q"`, `text "ab"`}},
		{"binary where it is allowed", "82 83 ff00ff00 00ff80", []string{`binary "\xff\xff\x7f"`}},
		{"a character over two fragments", "01 82 00000000 e282 80 81 00000000 ac", []string{`text "€"`}},
		{"pong with the longest payload", "8a fd 00000000 +" + strings.Repeat("p", 125), []string{`pong "` + strings.Repeat("p", 125) + `"`}},
		{"close without a code", "88 80 00000000", []string{`close 1005 ""`}},
		{"close with code and reason", "88 85 00000000 03e8 627965", []string{`close 1000 "bye"`}},
		{"close inside a message", "01 81 00000000 61 88 82 00000000 0fa0", []string{`close 4000 ""`}},
		{"nothing comes after a close", "88 80 00000000 81 81 00000000 61 ff", []string{`close 1005 ""`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &Limits{MessageBytes: 1024, Binary: true}
			b := unhex(t, tc.in)
			var whole, cut Parser
			whole.Allow(4)
			cut.Allow(4)
			if diff := cmp.Diff(tc.want, show(feed(t, &whole, b, l))); diff != "" {
				t.Errorf("whole: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, show(feedBytes(t, &cut, b, l))); diff != "" {
				t.Errorf("byte by byte: -want +got\n%s", diff)
			}
			if whole.Partial() || cut.Partial() {
				t.Errorf("Partial() = %v, %v after all frames were whole", whole.Partial(), cut.Partial())
			}
		})
	}
}

func TestPartialHoldsFromTheFirstByteToTheLast(t *testing.T) {
	for _, tc := range []struct{ name, in string }{
		{"text in one frame", "81 85 37fa213d 7f9f4d5158"},
		{"ping", "89 81 00000000 61"},
		{"message with a ping inside", "01 81 00000000 61 89 80 00000000 80 80 00000000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Parser
			p.Allow(4)
			b := unhex(t, tc.in)
			for i := range b {
				if got, want := p.Partial(), i > 0; got != want {
					t.Fatalf("Partial() = %v after %d of %d bytes", got, i, len(b))
				}
				feed(t, &p, b[i:i+1], &Limits{})
			}
			if p.Partial() {
				t.Error("Partial() = true at the end")
			}
		})
	}
}

func TestEventsSayWhoseTheirDataIs(t *testing.T) {
	hello := unhex(t, "81 85 37fa213d 7f9f4d5158")
	var p Parser

	b := bytes.Clone(hello)
	e, n := p.Next(b, &Limits{})
	if e.Kind != Text || e.Owned || n != len(b) || &e.Data[0] != &b[6] {
		t.Errorf("whole frame: Next = %+v, %d; want a text that lies in the input", e, n)
	}
	if cap(e.Data) != len(e.Data) {
		t.Error("whole frame: appending to Data would overwrite the input")
	}

	b = bytes.Clone(hello)
	if e, n = p.Next(b[:8], &Limits{}); e.Kind != None || n != 8 {
		t.Fatalf("half a frame: Next = %+v, %d", e, n)
	}
	e, _ = p.Next(b[8:], &Limits{})
	clear(b)
	if e.Kind != Text || !e.Owned || string(e.Data) != "Hello" {
		t.Errorf("frame in two pieces: Next = %+v; want a text of its own", e)
	}
}

func TestAppendHeaderUsesTheShortestLength(t *testing.T) {
	for _, tc := range []struct {
		op   Opcode
		n    int
		want string
	}{
		{OpText, 0, "8100"},
		{OpText, 125, "817d"},
		{OpBinary, 126, "827e007e"},
		{OpText, 65535, "817effff"},
		{OpText, 65536, "817f0000000000010000"},
		{OpClose, 2, "8802"},
		{OpPing, 0, "8900"},
		{OpPong, 125, "8a7d"},
	} {
		if got := hex.EncodeToString(AppendHeader([]byte{0xee}, tc.op, tc.n)); got != "ee"+tc.want {
			t.Errorf("AppendHeader(ee, %d, %d) = %s, want ee%s", tc.op, tc.n, got, tc.want)
		}
	}
}
