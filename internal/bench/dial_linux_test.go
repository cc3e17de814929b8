package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestSessionsAboveOneAddressesPortsCallFromTheNext(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := &target{addr: l.Addr().(*net.TCPAddr)}
	for number, want := range map[int]string{0: "127.0.0.1", portsPerAddress: "127.0.0.2", 3*portsPerAddress - 1: "127.0.0.3"} {
		d := dialler{ctx: t.Context(), deadline: time.Now().Add(5 * time.Second)}
		if err := d.connect(&swarm{spread: true}, &job{number: number, target: to}); err != nil {
			t.Fatal(err)
		}
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := nc.RemoteAddr().(*net.TCPAddr).IP.String(); got != want {
			t.Errorf("session %d calls from %s, want %s", number, got, want)
		}
		nc.Close()
		_ = unix.Close(d.fd)
	}
}

func TestOnlyManySessionsOnLoopbackAreSpread(t *testing.T) {
	for _, tc := range []struct {
		ws       string
		sessions int
		want     bool
	}{{"127.0.0.1:1", portsPerAddress, false}, {"127.0.0.1:1", portsPerAddress + 1, true}, {"192.0.2.1:1", portsPerAddress + 1, false}, {"[::1]:1", portsPerAddress + 1, false}} {
		b, err := (&Command{WS: []string{tc.ws}, Sessions: tc.sessions, Rooms: 1, progress: t.Output()}).prepare()
		if err != nil {
			t.Fatal(err)
		}
		b.progress.wait()
		if b.swarm.spread != tc.want {
			t.Errorf("%d sessions to %s: spread %t, want %t", tc.sessions, tc.ws, b.swarm.spread, tc.want)
		}
	}
}

func TestARefusalIsFinalUnlessTheServerIsBusy(t *testing.T) {
	for status, final := range map[string]bool{
		"400 Bad Request": true, "401 Unauthorized": true, "403 Forbidden": true, "200 OK": true,
		"429 Too Many Requests": false, "503 Service Unavailable": false,
	} {
		answer := "HTTP/1.1 " + status + "\r\nContent-Length: 4\r\n\r\nwhy!"
		if got, err := judgeAnswer([]byte(answer), ""); got != final || err == nil || !strings.Contains(err.Error(), status+" why!") {
			t.Errorf("%s: final %t, %v; want %t and the reason", status, got, err, final)
		}
	}
	if final, err := judgeAnswer([]byte("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: AAAA\r\n\r\n"), "key"); !final || err == nil {
		t.Errorf("a wrong Sec-WebSocket-Accept: final %t, %v", final, err)
	}
}

func TestTheRequestCarriesTokenAndLastID(t *testing.T) {
	id := message.ID{Position: 5, Low: 1 << 63}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request("secret", "key", &job{target: &target{host: "h:1", path: "/ws/"}, room: "bench.x.0", last: id}))))
	if err != nil {
		t.Fatal(err)
	}
	if r.URL.Path != "/ws/bench.x.0" || r.URL.Query().Get("last_id") != id.String() || r.Header.Get("Authorization") != "Bearer secret" || r.Host != "h:1" {
		t.Errorf("%s %v %v", r.Host, r.URL, r.Header)
	}
	r, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(request("", "key", &job{target: &target{path: "/ws/"}}))))
	if err != nil || r.URL.RawQuery != "" || len(r.Header["Authorization"]) != 0 {
		t.Errorf("the first time, without token: %v, %v", r, err)
	}
}

// upgrade is a handshake by hand, for servers that break rules behind it.
func upgrade(t *testing.T, w http.ResponseWriter, r *http.Request) net.Conn {
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return nil
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	room := strings.TrimPrefix(r.URL.Path, "/ws/")
	b := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	b = frame.Welcome{}.Append(b, 0)
	_, _ = nc.Write(frame.Subscribed{Room: message.Room(room)}.Append(b, 0))
	return nc
}

func TestAServerThatBreaksItsFramesFails(t *testing.T) {
	t.Parallel()
	for name, bytes := range map[string][]byte{
		"masked": {0x81, 0x80, 0, 0, 0, 0}, "binary": {0x82, 0}, "no JSON": {0x81, 2, 'h', 'i'}, "fragment": {0x01, 1, '{'},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if nc := upgrade(t, w, r); nc != nil {
					_, _ = nc.Write(bytes)
					var drop [64]byte
					for _, err := nc.Read(drop[:]); err == nil; _, err = nc.Read(drop[:]) {
					}
					nc.Close()
				}
			}))
			defer srv.Close()
			c := f.command()
			c.WS, c.Sessions, c.Rooms, c.Settle = []string{strings.TrimPrefix(srv.URL, "http://")}, 2, 1, 50*time.Millisecond
			r, err := c.bench(t)
			if r.Broken < 2 || r.Causes["broken"] != r.Broken || !errors.Is(err, ErrFaults) || r.Sessions.Problem == "" {
				t.Errorf("%d broken, ends %v, first %q, verdict %v; want both sessions', and ErrFaults", r.Broken, r.Causes, r.Sessions.Problem, err)
			}
		})
	}
}

func TestSessionsAnswerPings(t *testing.T) {
	t.Parallel()
	answered := make(chan error, 12)
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if i == 5 {
				ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
				defer cancel()
				answered <- c.ws.Ping(ctx)
			}
		}
	})
	if _, err := f.command().bench(t); err != nil {
		t.Error(err)
	}
	for range 12 {
		if err := <-answered; err != nil {
			t.Errorf("a ping: %v", err)
		}
	}
}
