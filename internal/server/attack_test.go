package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What proxies and servers may read differently is one request at most, and none that anybody is let in by.
func TestWhatIsNotOneRequestIsNoSession(t *testing.T) {
	r := StartServer(t)
	const (
		get     = "GET /ws/general HTTP/1.1\r\nHost: 127.0.0.1\r\n"
		upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		hidden  = get + upgrade + "\r\n"
	)
	for name, text := range map[string]string{
		"a length and chunks":       get + upgrade + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":               get + upgrade + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden,
		"a length with a sign":      get + upgrade + "Content-Length: +0\r\n\r\n" + hidden,
		"chunks of another name":    get + upgrade + "Transfer-Encoding: xchunked\r\n\r\n" + hidden,
		"a body with a request":     get + upgrade + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(hidden)) + hidden,
		"a space before the colon":  get + upgrade + "Content-Length : 5\r\n\r\n" + hidden,
		"two hosts":                 get + "Host: evil.example\r\n" + upgrade + "\r\n",
		"no host":                   "GET /ws/general HTTP/1.1\r\n" + upgrade + "\r\n",
		"NUL in a header":           get + upgrade + "X: a\x00b\r\n\r\n",
		"a line break in a header":  get + upgrade + "X: a\rb\r\n\r\n",
		"ten thousand headers":      get + upgrade + strings.Repeat("X: y\r\n", 10_000) + "\r\n",
		"more than a megabyte":      get + upgrade + "X: " + strings.Repeat("y", 1_200_000) + "\r\n\r\n",
		"the preface of HTTP/2":     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"an upgrade to HTTP/2":      get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"another version of HTTP":   "GET /ws/general HTTP/3.0\r\nHost: 127.0.0.1\r\n" + upgrade + "\r\n",
		"no request":                "\x16\x03\x01\x02\x00\x01\x00",
		"a tunnel to somewhere":     "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
		"an address somewhere else": "GET http://evil.example/ws/general HTTP/1.1\r\nHost: evil.example\r\n" + upgrade + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", r.edgeL.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, text) // it may be refused before it was sent whole
			_ = conn.(*net.TCPConn).CloseWrite()
			for in := bufio.NewReader(conn); ; {
				res, err := http.ReadResponse(in, nil)
				if err != nil {
					if nerr := net.Error(nil); errors.As(err, &nerr) && nerr.Timeout() {
						t.Error("it stays open")
					}
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); res.StatusCode < 400 {
					t.Errorf("%s, %v", res.Status, err)
					return
				}
			}
		})
	}
	r.join("general")
	if _, got := r.scrape(); got["realtime_handshakes_total accepted"] != 1 {
		t.Errorf("%v were let in, want the last alone", got["realtime_handshakes_total accepted"])
	}
}

// Nothing that a peer names becomes a label: else who invents names fills the memory of whoever scrapes.
func TestMetricsDoNotGrowWithWhatPeersName(t *testing.T) {
	t.Setenv("NODES_SECRET", contractSecret)
	r := StartServer(t, "--jwt-key=env:NODES_SECRET")
	series := func(i int) []string {
		user, room := fmt.Sprintf("user%d", i), fmt.Sprintf("room%d", i)
		s := r.join(room + "?token=" + userToken(t, user))
		s.say(fmt.Sprintf(`{"type":"chat","ref":"%s","data":%q}`, room, user))
		s.want("chat")
		s.say(fmt.Sprintf(`{"type":"own-type-%d"}`, i))
		s.want("error")
		s.say(fmt.Sprintf(`{"type":"chat","room":"elsewhere%d"}`, i))
		s.want("error")
		if _, err := r.publish(user); err == nil {
			t.Fatal("no JSON was taken")
		}
		if code, _, _ := fetch(t, fmt.Sprintf("%s/ws/%s?token=%s", strings.Replace(r.ws, "ws:", "http:", 1), room, user)); code < 400 {
			t.Fatalf("let in with %d", code)
		}
		_ = s.ws.CloseNow()
		eventually(t, "it is gone", func() bool {
			_, now := r.scrape()
			open, known := now["realtime_connections_total"]
			return known && open == 0
		})
		_, values := r.scrape()
		for key := range values {
			if strings.Contains(key, user) || strings.Contains(key, room) {
				t.Errorf("%s names what a peer named", key)
			}
		}
		return slices.Sorted(maps.Keys(values))
	}
	before := series(0)
	for i := range 5 {
		if d := cmp.Diff(before, series(i+1)); d != "" {
			t.Fatalf("after the first (-) there are more (+):\n%s", d)
		}
	}
}
