package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/redis"
)

const redisLostFor = 15 * time.Second // a message to itself is due after 5 s: it has been lost for 10 then

// redisBus is a node's end of Redis. Its methods may be called on nil: a node that is alone.
type redisBus struct {
	cfg      *config.Serve
	opts     redis.Options
	broker   *redis.Broker
	presence *redis.Presence
	lostFor  time.Duration // see redisLostFor
}

// useRedis puts the node on Redis, if the options name one. It dials nothing.
func (s *Server) useRedis(tracer trace.Tracer) (*redisBus, error) {
	c := s.cfg
	if c.RedisURL == "" {
		return nil, nil //nolint:nilnil // a node that is alone
	}
	opts, err := redisOptions(c, s.log)
	if err != nil {
		return nil, err
	}
	reject, err := rejects(c)
	if err != nil {
		return nil, err
	}
	r := &redisBus{cfg: c, opts: opts, lostFor: redisLostFor}
	r.broker = redis.New(redis.Config{
		Options: opts, NodeID: s.node.Name(), Minter: s.node.Minter(), Revoked: s.node.Revoked, Tracer: tracer, Reject: reject,
		Retention: broker.Retention{Messages: c.HistorySize, Age: c.HistoryTTL}, IdempotencyTTL: c.IdempotencyTTL,
	})
	if r.presence, err = redis.NewPresence(r.broker, redis.PresenceConfig{Grace: c.PresenceGrace}); err != nil {
		return nil, err
	}
	s.node.Use(r.broker, r.presence)
	return r, nil
}

// number is the node's: one that no node on the same Redis has, if that is there to be asked.
func (s *Server) number(ctx context.Context) uint16 {
	if s.cfg.RedisURL == "" {
		return node.NewNumber()
	}
	opts, err := redisOptions(s.cfg, s.log)
	if err != nil {
		return node.NewNumber() // compose says so
	}
	n, err := redis.Number(ctx, opts)
	if err != nil {
		s.log.Debug("redis could not be asked which numbers other nodes have: this one's is left to chance", "err", err)
	}
	return n
}

func redisOptions(c *config.Serve, log *slog.Logger) (redis.Options, error) {
	client, err := redis.ParseURL(string(c.RedisURL))
	if err != nil {
		return redis.Options{}, fmt.Errorf("--redis-url: %w", err)
	}
	if c.RedisTLSCA != "" {
		if client.TLSConfig == nil {
			return redis.Options{}, errors.New("--redis-tls-ca: --redis-url is not for TLS: it must begin with rediss://")
		}
		pem, err := os.ReadFile(c.RedisTLSCA)
		if err != nil {
			return redis.Options{}, fmt.Errorf("--redis-tls-ca: %w", err)
		}
		client.TLSConfig.RootCAs = x509.NewCertPool()
		if !client.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return redis.Options{}, fmt.Errorf("--redis-tls-ca: %s: no certificate, PEM, is in it", c.RedisTLSCA)
		}
	}
	return redis.Options{Client: client, Prefix: c.RedisPrefix, Logger: log}, nil
}

// rejects are the rooms in which nothing is taken while Redis is away.
func rejects(c *config.Serve) (message.Patterns[bool], error) {
	rooms := map[string]bool{"*": c.Degraded == "reject"}
	for room, mode := range c.DegradedRoom {
		rooms[room] = mode == "reject"
	}
	p, err := message.NewPatterns(rooms)
	if err != nil {
		return p, fmt.Errorf("--degraded-room: %w", err)
	}
	return p, nil
}

// find looks for Redis before the node begins: once, or until the wait is over or ctx ends. An error is one that no waiting
// cures.
func (r *redisBus) find(ctx context.Context, wait time.Duration) (found bool, err error) {
	if r == nil {
		return true, nil
	}
	return redis.Find(ctx, r.opts, wait)
}

// judge tells why sessions should not come to this node, or what they do not get here now.
func (r *redisBus) judge() (unready, degraded string) {
	if r == nil {
		return "", ""
	}
	const away = "redis is away"
	switch st := r.broker.Stats(); {
	case st.Partly: // as at the other nodes: only some rooms are touched, and nobody is helped by going elsewhere
		return "", "a part of redis is away"
	case !st.Up && (r.cfg.ReadyNeedsRedis || r.cfg.Degraded == "reject"):
		return away, ""
	case !st.Up:
		return "", away
	case st.Silent > r.lostFor:
		return "redis answers, but brings this node nothing", ""
	}
	return "", ""
}

// instrument registers what there is to tell of Redis.
func (r *redisBus) instrument(m metric.Meter) error {
	if r == nil {
		return nil
	}
	var errs []error
	var all []metric.Observable
	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs, all = append(errs, err), append(all, c)
		return c
	}
	up, err := m.Int64ObservableGauge("realtime_redis_up", metric.WithDescription("1 while all of Redis answers."))
	errs, all = append(errs, err), append(all, up)
	outbox, err := m.Int64ObservableGauge("realtime_redis_outbox", metric.WithUnit("By"), metric.WithDescription("Messages that wait for Redis to be back."))
	errs, all = append(errs, err), append(all, outbox)
	probe, err := m.Float64ObservableGauge("realtime_redis_probe_age", metric.WithUnit("s"), metric.WithDescription("For how long the most silent subscription connection has brought nothing."))
	errs, all = append(errs, err), append(all, probe)
	away, err := m.Float64ObservableCounter("realtime_redis_degraded", metric.WithUnit("s"), metric.WithDescription("For how long Redis, or a part of it, was away, in all."))
	errs, all = append(errs, err), append(all, away)
	heals := counter("realtime_redis_heals", "{heal}", "Rooms read from their streams, by cause.")
	failed := counter("realtime_redis_publish_errors", "{error}", "Publishes that Redis did not answer or refused, each try.")
	junk := counter("realtime_redis_junk", "{item}", "What is in Redis or came from it and was not understood, by part.")
	broken := counter("realtime_redis_broken", "{connection}", "Subscription connections that broke.")
	forks := counter("realtime_redis_forks", "{sign}", "Signs that Redis has lost something.")
	dropped := counter("realtime_presence_dropped", "{frame}", "Changes of presence that came faster than they were taken; their rooms were read anew.")
	cache := counter("realtime_presence_cache", "{read}", "Rooms whose presence was asked for, by where it came from.")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	label := func(k, v string) metric.MeasurementOption { return metric.WithAttributes(attribute.String(k, v)) }
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		b, p := r.broker.Stats(), r.presence.Stats()
		here := int64(0)
		if b.Up {
			here = 1
		}
		o.ObserveInt64(up, here)
		o.ObserveInt64(outbox, b.OutboxBytes)
		o.ObserveFloat64(probe, b.Silent.Seconds())
		o.ObserveFloat64(away, b.Away.Seconds())
		for _, cause := range redis.HealCauses() {
			o.ObserveInt64(heals, b.Heals[cause], label("cause", cause.String()))
		}
		o.ObserveInt64(failed, b.PublishErrors)
		o.ObserveInt64(junk, b.Junk, label("part", "bus"))
		o.ObserveInt64(junk, int64(p.Junk), label("part", "presence"))
		o.ObserveInt64(broken, b.Broken)
		o.ObserveInt64(forks, b.Forks)
		o.ObserveInt64(dropped, int64(p.Dropped))
		o.ObserveInt64(cache, int64(p.Hits), label("result", "hit"))
		o.ObserveInt64(cache, int64(p.Misses), label("result", "miss"))
		o.ObserveInt64(cache, int64(p.Stale), label("result", "stale"))
		return nil
	}, all...)
	return err
}
