// Package telemetry makes the providers that the rest of the program is handed: metrics that a scrape reads, and the logger.
// Nothing else knows which exporter or handler is behind them, and nothing global is set.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
)

// Metrics is a meter provider with its scrape endpoint.
type Metrics struct {
	provider *sdkmetric.MeterProvider
	registry *prometheus.Registry
}

// NewMetrics makes the provider. Process and Go runtime figures come with it.
func NewMetrics() (*Metrics, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	// Without scope info: every line would carry three labels more, and two scopes with one instrument blank the scrape.
	exp, err := otelprom.New(otelprom.WithRegisterer(reg), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics exporter: %w", err)
	}
	return &Metrics{provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exp)), registry: reg}, nil
}

// Meter is what parts make their instruments with.
func (m *Metrics) Meter() metric.Meter { return m.provider.Meter("github.com/slack5/realtime") }

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Shutdown flushes and ends the provider.
func (m *Metrics) Shutdown(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// seconds are the buckets of every duration: from what a publish costs to what a saturated room owes.
var seconds = metric.WithExplicitBucketBoundaries(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

// Durations makes a histogram of seconds by one label, whose values are given: their attribute sets are made once.
func Durations(m metric.Meter, name, help, label string, values ...string) ([]func(time.Duration), error) {
	h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help), seconds)
	if err != nil {
		return nil, err
	}
	var record []func(time.Duration)
	for _, v := range values {
		var opts []metric.RecordOption
		if label != "" {
			opts = append(opts, metric.WithAttributeSet(attribute.NewSet(attribute.String(label, v))))
		}
		record = append(record, func(d time.Duration) {
			h.Record(context.Background(), d.Seconds(), opts...) //nolint:forbidigo // it carries no deadline: nothing waits, and no span
		})
	}
	return record, nil
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
