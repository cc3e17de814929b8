package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthTimeout bounds the whole of it: whoever runs containers kills a check that takes longer, and learns nothing.
const healthTimeout = 2 * time.Second

// healthcheck is one question, for containers: no shell and no other program is needed.
type healthcheck struct {
	dial
	OpsAddr string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"The node's operations listener (${default})."`
	GRPC    bool   `name:"grpc" env:"-" help:"Ask for gRPC's health at --addr instead."`
}

func (*healthcheck) Help() string {
	return `Prints one line. Takes $REALTIME_OPS_ADDR as serve does, so that nothing has to be given where the node runs.

Example, in a Dockerfile:
  HEALTHCHECK CMD ["realtime", "healthcheck"]`
}

func (h *healthcheck) Run(e *env) error {
	ctx, cancel := context.WithTimeout(e.ctx, healthTimeout)
	defer cancel()
	bounded := *e
	bounded.ctx = ctx
	if h.GRPC {
		return h.ask(&bounded)
	}
	return h.fetch(&bounded)
}

// ask is gRPC's own protocol of health.
func (h *healthcheck) ask(e *env) error {
	conn, err := h.connect(e.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	answer, err := healthv1.NewHealthClient(conn).Check(e.ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		text, _ := explain(h.Addr, err)
		return fmt.Errorf("healthcheck: %s", text)
	}
	if answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("healthcheck: %s is %s", h.Addr, label("", answer.GetStatus()))
	}
	if h.JSON {
		return printJSON(e.out, answer)
	}
	_, err = fmt.Fprintln(e.out, label("", answer.GetStatus()))
	return err
}

// fetch asks the operations listener.
func (h *healthcheck) fetch(e *env) error {
	url := "http://" + dialable(h.OpsAddr) + "/readyz"
	req, err := http.NewRequestWithContext(e.ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("--ops-addr: %q is not HOST:PORT", h.OpsAddr)
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy: the node is near
	resp, err := transport.RoundTrip(req)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("healthcheck: no answer from %s within %v", url, healthTimeout)
	case err != nil:
		return fmt.Errorf("healthcheck: no node answers at %s: is `realtime serve` running there? --ops-addr names another", url)
	}
	defer func() { _ = resp.Body.Close() }()
	var state struct {
		Status  string   `json:"status"`
		Reasons []string `json:"reasons"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(body, &state) != nil || state.Status == "" {
		return fmt.Errorf("healthcheck: what %s answers (%d) is no node's readiness: --ops-addr names another listener", url, resp.StatusCode)
	}
	text := printable(state.Status)
	if len(state.Reasons) > 0 {
		text += ": " + printable(strings.Join(state.Reasons, ", "))
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: %s", text)
	}
	if h.JSON {
		_, err = fmt.Fprintln(e.out, oneLine(string(body)))
	} else {
		_, err = fmt.Fprintln(e.out, text)
	}
	return err
}

// dialable makes of where a node listens where it can be reached from the same machine: nobody can be called at 0.0.0.0.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip, bad := netip.ParseAddr(host); err == nil && (host == "" || bad == nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
		return net.JoinHostPort(host, port)
	}
	return addr
}
