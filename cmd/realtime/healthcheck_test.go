package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

var opsLine = regexp.MustCompile(`(?m)^operations +http://([^/]+)/`)

func TestANodeThatServesIsHealthy(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var said text
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, onFreePorts, &said, t.Output()) }()
	until(t, "serve says where operations are", func() bool { return opsLine.MatchString(said.String()) })
	ops, rpc := opsLine.FindStringSubmatch(said.String())[1], grpcLine.FindStringSubmatch(said.String())[1]
	for want, args := range map[string][]string{
		"ready\n":   {"--ops-addr=" + ops},
		"serving\n": {"--grpc", "--addr=" + rpc},
	} {
		if out, err := command(t, append([]string{"healthcheck"}, args...)...); err != nil || out != want {
			t.Errorf("healthcheck %q: %q, %v, want %q", args, out, err, want)
		}
		out, err := command(t, append([]string{"healthcheck", "--json"}, args...)...)
		var got struct{ Status string }
		if parsed := json.Unmarshal([]byte(out), &got); err != nil || parsed != nil || !strings.EqualFold(got.Status, strings.TrimSpace(want)) || strings.Count(out, "\n") != 1 {
			t.Errorf("healthcheck --json %q: %q, %v, %v", args, out, err, parsed)
		}
	}
	_, port, _ := net.SplitHostPort(ops)
	t.Setenv("REALTIME_OPS_ADDR", "0.0.0.0:"+port) // as serve takes it
	if _, err := command(t, "healthcheck"); err != nil {
		t.Errorf("where serve listens everywhere: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	for _, args := range [][]string{{"--ops-addr=" + ops}, {"--grpc", "--addr=" + rpc}} {
		if out, err := command(t, append([]string{"healthcheck"}, args...)...); err == nil || out != "" || !strings.Contains(err.Error(), "is `realtime serve` running there?") {
			t.Errorf("healthcheck %q of a node that has ended: %q, %v", args, out, err)
		}
	}
}

func TestWhatIsNotReadyIsToldInOneLine(t *testing.T) {
	for name, c := range map[string]struct {
		code       int
		body, want string // want begins with "-": the error's end
	}{
		"draining":         {503, `{"status":"unready","reasons":["draining","no\nway"]}`, `-healthcheck: unready: draining, no\u000away`},
		"degraded":         {200, `{"status":"degraded","reasons":["broker away"]}`, "degraded: broker away\n"},
		"another service":  {200, `<html>`, "- is no node's readiness: --ops-addr names another listener"},
		"nothing in it":    {200, `{}`, "-names another listener"},
		"too much":         {200, `{"status":"` + strings.Repeat("x", 70<<10) + `"}`, "-names another listener"},
		"not found":        {404, "404 page not found", "-(404) is no node's readiness: --ops-addr names another listener"},
		"sent to and fro":  {302, "", "-(302) is no node's readiness: --ops-addr names another listener"},
		"ready, but a 500": {500, `{"status":"ready"}`, "-healthcheck: ready"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/readyz" {
					t.Errorf("asked %s %s", r.Method, r.URL)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.code)
				_, _ = w.Write([]byte(c.body))
			}))
			defer s.Close()
			out, err := command(t, "healthcheck", "--ops-addr="+strings.TrimPrefix(s.URL, "http://"))
			if end, bad := strings.CutPrefix(c.want, "-"); bad {
				if err == nil || out != "" || !strings.HasSuffix(err.Error(), end) {
					t.Errorf("%q, %v, want %q", out, err, end)
				}
			} else if err != nil || out != c.want {
				t.Errorf("%q, %v, want %q", out, err, c.want)
			}
		})
	}
}

func TestWhoDoesNotAnswerIsNotHealthy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for want, args := range map[string][]string{
		"no answer from http://":      {"healthcheck", "--ops-addr=" + l.Addr().String()},
		"no node answers at 127.0.0.": {"healthcheck", "--grpc", "--addr=" + l.Addr().String()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // the command's own bound is longer
		if err := run(ctx, args, t.Output(), t.Output()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
		cancel()
	}
	if _, err := command(t, "healthcheck", "--ops-addr=no port"); err == nil {
		t.Error("an address that is none is healthy")
	}
}

func TestGRPCHealthSaysNo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(s, h)
	h.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	out, err := command(t, "healthcheck", "--grpc", "--addr="+l.Addr().String())
	if err == nil || out != "" || err.Error() != "healthcheck: "+l.Addr().String()+" is not_serving" {
		t.Errorf("%q, %v", out, err)
	}
	addr := (&fake{}).serve(t)
	if _, err := command(t, "healthcheck", "--grpc", addr); err == nil || !strings.Contains(err.Error(), "does not serve this") {
		t.Errorf("a server without health: %v", err)
	}
}

func TestWhereANodeListensEverywhereIsAskedOnThisMachine(t *testing.T) {
	for addr, want := range map[string]string{
		":1": "127.0.0.1:1", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "node:1": "node:1", "nonsense": "nonsense",
	} {
		if got := dialable(addr); got != want {
			t.Errorf("dialable(%q) = %q, want %q", addr, got, want)
		}
	}
}
