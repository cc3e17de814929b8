package server

import (
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/slack5/realtime/internal/config"
)

// Every option arrives, each as itself; 0, no limit, does not become the default.
func TestLimitsArriveAtTheEdge(t *testing.T) {
	var c config.Limits
	in := reflect.ValueOf(&c).Elem()
	for i := range in.NumField() {
		in.Field(i).SetInt(int64(1000 + i))
	}
	got := reflect.ValueOf(limitsOf(&c))
	none := reflect.ValueOf(limitsOf(&config.Limits{}))
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		option := in.FieldByName(name)
		if name == "Fragments" {
			option = in.FieldByName("SessionFragments")
		}
		if !option.IsValid() || got.Field(i).Int() != option.Int() {
			t.Errorf("%s is %v, want the option's %v", name, got.Field(i), option)
		}
		if n := none.Field(i).Int(); n != -1 {
			t.Errorf("%s is %d without a limit, want -1", name, n)
		}
	}
	elsewhere := []string{"SessionRooms", "SessionBuffer", "MessageTimeout"}
	if in.NumField() != got.NumField()+len(elsewhere) {
		t.Errorf("%d options for %d limits and %v", in.NumField(), got.NumField(), elsewhere)
	}
}

// knock asks for a session with these headers, in bytes: what before the request is a proxy's word.
func (r *Running) knock(before string, headers ...string) (status int) {
	r.t.Helper()
	nc, err := net.Dial("tcp", strings.TrimPrefix(r.ws, "ws://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	request := "GET /ws/general HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	_, _ = io.WriteString(nc, before+request+strings.Join(headers, "\r\n")+"\r\n\r\n")
	head := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(nc, head); err != nil {
		return 0
	}
	for _, c := range string(head[len(head)-3:]) {
		status = 10*status + int(c-'0')
	}
	return status
}

func TestBehindAProxyLimitsAreThoseOfWhomItNames(t *testing.T) {
	const host = "Host: 127.0.0.1"
	told := func(address string) string { return "X-Forwarded-For: " + address }
	r := StartServer(t, "--trusted-proxy=127.0.0.0/8", "--address-sessions=1")
	for _, c := range []struct {
		from string
		want int
	}{{"198.51.100.7", 101}, {"198.51.100.7", 429}, {"6.6.6.6, 198.51.100.7", 429}, {"198.51.100.8", 101}} {
		if got := r.knock("", host, told(c.from)); got != c.want {
			t.Errorf("%s is answered %d, want %d", c.from, got, c.want)
		}
	}
	plain := StartServer(t, "--address-sessions=1")
	for range 3 {
		if got := plain.knock("", host, told("198.51.100.7")); got != http.StatusSwitchingProtocols {
			t.Errorf("a peer that is not trusted: %d", got)
		}
	}
	if lines := plain.log.find("WARN", "--trusted-proxy 127.0.0.1"); len(lines) != 1 {
		t.Errorf("it is told %d times how to trust it: %q", len(lines), lines)
	}

	introduced := StartServer(t, "--trusted-proxy=127.0.0.1", "--proxy-protocol", "--address-sessions=1")
	header, err := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP("198.51.100.7"), Port: 1}, &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 2}).Format()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{101, 429} {
		if got := introduced.knock(string(header), host); got != want {
			t.Errorf("introduced: %d, want %d", got, want)
		}
	}
	if got := introduced.knock("", host); got == http.StatusSwitchingProtocols {
		t.Error("without a header it is let in")
	}
}

func TestRequestsForOtherHostsAreRefused(t *testing.T) {
	r := StartServer(t, "--host=rt.example.com")
	for host, want := range map[string]int{"rt.example.com": 101, "127.0.0.1": 101, "evil.example": 403} {
		if got := r.knock("", "Host: "+host); got != want {
			t.Errorf("Host %s: %d, want %d", host, got, want)
		}
	}
}

func TestOptionsOfLimitsHoldForSessions(t *testing.T) {
	r := StartServer(t, "--session-frames=1")
	s := r.join("general")
	for range 3 {
		if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","ref":"r"}`)); err != nil {
			t.Fatal(err)
		}
	}
	s.want("error")
	eventually(t, "it is counted", func() bool {
		_, got := r.scrape()
		return got["realtime_rate_limited_total frames"] == 1
	})
}
