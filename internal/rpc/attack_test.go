package rpc

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// caller speaks HTTP/2 by hand, so that it can break its rules.
type caller struct {
	t      testing.TB
	nc     net.Conn
	fr     *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	stream uint32
}

func speak(t testing.TB, nc net.Conn) *caller {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	c := &caller{t: t, nc: nc, fr: http2.NewFramer(nc, nc), stream: 1}
	c.enc = hpack.NewEncoder(&c.block)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c.must(c.fr.WriteSettings())
	return c
}

// caller connects one to a server.
func (s *served) caller(t testing.TB) *caller {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return speak(t, nc)
}

func (c *caller) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// call opens a stream that stays open, and returns its number.
func (c *caller) call(path string, more ...string) uint32 {
	c.t.Helper()
	c.block.Reset()
	for i, all := 0, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "x", "content-type", "application/grpc", "te", "trailers"}, more...); i < len(all); i += 2 {
		c.must(c.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}))
	}
	id := c.stream
	c.stream += 2
	c.must(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}))
	return id
}

// answer reads on to how a stream, or the connection, ends: a gRPC status, an HTTP/2 error, or EOF.
func (c *caller) answer(id uint32) string {
	c.t.Helper()
	for {
		f, err := c.fr.ReadFrame()
		switch f := f.(type) {
		case nil:
			if nerr := net.Error(nil); errors.As(err, &nerr) && nerr.Timeout() {
				c.t.Fatalf("stream %d is not answered", id)
			}
			return "EOF"
		case *http2.GoAwayFrame:
			return "GOAWAY " + f.ErrCode.String()
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return f.ErrCode.String()
			}
		case *http2.MetaHeadersFrame:
			for _, h := range f.RegularFields() {
				if f.StreamID == id && h.Name == "grpc-status" {
					return h.Value
				}
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.must(c.fr.WriteSettingsAck())
			}
		}
	}
}

// A router that is strict about the slash where what checks is not, or the other way, lets strangers in.
func TestAMethodInAnotherSpellingIsNoWayAroundTheCredential(t *testing.T) {
	s := serve(t, Config{Keys: keys()}, over(t, &bus{}, gate{}))
	for _, path := range []string{
		"realtime.v1.PublisherService/Publish", "//realtime.v1.PublisherService/Publish", "/realtime.v1.PublisherService//Publish", "/realtime.v1.PublisherService/Publish/",
		"/realtime.v1.publisherservice/publish", "/realtime%2ev1.PublisherService/Publish", "/x/../realtime.v1.PublisherService/Publish", "/grpc.channelz.v1.Channelz/GetServers", "*", "/", "",
		"/grpc.health.v1.Health/Nothing", "grpc.health.v1.Health/Check",
	} {
		// A path that cannot be one may also end its connection.
		for credential, wants := range map[string][]string{"Bearer wrong": {"16", "12", "PROTOCOL_ERROR"}, "Bearer " + newKey: {"12", "PROTOCOL_ERROR"}} {
			c := s.caller(t)
			if got := c.answer(c.call(path, "authorization", credential)); !slices.Contains(wants, got) {
				t.Errorf("%q with %s: %s, want one of %v", path, credential, got, wants)
			}
		}
	}
	if _, err := s.pub.Publish(with(within10s(t), "Bearer "+newKey), hello()); err != nil {
		t.Errorf("a caller of the usual kind: %v", err)
	}
}

func TestAConnectionHasAThousandCallsAtOnce(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	c := s.caller(t)
	var last uint32
	for range maxStreams + 1 {
		last = c.call("/realtime.v1.PublisherService/PublishStream")
	}
	if got := c.answer(last); got != "REFUSED_STREAM" {
		t.Errorf("one call too many: %s, want REFUSED_STREAM", got)
	}
	if _, err := s.pub.Publish(within10s(t), hello()); err != nil {
		t.Errorf("another caller: %v", err)
	}
}

// Opening and resetting costs the peer two frames, and must not cost the server a call each that nobody bounds.
func TestCallsThatAreResetAtOnceLeaveNothingAndHoldUpNobody(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	c := s.caller(t)
	go func() { _, _ = io.Copy(io.Discard, c.nc) }() // ends with the connection
	for range 5000 {
		c.must(c.fr.WriteRSTStream(c.call("/realtime.v1.PublisherService/PublishStream"), http2.ErrCodeCancel))
	}
	if _, err := s.pub.Publish(within10s(t), hello()); err != nil {
		t.Errorf("another caller: %v", err)
	}
}

func TestWhoPingsAllTheTimeIsCut(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	c := s.caller(t)
	for range 10 {
		c.must(c.fr.WritePing(false, [8]byte{}))
	}
	if got := c.answer(0); got != "GOAWAY ENHANCE_YOUR_CALM" {
		t.Errorf("got %s, want GOAWAY ENHANCE_YOUR_CALM", got)
	}
}

// pipes listens for connections that are made in memory, where time is a bubble's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if nc, ok := <-p; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestAConnectionThatSaysNothingEnds(t *testing.T) {
	for name, c := range map[string]struct {
		speaks, answers bool
		above, most     time.Duration
	}{
		"no HTTP/2":                   {false, false, handshake - time.Second, handshake},
		"no answer to a sign of life": {true, false, quiet, quiet + 20*time.Second},
		"answers and nothing else":    {true, true, 9 * time.Minute, 11*time.Minute + ageGrace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := make(pipes)
				s := New(t.Context(), Config{}, Parts{Publisher: over(t, &bus{}, gate{})}, slog.New(slog.DiscardHandler))
				ended := make(chan error, 1)
				go func() { ended <- s.Serve(l) }()
				near, far := net.Pipe()
				begun := time.Now()
				l <- far
				fr := http2.NewFramer(near, near)
				writes := make(chan func() error, 100)
				go func() { // a pipe has no buffer: who reads may not wait for what is written
					for write := range writes {
						_ = write()
					}
				}()
				if c.speaks {
					writes <- func() error { _, err := io.WriteString(near, http2.ClientPreface); return err }
					writes <- func() error { return fr.WriteSettings() }
				}
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						break
					}
					if ping, ok := f.(*http2.PingFrame); ok && c.answers && !ping.IsAck() {
						data := ping.Data
						writes <- func() error { return fr.WritePing(true, data) }
					}
				}
				if d := time.Since(begun); d < c.above || d > c.most {
					t.Errorf("it ended after %v, want %v to %v", d, c.above, c.most)
				}
				close(writes)
				_ = near.Close()
				s.Shutdown(t.Context())
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
