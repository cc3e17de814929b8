package server

import (
	"context"
	"runtime"
	"runtime/debug"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/slack5/realtime/internal/auth"
)

// Version is what the binary was built from: the module's version, else the commit, else "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}

// instrument registers what is the server's own to tell.
func (s *Server) instrument(m metric.Meter) error {
	drain, err := m.Int64ObservableGauge("realtime_draining", metric.WithDescription("1 while the node drains."))
	if err != nil {
		return err
	}
	build, err := m.Int64ObservableGauge("realtime_build_info", metric.WithDescription("1; the labels tell what runs."))
	if err != nil {
		return err
	}
	labels := metric.WithAttributes(attribute.String("version", Version()), attribute.String("go", runtime.Version()))
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		v := int64(0)
		if s.state.Load() == draining {
			v = 1
		}
		o.ObserveInt64(drain, v)
		o.ObserveInt64(build, 1, labels)
		return nil
	}, drain, build)
	return err
}

// instrumentRPC registers what gRPC refuses.
func (s *Server) instrumentRPC(m metric.Meter) error {
	// Both are the node's instruments too: alike in name, unit and description they are one.
	failures, err := m.Int64ObservableCounter("realtime_auth_failures", metric.WithUnit("{failure}"), metric.WithDescription("What was refused for want of a good credential, by reason."))
	if err != nil {
		return err
	}
	limited, err := m.Int64ObservableCounter("realtime_rate_limited", metric.WithUnit("{frame}"), metric.WithDescription("What was refused for its rate, by kind."))
	if err != nil {
		return err
	}
	reason := func(why string) metric.ObserveOption { return metric.WithAttributes(attribute.String("reason", why)) }
	missing, unknown, expired, scope := reason("credential_missing"), reason("credential_unknown"), reason("credential_expired"), reason("scope_missing")
	kind := func(what string) metric.ObserveOption { return metric.WithAttributes(attribute.String("kind", what)) }
	publish, connections := kind("publish"), kind("connections")
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := s.rpc.Stats()
		o.ObserveInt64(failures, int64(st.CredentialMissing), missing)
		o.ObserveInt64(failures, int64(st.CredentialUnknown), unknown)
		o.ObserveInt64(failures, int64(st.CredentialExpired), expired)
		o.ObserveInt64(failures, int64(st.ScopeMissing), scope)
		o.ObserveInt64(limited, int64(st.RateLimited), publish)
		o.ObserveInt64(limited, int64(st.ConnectionsRefused), connections)
		return nil
	}, failures, limited)
	return err
}

// instrumentKeys registers how the key sets are that judge tokens.
func (s *Server) instrumentKeys(m metric.Meter) error {
	age, err := m.Float64ObservableGauge("realtime_jwks_age", metric.WithUnit("s"), metric.WithDescription("Since the key set that was fetched longest ago was; 0: none is fetched."))
	if err != nil {
		return err
	}
	fetches, err := m.Int64ObservableCounter("realtime_jwks_fetches", metric.WithUnit("{fetch}"), metric.WithDescription("Fetches of key sets, by result: ok, failed."))
	if err != nil {
		return err
	}
	result := func(r string) metric.ObserveOption { return metric.WithAttributes(attribute.String("result", r)) }
	ok, failed := result("ok"), result("failed")
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		var st auth.Stats
		for _, v := range []*auth.Verifier{s.verifier, s.services} {
			if v != nil {
				one := v.Stats()
				st.Age, st.Fetched, st.NotFetched = max(st.Age, one.Age), st.Fetched+one.Fetched, st.NotFetched+one.NotFetched
			}
		}
		o.ObserveFloat64(age, st.Age.Seconds())
		o.ObserveInt64(fetches, int64(st.Fetched), ok)
		o.ObserveInt64(fetches, int64(st.NotFetched), failed)
		return nil
	}, age, fetches)
	return err
}
