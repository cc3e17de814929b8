package server

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadinessTellsWhyNotAndHowMuchIsLeft(t *testing.T) {
	before := func(s *Server) {
		rec := httptest.NewRecorder()
		s.opsHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if want := `{"status":"unready","reasons":["starting"],"headroom":{"sessions":100,"log_bytes":67108864}}`; rec.Code != http.StatusServiceUnavailable || strings.TrimSpace(rec.Body.String()) != want {
			t.Errorf("before Run: %d %s, want 503 %s", rec.Code, rec.Body, want)
		}
	}
	r := startWith(t, before, "--max-sessions=100", "--log-bytes=64MiB")
	r.join("general")
	code, _, body := fetch(t, r.http+"/readyz")
	var got struct {
		Status   string
		Reasons  []string
		Headroom map[string]int64
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if code != http.StatusOK || got.Status != "ready" || got.Reasons != nil || got.Headroom["sessions"] != 99 || got.Headroom["log_bytes"] == 0 {
		t.Errorf("serving: %d %s", code, body)
	}
}

func TestBeingFullIsNotUnready(t *testing.T) {
	r := StartServer(t, "--max-sessions=1")
	r.join("general")
	if code, _, body := fetch(t, r.http+"/readyz"); code != http.StatusOK || !strings.Contains(body, `"sessions":0`) {
		t.Errorf("full: %d %s", code, body)
	}
}

func TestOperationsAreOnTheirOwnListenerAndProfilesOptIn(t *testing.T) {
	r := StartServer(t)
	edge, _, _ := r.Addrs()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/debug/pprof/": 404, "/debug/pprof/heap": 404, "/": 404, "/ws/a": 404} {
		if code, _, _ := fetch(t, r.http+path); code != want {
			t.Errorf("ops %s = %d, want %d", path, code, want)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
		if code, _, _ := fetch(t, "http://"+edge+path); code != http.StatusNotFound {
			t.Errorf("edge %s = %d, want 404", path, code)
		}
	}
	if _, _, body := fetch(t, r.http+"/healthz"); strings.TrimSpace(body) != `{"status":"ok"}` {
		t.Errorf("healthz tells more than it must: %s", body)
	}
	r = StartServer(t, "--pprof")
	if code, _, body := fetch(t, r.http+"/debug/pprof/goroutine?debug=1"); code != http.StatusOK || !strings.Contains(body, "goroutine profile") {
		t.Errorf("with --pprof: %d %.80s", code, body)
	}
}

// raw sends text to addr and returns the answer.
func raw(t *testing.T, addr, text string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

func TestPathsAreNeverCleanedOrRedirected(t *testing.T) {
	r := StartServer(t)
	got := make(map[string]int)
	for _, path := range []string{"/ws/a//b", "/ws/a/../b", "/ws/../metrics", "//", "/index.html", "/wsx"} {
		res := raw(t, r.edgeL.Addr().String(), "GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		got[path] = res.StatusCode
	}
	want := map[string]int{"/ws/a//b": 400, "/ws/a/../b": 400, "/ws/../metrics": 400, "//": 404, "/index.html": 404, "/wsx": 404}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAHeaderAboveTheBoundIsRefusedOnEveryHTTPListener(t *testing.T) {
	r := StartServer(t)
	for _, addr := range []string{r.edgeL.Addr().String(), r.opsL.Addr().String()} {
		// net/http allows 4 KiB more than it is told.
		for size, want := range map[int]int{15 << 10: http.StatusNotFound, 21 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			if res := raw(t, addr, "GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "+strings.Repeat("x", size)+"\r\n\r\n"); res.StatusCode != want {
				t.Errorf("%d bytes of headers: %d, want %d", size, res.StatusCode, want)
			}
		}
	}
}

func TestAHandshakeThatDoesNotComeIsCut(t *testing.T) {
	r := startWith(t, func(s *Server) {
		s.edge.ReadHeaderTimeout /= 100 // the real bound, made quick
		if s.edge.ReadHeaderTimeout != 100*time.Millisecond || s.ops.ReadHeaderTimeout != headerTimeout || s.edge.IdleTimeout == 0 || s.ops.IdleTimeout == 0 {
			t.Errorf("timeouts: edge %v, %v, ops %v, %v", s.edge.ReadHeaderTimeout, s.edge.IdleTimeout, s.ops.ReadHeaderTimeout, s.ops.IdleTimeout)
		}
	})
	for _, text := range []string{"", "GET /ws/a HTTP/1.1\r\nHost: x\r\n"} {
		conn, err := net.Dial("tcp", r.edgeL.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		for err == nil {
			_, err = conn.Read(make([]byte, 1024))
		}
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() { //nolint:errorlint // as net returns it
			t.Errorf("still open after %v: %q", patience, text)
		}
		_ = conn.Close()
	}
}
