package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// libraryAccepts are the faults that coder/websocket does not look for. Behind one of them it goes on, so that only
// what came before can be compared.
var libraryAccepts = map[string]string{
	errText.reason:          "it leaves UTF-8 to its caller",
	errCloseReason.reason:   "it leaves UTF-8 to its caller",
	errLengthForm.reason:    "it takes a length in any form",
	errControlLength.reason: "likewise: to us any long form is too long for a control frame",
	errFragments.reason:     "it counts bytes, so that empty fragments are free",
	errControlFlood.reason:  "it answers every ping",
}

// librarySilent are the faults that it may end a connection for without a close frame.
var librarySilent = map[string]string{
	errUnmasked.reason:        "it just ends",
	errLengthRange.reason:     "it just ends",
	errReservedBits.reason:    "if the length is out of range too: it reads the whole header first",
	errReservedOpcode.reason:  "likewise",
	errControlFragment.reason: "likewise",
}

// memConn is a connection whose peer has sent everything already and reads all that is written.
type memConn struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *memConn) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *memConn) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *memConn) Close() error                     { return nil }
func (c *memConn) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (c *memConn) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (c *memConn) SetDeadline(time.Time) error      { return nil }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// verdict is what a reader made of some bytes.
type verdict struct {
	messages []string
	pings    []string
	closed   bool   // it took the peer's close frame
	code     uint16 // of the close frame it answers with; 0: it sends none, CodeNone: an empty one
	reason   string // of the peer's close frame
}

func libraryVerdict(t testing.TB, b []byte) (v verdict) {
	t.Helper()
	conn := &memConn{in: bytes.NewReader(b)}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	c, err := websocket.Accept(hijackable{httptest.NewRecorder(), conn}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(int64(fuzzLimits.MessageBytes))
	for err == nil {
		var typ websocket.MessageType
		var data []byte
		if typ, data, err = c.Read(t.Context()); err == nil {
			v.messages = append(v.messages, fmt.Sprintf("%d %q", typ, data))
		}
	}
	_ = c.CloseNow()
	var ce websocket.CloseError
	if v.closed = errors.As(err, &ce); v.closed {
		v.reason = ce.Reason
	}
	for out := conn.out.Bytes(); len(out) > 0; {
		op, n := Opcode(out[0]&opcodeBits), int(out[1]) // all its frames here are short
		switch payload := out[2 : 2+n]; {
		case op == OpPong:
			v.pings = append(v.pings, string(payload))
		case n == 0:
			v.code = CodeNone
		default:
			v.code = binary.BigEndian.Uint16(payload)
		}
		out = out[2+n:]
	}
	return v
}

// parserVerdict also returns the reason of the error that ended it, if one did.
func parserVerdict(t testing.TB, b, cuts []byte) (v verdict, why string) {
	t.Helper()
	var p Parser
	for _, e := range feedCut(t, &p, b, cuts) {
		switch e.Kind {
		case Text:
			v.messages = append(v.messages, fmt.Sprintf("%d %q", websocket.MessageText, e.Data))
		case Binary:
			v.messages = append(v.messages, fmt.Sprintf("%d %q", websocket.MessageBinary, e.Data))
		case Ping:
			v.pings = append(v.pings, string(e.Data))
		case Close:
			v.closed, v.code, v.reason = true, e.Code, string(e.Data)
		case Error:
			v.code, why = e.Code, e.Reason
		}
	}
	return v, why
}

// FuzzLibrary: the parser and coder/websocket's reader make the same of the same bytes, but for the listed differences.
func FuzzLibrary(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		// Behind the script comes more than a message may have, and then an unmasked frame: so both come to a verdict,
		// and none of it is about a connection that breaks off (there the library passes a part for the whole).
		b := append(script(in), make([]byte, 2*fuzzLimits.MessageBytes)...)
		ours, why := parserVerdict(t, b, cuts)
		theirs := libraryVerdict(t, b)

		if _, ok := libraryAccepts[why]; ok {
			if !isPrefix(ours.messages, theirs.messages) || !isPrefix(ours.pings, theirs.pings) {
				t.Fatalf("before %q: ours %+v, theirs %+v", why, ours, theirs)
			}
			return
		}
		if _, ok := librarySilent[why]; ok && theirs.code == 0 {
			theirs.code = CodeProtocol
		}
		if !slices.Equal(ours.messages, theirs.messages) || !slices.Equal(ours.pings, theirs.pings) ||
			ours.closed != theirs.closed || ours.code != theirs.code || ours.reason != theirs.reason {
			t.Fatalf("%q: ours %+v, theirs %+v", why, ours, theirs)
		}
	})
}

func isPrefix(a, b []string) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }
