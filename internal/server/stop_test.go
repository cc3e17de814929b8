package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// balanced is a server as behind a load balancer: it has the delay that a developer's does not.
func balanced(t *testing.T, args ...string) *Running {
	t.Helper()
	return startWith(t, func(s *Server) { s.cfg.Dev = false }, args...)
}

func (r *Running) readiness() (int, string) {
	r.t.Helper()
	code, _, body := fetch(r.t, r.http+"/readyz")
	return code, body
}

func TestTheEndIsToldBeforeItBeginsAndEverybodyIsSentAway(t *testing.T) { both(t, endIsOrderly) }

func endIsOrderly(t *testing.T, args ...string) {
	r := balanced(t, append(args, "--drain-delay=1500ms", "--drain-window=1s", "--drain-timeout=10s")...)
	first := r.join("general")
	health := healthpb.NewHealthClient(r.dial())
	if code, body := r.readiness(); code != http.StatusOK {
		t.Fatalf("serving: %d %s", code, body)
	}
	pub := r.publisher()

	r.stop()
	eventually(t, "not ready", func() bool { code, _ := r.readiness(); return code == http.StatusServiceUnavailable })
	if _, body := r.readiness(); !strings.Contains(body, `"reasons":["draining"]`) {
		t.Errorf("not ready: %s", body)
	}
	if code, _, _ := fetch(t, r.http+"/healthz"); code != http.StatusOK {
		t.Errorf("the process is well, healthz says %d", code)
	}
	if h, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || h.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC health: %v, %v", h, err)
	}
	// Who has not noticed yet is served as ever.
	second := r.join("general")
	if _, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: `"still here"`}}); err != nil {
		t.Errorf("publish while not ready: %v", err)
	}
	sent := map[*guest]told{first: first.want("chat"), second: second.want("chat")}

	for s, name := range map[*guest]string{first: "the first", second: "the second"} {
		f := s.want("reconnect")
		var data struct {
			In *int64 `json:"in_ms"`
		}
		if err := json.Unmarshal(f.Data, &data); err != nil || data.In == nil || *data.In < 0 || *data.In > 1000 {
			t.Errorf("%s is told %s, want a time within the window", name, f.Data)
		}
		if f.ID < sent[s].ID {
			t.Errorf("%s: the frame's id %s lies before the last message's, %s", name, f.ID, sent[s].ID)
		}
	}
	// One of the two has half the window left: nobody is let in meanwhile.
	code, h, body := r.handshake()
	if code != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || !strings.Contains(body, `"draining"`) {
		t.Errorf("a handshake: %d %s, want 503 draining with Retry-After", code, body)
	}
	for _, s := range []*guest{first, second} {
		if got := s.closed(); got != 1012 {
			t.Errorf("closed with %d, want 1012", got)
		}
	}
	if took, err := r.wait(time.Now()); err != nil || took > 8*time.Second {
		t.Errorf("Run = %v, %v after the last session", err, took)
	}
	for _, addr := range []string{r.edgeL.Addr().String(), r.rpcAt, r.opsL.Addr().String()} {
		if nc, err := net.Dial("tcp", addr); err == nil {
			_ = nc.Close()
			t.Errorf("%s still takes connections", addr)
		}
	}
	_, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("publish after the end: %v, want UNAVAILABLE", err)
	}
	for _, msg := range []string{`"draining"`, `"drained"`, `"stopped"`} {
		if got := r.log.find("INFO", `"msg":`+msg); len(got) != 1 {
			t.Errorf("%s is logged %d times: %q", msg, len(got), got)
		}
	}
	for _, level := range []string{"WARN", "ERROR"} {
		if got := r.log.find(level, ""); got != nil {
			t.Errorf("an orderly end logs %q", got)
		}
	}
}

func TestADeveloperDoesNotWaitForALoadBalancer(t *testing.T) {
	r := StartServer(t, "--drain-delay=8s", "--drain-window=1s", "--drain-timeout=10s")
	s := r.join("general")
	begin := time.Now()
	r.stop()
	s.want("reconnect")
	if got := s.closed(); got != 1012 {
		t.Errorf("closed with %d, want 1012", got)
	}
	if took, err := r.wait(begin); err != nil || took > 6*time.Second {
		t.Errorf("Run = %v after %v", err, took)
	}
}

// dead opens a session that never reads: neither what is published nor its close.
func (r *Running) dead(room string) net.Conn {
	r.t.Helper()
	var conn net.Conn
	eventually(r.t, "the edge lets sessions in", func() bool {
		nc, err := net.Dial("tcp", r.edgeL.Addr().String())
		if err != nil {
			r.t.Fatal(err)
		}
		if shake(r.t, nc, room) {
			conn = nc
			return true
		}
		_ = nc.Close()
		return false
	})
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// shake asks for a session and tells whether it is let in; it reads no further than it must.
func shake(t testing.TB, nc net.Conn, room string) bool {
	t.Helper()
	fmt.Fprintf(nc, "GET /ws/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", room)
	line, err := bufio.NewReaderSize(nc, 16).ReadString('\n')
	if err != nil && line == "" {
		t.Fatal(err)
	}
	return strings.Contains(line, " 101 ")
}

func TestPeersThatAreDeadDoNotHoldUpTheEnd(t *testing.T) {
	const budget = 1500 * time.Millisecond
	r := balanced(t, "--drain-delay=100ms", "--drain-window=200ms", fmt.Sprintf("--drain-timeout=%v", budget))
	var peers []net.Conn
	for range 5 {
		peers = append(peers, r.dead("general"))
	}
	idle := r.dead("quiet") // its socket takes the close, but it never answers
	pub := r.publisher()
	big := `"` + strings.Repeat("a", 60<<10) + `"`
	eventually(t, "their sockets are full", func() bool {
		if _, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: big}}); err != nil {
			t.Logf("publish: %v", err) // overloaded: most of the members are late
		}
		_, _, body := fetch(t, r.http+"/metrics")
		return strings.Contains(body, "realtime_sessions_blocked 5\n")
	})
	took, err := r.end()
	if err != nil || took < budget/2 || took > budget+2*time.Second {
		t.Errorf("Run = %v after %v, want it to use its budget of %v and no more", err, took, budget)
	}
	for i, nc := range append(peers, idle) {
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection of peer %d is still open", i)
		}
	}
	if got := r.log.find("ERROR", ""); got != nil {
		t.Errorf("logged %q", got)
	}
}
