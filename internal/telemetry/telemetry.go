// Package telemetry makes the providers that the rest of the program is handed: metrics that a scrape reads, metrics and
// traces that are pushed where the standard OTEL_ variables say so, and the logger. Nothing else knows which exporter or
// handler is behind them, and nothing global is set but by LogErrors.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// scope names who measures and traces.
const scope = "github.com/slack5/realtime"

// Config says whose telemetry it is.
type Config struct {
	Version string // of the program
	Node    string // the node's name
}

// Providers are a meter provider with its scrape endpoint, and a tracer provider if traces are to be pushed.
type Providers struct {
	metrics  *sdkmetric.MeterProvider
	traces   *sdktrace.TracerProvider // nil: nobody wants them
	pushing  bool
	registry *prometheus.Registry
}

// New makes the providers. Process and Go runtime figures are part of a scrape. If it fails, nothing is left running.
func New(ctx context.Context, cfg Config) (*Providers, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	// Without scope info: every line would carry three labels more, and two scopes with one instrument blank the scrape.
	exp, err := otelprom.New(otelprom.WithRegisterer(reg), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics exporter: %w", err)
	}
	res, err := describe(ctx, cfg)
	if err != nil {
		return nil, err
	}
	spans, reader, err := exporters(ctx)
	if err != nil {
		return nil, err
	}
	p := &Providers{registry: reg, pushing: spans != nil || reader != nil}
	opts := []sdkmetric.Option{sdkmetric.WithReader(exp), sdkmetric.WithResource(res)}
	if reader != nil {
		opts = append(opts, sdkmetric.WithReader(reader))
	}
	p.metrics = sdkmetric.NewMeterProvider(opts...)
	if spans != nil {
		p.traces = sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans), sdktrace.WithResource(res))
	}
	return p, nil
}

// Meter is what parts make their instruments with.
func (p *Providers) Meter() metric.Meter { return p.metrics.Meter(scope) }

// Tracer is what parts make their spans with; nil if traces are not pushed, so that they cost nothing.
func (p *Providers) Tracer() trace.Tracer {
	if p.traces == nil {
		return nil
	}
	return p.traces.Tracer(scope)
}

// Handler answers a scrape.
func (p *Providers) Handler() http.Handler {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Pushing tells whether Shutdown has something to flush.
func (p *Providers) Pushing() bool { return p.pushing }

// Shutdown flushes and ends the providers, at the latest when ctx ends. Traces and metrics do not wait for each other: what
// takes one's data may be away.
func (p *Providers) Shutdown(ctx context.Context) error {
	var traces error
	var wg sync.WaitGroup
	if p.traces != nil {
		wg.Go(func() { traces = p.traces.Shutdown(ctx) })
	}
	metrics := p.metrics.Shutdown(ctx)
	wg.Wait()
	return errors.Join(traces, metrics)
}

// seconds are the buckets of every duration: from what a publish costs to what a saturated room owes.
var seconds = metric.WithExplicitBucketBoundaries(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

// Durations makes a histogram of seconds by one label, whose values are given: their attribute sets are made once. A recorder
// keeps the sampled span of its context as an exemplar.
func Durations(m metric.Meter, name, help, label string, values ...string) ([]func(context.Context, time.Duration), error) {
	h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help), seconds)
	if err != nil {
		return nil, err
	}
	var record []func(context.Context, time.Duration)
	for _, v := range values {
		var opts []metric.RecordOption
		if label != "" {
			opts = append(opts, metric.WithAttributeSet(attribute.NewSet(attribute.String(label, v))))
		}
		record = append(record, func(ctx context.Context, d time.Duration) { h.Record(ctx, d.Seconds(), opts...) })
	}
	return record, nil
}

// DurationsBy makes a histogram of seconds by several labels. Their values come with each duration, in order; they must be few.
func DurationsBy(m metric.Meter, name, help string, labels ...string) (func(ctx context.Context, d time.Duration, values ...string), error) {
	h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help), seconds)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, d time.Duration, values ...string) {
		attrs := make([]attribute.KeyValue, len(labels))
		for i, label := range labels {
			attrs[i] = attribute.String(label, values[i])
		}
		h.Record(ctx, d.Seconds(), metric.WithAttributes(attrs...))
	}, nil
}

// NewLogger writes one JSON object a line, with the trace id of its context if there is one.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(traced{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})})
}

type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(as []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(as)} }
func (h traced) WithGroup(name string) slog.Handler    { return traced{h.Handler.WithGroup(name)} }
