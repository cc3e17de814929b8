package server

import (
	"context"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/publish"
	"github.com/slack5/realtime/internal/rpc"
	"github.com/slack5/realtime/internal/telemetry"
	"github.com/slack5/realtime/web"
)

// compose translates the options into the parts' own configurations: nobody else knows both.
func (s *Server) compose(ctx context.Context, number uint16, calls rpc.Config) error {
	c, meter, tracer := s.cfg, s.telemetry.Meter(), s.telemetry.Tracer()
	published, err := telemetry.Durations(meter, "realtime_publish_duration_seconds", "From a publish's arrival to its acceptance, the wait for its room included.", "kind", publish.Session.String(), publish.Backend.String(), publish.Embedded.String())
	if err != nil {
		return err
	}
	delivered, err := telemetry.Durations(meter, "realtime_delivery_latency_seconds", "From a message's acceptance to its writing to all members of a shard that keep up.", "", "")
	if err != nil {
		return err
	}
	edgeConfig, err := s.edgeConfig()
	if err != nil {
		return err
	}
	if s.hooks, err = s.hookChain(meter); err != nil {
		return err
	}
	observe := func(span trace.SpanContext, age time.Duration) {
		traced := ctx
		if span.IsValid() {
			traced = trace.ContextWithSpanContext(ctx, span)
		}
		delivered[0](traced, age)
	}
	s.node = node.New(node.Config{
		Number:      number,
		Hub:         hub.Config{LogBytes: int64(c.LogBytes), OwnFrameBytes: int(c.SessionBuffer), Observe: observe, Tracer: tracer},
		Memory:      broker.MemoryConfig{MaxBytes: int64(c.MemoryBytes), Retention: broker.Retention{Messages: c.HistorySize, Age: c.HistoryTTL}, IdempotencyTTL: c.IdempotencyTTL},
		Publish:     publish.Config{MaxDataBytes: int(c.MaxData), Observe: func(ctx context.Context, o publish.Origin, d time.Duration) { published[o](ctx, d) }, Tracer: tracer},
		Presence:    presence.Config{Grace: c.PresenceGrace, CountsAbove: c.PresenceCountsAbove},
		NoPresence:  !c.Presence,
		Hooks:       s.hooks,
		DrainWindow: max(c.DrainWindow, 1), // 0 would be the default
		Host:        hostname(), Version: Version(),
	}, s.log)
	if s.redis, err = s.useRedis(tracer); err != nil {
		return err
	}
	if s.sessions, err = s.node.NewEdge(edgeConfig, s.log); err != nil {
		return err
	}
	parts := rpc.Parts{Publisher: s.node.Publisher(), Broker: s.node.Broker(), Hub: s.node.Hub(), Control: s.node.Control()}
	if c.Presence {
		parts.Presence = s.node.Presence()
	}
	s.rpc = rpc.New(ctx, calls, parts, s.log)
	for _, instrument := range []func(metric.Meter) error{
		s.node.Instrument, s.instrument, s.instrumentHooks, s.redis.instrument, s.instrumentKeys, s.instrumentRPC,
	} {
		if err := instrument(meter); err != nil {
			return err
		}
	}
	return nil
}

// hostname is the host's or pod's; empty: it is not to be had.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// edgeHandler serves sessions, and in development the demo page. It routes by itself: a mux would clean and redirect paths.
func (s *Server) edgeHandler() http.Handler {
	ws, page := s.sessions, web.Page()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Dev && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			switch r.URL.Path {
			case "/":
				page.ServeHTTP(w, r)
				return
			case "/dev/token":
				s.devToken(w, r)
				return
			}
		}
		ws.ServeHTTP(w, r)
	})
}

func (s *Server) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.telemetry.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, readiness{Status: "ok"}) })
	mux.HandleFunc("GET /readyz", s.ready)
	if s.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}
	return mux
}
