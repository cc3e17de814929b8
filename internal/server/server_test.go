package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what takes milliseconds.
const patience = 10 * time.Second

// options are small and let tests be quick.
func options() *config.Serve {
	return &config.Serve{
		Dev: true, EdgeAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", OpsAddr: "127.0.0.1:0", MaxSessions: 100, SndbufBytes: 64 << 10,
		LogBytes: 64 << 20, MemoryBytes: 64 << 20, HistorySize: 100, HistoryTTL: time.Minute, IdempotencyTTL: time.Minute,
		DrainTimeout: 5 * time.Second,
	}
}

// running is a server over given options.
type running struct {
	*Server
	t *testing.T
}

func build(t *testing.T, cfg *config.Serve) *running {
	t.Helper()
	log := &journal{}
	s, err := New(t.Context(), cfg, log, log.logger(t))
	if err != nil {
		t.Fatal(err)
	}
	return &running{s, t}
}

func (r *running) start() {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			r.t.Errorf("Run = %v", err)
		}
	})
	eventually(r.t, "it serves", func() bool { return r.state.Load() != starting })
}

func serve(t *testing.T, cfg *config.Serve) *running {
	t.Helper()
	r := build(t, cfg)
	r.start()
	return r
}

func (r *running) dial(path string) *websocket.Conn {
	r.t.Helper()
	var conn *websocket.Conn
	eventually(r.t, "the edge lets sessions in", func() (ok bool) {
		var err error
		conn, _, err = websocket.Dial(r.t.Context(), "ws://"+r.edgeL.Addr().String()+path, nil)
		return err == nil
	})
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// find reads frames until one contains text.
func (r *running) find(conn *websocket.Conn, text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			r.t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(string(b), text) {
			return
		}
	}
}

func (r *running) get(addr, path string) (int, string) {
	r.t.Helper()
	code, _, body := fetch(r.t, "http://"+addr+path)
	return code, body
}

func (r *running) ops(path string) (int, string) {
	r.t.Helper()
	return r.get(r.opsL.Addr().String(), path)
}
