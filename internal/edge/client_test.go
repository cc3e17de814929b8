package edge

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// conn is a WebSocket made of bytes, so that it can break every rule.
type conn struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func tlsClient(nc net.Conn, hc *http.Client) (net.Conn, error) {
	cfg := hc.Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName = "example.com" // httptest's certificate
	return tls.Client(nc, cfg), nil
}

func (s *server) raw() *conn {
	nc := s.dial()
	return &conn{t: s.t, nc: nc, r: bufio.NewReader(nc)}
}

// hijackable is a ResponseWriter over a pipe.
type hijackable struct {
	*httptest.ResponseRecorder
	nc net.Conn
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReader(h.nc), bufio.NewWriter(h.nc)), nil
}

// upgrade are the headers of an honest handshake.
func upgrade(more ...string) []string {
	return append([]string{
		"Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, more...)
}

// ask sends a handshake and extra bytes in one write.
func (c *conn) ask(target string, extra []byte, headers ...string) *http.Response {
	c.t.Helper()
	c.send("GET " + target + " HTTP/1.1\r\n" + strings.Join(upgrade(headers...), "\r\n") + "\r\n\r\n" + string(extra))
	c.deadline(10 * time.Second)
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("GET %s: %v", target, err)
	}
	return res
}

// connect is a session after its handshake; nothing of it is read yet.
func (s *server) connect(target string, headers ...string) *conn {
	s.t.Helper()
	c := s.raw()
	if res := c.ask(target, nil, headers...); res.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(res.Body)
		s.t.Fatalf("GET %s: %s %s", target, res.Status, b)
	}
	return c
}

func (c *conn) deadline(d time.Duration) { _ = c.nc.SetDeadline(time.Now().Add(d)) }

// send writes; a peer that has gone shows in what is read.
func (c *conn) send(b string) {
	_ = c.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c.nc, b)
}

// masked is a client's frame. b0 is its first byte.
func masked(b0 byte, payload string) []byte {
	b := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i&3])
	}
	return b
}

func text(s string) []byte { return masked(0x81, s) }

// say sends one text message.
func (c *conn) say(format string, args ...any) { c.send(string(text(fmt.Sprintf(format, args...)))) }

// got is one frame of the server's.
type got struct {
	op      byte
	payload []byte
	code    int // of a close
	j       shown
}

// shown is a text frame's JSON.
type shown struct {
	ID, Type, Room, From, Ref, Timestamp string
	Data                                 json.RawMessage
}

// whole returns the next frame's first byte and payload.
func (c *conn) whole(within time.Duration) (op byte, payload []byte, err error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(within))
	var head [2]byte
	if _, err = io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err == nil {
		payload = make([]byte, n)
		_, err = io.ReadFull(c.r, payload)
	}
	return head[0], payload, err
}

// read returns the next frame; an error at the connection's end.
func (c *conn) read(within time.Duration) (g got, err error) {
	c.deadline(within)
	if g.op, g.payload, err = c.whole(within); err != nil {
		return g, err
	}
	switch g.op {
	case 0x81:
		if err = json.Unmarshal(g.payload, &g.j); err != nil {
			c.t.Errorf("frame %.200q: %v", g.payload, err)
		}
	case 0x88:
		g.code = 1005
		if len(g.payload) >= 2 {
			g.code = int(binary.BigEndian.Uint16(g.payload))
		}
	}
	return g, err
}

// frame returns the next text frame, past pings.
func (c *conn) frame() shown {
	c.t.Helper()
	for {
		g, err := c.read(10 * time.Second)
		switch {
		case err != nil:
			c.t.Fatalf("no frame: %v", err)
		case g.op == 0x81:
			return g.j
		case g.op == 0x88:
			c.t.Fatalf("closed %d %q", g.code, g.payload)
		}
	}
}

// want returns the next text frame that fits: an event of system, "error CODE", or a type. Frames before it are passed over.
func (c *conn) want(what string) shown {
	c.t.Helper()
	for {
		if f := c.frame(); f.what() == what {
			return f
		}
	}
}

// next returns the next text frame and insists on what it is.
func (c *conn) next(what string) shown {
	c.t.Helper()
	f := c.frame()
	if f.what() != what {
		c.t.Fatalf("got %s %s (room %q, ref %q), want %s", f.what(), f.Data, f.Room, f.Ref, what)
	}
	return f
}

func (f shown) what() string {
	var d struct{ Event, Code string }
	switch f.Type {
	case "system":
		_ = json.Unmarshal(f.Data, &d)
		return d.Event
	case "error":
		_ = json.Unmarshal(f.Data, &d)
		return "error " + d.Code
	}
	return f.Type
}

// field is a member of data.
func (f shown) field(name string) any {
	var m map[string]any
	_ = json.Unmarshal(f.Data, &m)
	return m[name]
}

// closed reads on to the close frame and the connection's end, ends its own side and returns the code: 1006 without a
// close frame. Nothing may follow a close frame.
func (c *conn) closed() (code int, reason string) {
	c.t.Helper()
	defer func() { _ = c.nc.Close() }()
	code = 1006
	for {
		g, err := c.read(15 * time.Second)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				c.t.Errorf("the connection does not end")
			}
			return code, reason
		}
		if code != 1006 {
			c.t.Errorf("frame %#x %.100q follows the close frame", g.op, g.payload)
		}
		if g.op == 0x88 {
			code = g.code
			if len(g.payload) > 2 {
				reason = string(g.payload[2:])
			}
			if _, half := c.nc.(interface{ CloseWrite() error }); !half {
				return code, reason // a pipe: the server cannot end its side alone
			}
			// an honest peer answers; the server has ended its side already
			_, _ = c.nc.Write(masked(0x88, string(g.payload[:min(2, len(g.payload))])))
		}
	}
}
