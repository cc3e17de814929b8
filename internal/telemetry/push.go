package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/stats"
)

// describe tells whose telemetry it is. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what we say.
func describe(ctx context.Context, cfg Config) (*resource.Resource, error) {
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "realtime"), attribute.String("service.version", cfg.Version), attribute.String("service.instance.id", cfg.Node)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// wanted tells whether the environment has a signal, TRACES or METRICS, pushed somewhere. Without such a word nothing is: the
// library would push to localhost.
func wanted(signal string) bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") { // the library does not look at it
		return false
	}
	if e := os.Getenv("OTEL_" + signal + "_EXPORTER"); e != "" {
		return e != "none"
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// exporters makes what the environment asks for; nil is what it does not.
func exporters(ctx context.Context) (spans sdktrace.SpanExporter, reader sdkmetric.Reader, err error) {
	if wanted("METRICS") && os.Getenv("OTEL_METRICS_EXPORTER") == "prometheus" {
		return nil, nil, errors.New("OTEL_METRICS_EXPORTER: prometheus would open a listener of its own, and /metrics of --ops-addr is one: leave it out, or say otlp")
	}
	if wanted("TRACES") {
		if spans, err = autoexport.NewSpanExporter(ctx); err != nil {
			return nil, nil, fmt.Errorf("traces exporter of the OTEL_ variables: %w", err)
		}
	}
	if wanted("METRICS") {
		if reader, err = autoexport.NewMetricReader(ctx); err != nil {
			err = fmt.Errorf("metrics exporter of the OTEL_ variables: %w", err)
			if spans != nil {
				err = errors.Join(err, spans.Shutdown(ctx))
			}
			return nil, nil, err
		}
	}
	return spans, reader, nil
}

// Calls makes a span of each gRPC call, health checks left out, the child of the caller's if it sends one (W3C trace context).
// nil if traces are not pushed: watching calls for nobody would cost a fifth of what a publish costs. Metrics of calls would
// cost as much again and tell little that ours do not.
func (p *Providers) Calls() stats.Handler {
	if p.traces == nil {
		return nil
	}
	return otelgrpc.NewServerHandler(otelgrpc.WithTracerProvider(p.traces), otelgrpc.WithMeterProvider(noopmetric.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.TraceContext{}), otelgrpc.WithFilter(filters.Not(filters.HealthCheck())))
}

// LogErrors has the exporters' errors logged: they know no logger but a global one, so it is for main to call.
func LogErrors(logger *slog.Logger) {
	log := logger.With("component", "telemetry")
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry not exported", "err", err) }))
}
