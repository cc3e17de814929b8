package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/hooks/remote"
	"github.com/slack5/realtime/internal/telemetry"
)

// replyBytes is what an answer of a hook may have beside a message's data: a session's grants, above all.
const replyBytes = 256 << 10

// hookChain is what asks the backend of --hooks-addr; nil: there is none.
func (s *Server) hookChain(m metric.Meter) (*hooks.Chain, error) {
	observe, err := telemetry.DurationsBy(m, "realtime_hook_duration_seconds", "What a hook took to answer, the wait for its turn included.", "hook", "result")
	if err != nil {
		return nil, err
	}
	c := s.cfg
	on := c.HooksOn()
	if len(on) == 0 {
		return nil, nil
	}
	client, err := s.hookClient()
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, client.Close)
	h := hooks.Config{
		MaxDataBytes: int(c.MaxData),
		FlushTime:    s.hookFlush(),
		Observe: func(ctx context.Context, p hooks.Point, r hooks.Result, took time.Duration) {
			observe(ctx, took, p.String(), r.String())
		},
	}
	for _, name := range on {
		p, err := hooks.ParsePoint(name)
		if err != nil {
			return nil, fmt.Errorf("--hook: %w", err)
		}
		switch p {
		case hooks.Connect:
			h.Hooks.Connect = client.Connect
		case hooks.Subscribe:
			h.Hooks.Subscribe = client.Subscribe
		case hooks.Message:
			h.Hooks.Message = client.Message
		case hooks.Disconnect:
			h.Hooks.Disconnect = client.Disconnect
		}
		h.Points[p] = hooks.Rules{Open: c.HooksFail[name] == "open", Timeout: c.HooksTimeout[name], Concurrency: c.HooksConcurrency[name]}
	}
	return hooks.New(h, s.log), nil
}

// hookFlush is what of the drain's budget is kept for telling of the last sessions' ends.
func (s *Server) hookFlush() time.Duration { return min(hooks.DefaultFlushTime, s.cfg.DrainTimeout/10) }

func (s *Server) hookClient() (*remote.Client, error) {
	c := s.cfg
	r := remote.Config{Addr: c.HooksAddr, MaxReply: replyBytes + int(c.MaxData)}
	if c.HooksTLS() {
		r.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.HooksTLSCA != "" {
		pem, err := os.ReadFile(c.HooksTLSCA)
		if err != nil {
			return nil, fmt.Errorf("--hooks-tls-ca: %w", err)
		}
		r.TLS.RootCAs = x509.NewCertPool()
		if !r.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--hooks-tls-ca: %s holds no certificate in PEM", c.HooksTLSCA)
		}
	}
	if c.HooksKey != "" {
		key, err := c.HooksKey.Read(config.MinGRPCKey)
		if err != nil {
			return nil, fmt.Errorf("--hooks-key: %w", err)
		}
		r.Key = string(key)
	}
	return remote.New(r)
}

// instrumentHooks registers what hooks let pass and what they were not told.
func (s *Server) instrumentHooks(m metric.Meter) error {
	passed, err := m.Int64ObservableCounter("realtime_hook_passes", metric.WithUnit("{failure}"), metric.WithDescription("Failures of hooks that let pass what was asked about, by hook."))
	if err != nil {
		return err
	}
	dropped, err := m.Int64ObservableCounter("realtime_hook_disconnects_dropped", metric.WithUnit("{session}"), metric.WithDescription("Ended sessions of which the hook disconnect was not told: too many waited, or the node ended."))
	if err != nil {
		return err
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := s.hooks.Stats()
		for _, p := range hooks.Points()[:hooks.Disconnect] {
			o.ObserveInt64(passed, int64(st.Passed[p]), metric.WithAttributes(attribute.String("hook", p.String())))
		}
		o.ObserveInt64(dropped, int64(st.Dropped))
		return nil
	}, passed, dropped)
	return err
}
