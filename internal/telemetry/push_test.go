package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNothingIsPushedUnlessTheEnvironmentSaysWhere(t *testing.T) {
	const endpoint, traces, metricsOnly = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "traces", "metrics"
	for name, c := range map[string]struct {
		env  string // blanks between
		want string
	}{
		"no word":                    {"", ""},
		"headers alone":              {"OTEL_EXPORTER_OTLP_HEADERS=a=b", ""},
		"an endpoint":                {endpoint, "traces metrics"},
		"one for traces":             {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1", traces},
		"one for metrics":            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:1", metricsOnly},
		"an exporter":                {"OTEL_TRACES_EXPORTER=otlp", traces},
		"no traces":                  {endpoint + " OTEL_TRACES_EXPORTER=none", metricsOnly},
		"no metrics":                 {endpoint + " OTEL_METRICS_EXPORTER=none", traces},
		"disabled":                   {endpoint + " OTEL_TRACES_EXPORTER=otlp OTEL_SDK_DISABLED=true", ""},
		"disabled in capitals":       {endpoint + " OTEL_SDK_DISABLED=TRUE", ""},
		"not disabled":               {endpoint + " OTEL_SDK_DISABLED=false", "traces metrics"},
		"prometheus, but disabled":   {"OTEL_METRICS_EXPORTER=prometheus OTEL_SDK_DISABLED=true", ""},
		"gRPC":                       {endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "traces metrics"},
		"an empty word is no word":   {"OTEL_TRACES_EXPORTER= OTEL_EXPORTER_OTLP_ENDPOINT=", ""},
		"metrics to another program": {endpoint + " OTEL_METRICS_EXPORTER=otlp OTEL_TRACES_EXPORTER=none", metricsOnly},
	} {
		t.Run(name, func(t *testing.T) {
			for kv := range strings.FieldsSeq(c.env) {
				k, v, _ := strings.Cut(kv, "=")
				t.Setenv(k, v)
			}
			spans, reader, err := exporters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			if spans != nil {
				got = append(got, traces)
				if err := spans.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if reader != nil {
				got = append(got, metricsOnly)
				_ = reader.Shutdown(t.Context()) // nothing is measured with it yet, which it says
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("pushed: %q, want %q", s, c.want)
			}
		})
	}
}

func TestWithoutAWordTracesAreNotEvenMade(t *testing.T) {
	p := metrics(t)
	if p.Tracer() != nil || p.Calls() != nil || p.Pushing() {
		t.Errorf("Tracer() = %v, Calls() = %v, Pushing() = %v, want nothing", p.Tracer(), p.Calls(), p.Pushing())
	}
}

func TestWhatCannotBeIsRefusedAndLeavesNothingRunning(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for env, want := range map[string]string{
		"OTEL_METRICS_EXPORTER=prometheus":                  "/metrics of --ops-addr",
		"OTEL_METRICS_EXPORTER=carrier-pigeon":              "metrics exporter",
		"OTEL_TRACES_EXPORTER=carrier-pigeon":               "traces exporter",
		"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=fax":           "metrics exporter",
		"OTEL_RESOURCE_ATTRIBUTES=no value and no equality": "OTEL_RESOURCE_ATTRIBUTES",
	} {
		t.Run(env, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			k, v, _ := strings.Cut(env, "=")
			t.Setenv(k, v)
			if p, err := New(t.Context(), Config{}); p != nil || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("New = %v, want one line about %s", err, want)
			}
		})
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestShutdownPushesWhatIsThereWithItsOrigin(t *testing.T) {
	c := telemetrytest.Start(t)
	for name, service := range map[string]string{"ours": "realtime", "the operator's": "chat-eu"} {
		t.Run(name, func(t *testing.T) {
			if service != "realtime" {
				t.Setenv("OTEL_SERVICE_NAME", service)
			}
			p, err := New(t.Context(), Config{Version: "v1.2.3", Node: "2k"})
			if err != nil {
				t.Fatal(err)
			}
			counter, err := p.Meter().Int64Counter("realtime_messages_sent")
			if err != nil {
				t.Fatal(err)
			}
			counter.Add(t.Context(), 1)
			_, span := p.Tracer().Start(t.Context(), service)
			span.End()
			if err := p.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			spans := c.Spans(service)
			if len(spans) != 1 {
				t.Fatalf("%d spans, want 1", len(spans))
			}
			for what, got := range map[string]map[string]string{"span": spans[0].Resource, "metric": c.Metric("realtime_messages_sent")} {
				for k := range got {
					if strings.HasPrefix(k, "telemetry.") {
						delete(got, k)
					}
				}
				if d := cmp.Diff(map[string]string{"service.name": service, "service.version": "v1.2.3", "service.instance.id": "2k"}, got); d != "" {
					t.Errorf("the %s's resource (-want +got):\n%s", what, d)
				}
			}
		})
	}
}

func TestShutdownDoesNotWaitForACollectorThatIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	p, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, span := p.Tracer().Start(t.Context(), "lost")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v, want the context's end", err)
	}
}

func TestExportersErrorsAreLogLines(t *testing.T) {
	var out bytes.Buffer
	LogErrors(NewLogger(&out, slog.LevelInfo))
	defer LogErrors(slog.New(slog.DiscardHandler))
	otel.Handle(errors.New("collector away"))
	if got := out.String(); !strings.Contains(got, `"level":"WARN"`) || !strings.Contains(got, `"component":"telemetry"`) || !strings.Contains(got, `"err":"collector away"`) {
		t.Errorf("logged %q", got)
	}
}

func TestADurationUnderASampledSpanIsAnExemplar(t *testing.T) {
	p := metrics(t)
	record, err := Durations(p.Meter(), "realtime_publish_duration_seconds", "help", "", "")
	if err != nil {
		t.Fatal(err)
	}
	within := func(id byte, flags trace.TraceFlags) context.Context {
		return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{id}, SpanID: trace.SpanID{1}, TraceFlags: flags}))
	}
	record[0](within(0xaa, trace.FlagsSampled), time.Millisecond)
	record[0](within(0xbb, 0), time.Second)
	req := httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	rec := httptest.NewRecorder()
	p.Handler().ServeHTTP(rec, req)
	body := rec.Body.String()
	if !strings.Contains(body, `le="0.001"} 1 # {`) || !strings.Contains(body, `trace_id="aa000000000000000000000000000000"`) {
		t.Errorf("no exemplar in\n%s", body)
	}
	if strings.Contains(body, `trace_id="bb`) {
		t.Error("an exemplar of a span that is not sampled: nobody can look it up")
	}
}
