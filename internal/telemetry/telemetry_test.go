package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// scrape is what a scrape gets.
func scrape(t *testing.T, m *Providers) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(rec.Body)
	if err != nil || rec.Code != 200 {
		t.Fatalf("scrape: %d, %v", rec.Code, err)
	}
	return string(b)
}

func metrics(t *testing.T) *Providers {
	t.Helper()
	m, err := New(t.Context(), Config{Version: "v1", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestAScrapeHasTheInstrumentsByTheirOwnNames(t *testing.T) {
	m := metrics(t)
	g, err := m.Meter().Int64ObservableGauge("realtime_connections_total", metric.WithUnit("{session}"),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(3); return nil }))
	if err != nil || g == nil {
		t.Fatal(err)
	}
	c, err := m.Meter().Int64Counter("realtime_written", metric.WithUnit("By"))
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 5, metric.WithAttributes(attribute.String("kind", "x")))
	got := scrape(t, m)
	for _, line := range []string{
		"# TYPE realtime_connections_total gauge\nrealtime_connections_total 3\n",
		"# TYPE realtime_written_bytes_total counter\nrealtime_written_bytes_total{kind=\"x\"} 5\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("not in the scrape: %s", line)
		}
	}
	for _, part := range []string{"process_resident_memory_bytes ", "process_open_fds ", "go_goroutines ", "go_memstats_heap_inuse_bytes "} {
		if !strings.Contains(got, "\n"+part) {
			t.Errorf("not in the scrape: %s", part)
		}
	}
	for _, noise := range []string{"otel_scope", "target_info"} {
		if strings.Contains(got, noise) {
			t.Errorf("in the scrape: %s", noise)
		}
	}
}

func TestDurationsFallIntoSecondsByLabel(t *testing.T) {
	m := metrics(t)
	record, err := Durations(m.Meter(), "realtime_publish_duration_seconds", "help", "kind", "session", "backend")
	if err != nil || len(record) != 2 {
		t.Fatalf("Durations() = %d recorders, %v", len(record), err)
	}
	record[0](t.Context(), 300*time.Microsecond)
	record[1](t.Context(), 2*time.Second)
	got := scrape(t, m)
	for _, line := range []string{
		`realtime_publish_duration_seconds_bucket{kind="session",le="0.00025"} 0`,
		`realtime_publish_duration_seconds_bucket{kind="session",le="0.0005"} 1`,
		`realtime_publish_duration_seconds_bucket{kind="backend",le="1"} 0`,
		`realtime_publish_duration_seconds_bucket{kind="backend",le="2.5"} 1`,
		`realtime_publish_duration_seconds_sum{kind="backend"} 2`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("not in the scrape: %s", line)
		}
	}
}

func TestWithoutALabelThereIsOneRecorder(t *testing.T) {
	m := metrics(t)
	record, err := Durations(m.Meter(), "realtime_delivery_latency_seconds", "help", "", "")
	if err != nil || len(record) != 1 {
		t.Fatalf("Durations() = %d recorders, %v", len(record), err)
	}
	record[0](t.Context(), time.Second)
	if got := scrape(t, m); !strings.Contains(got, "\nrealtime_delivery_latency_seconds_count 1\n") {
		t.Error("not counted, or with a label")
	}
}

func TestRecordingADurationAllocatesNothing(t *testing.T) {
	ctx := t.Context()
	record, err := Durations(metrics(t).Meter(), "realtime_x_seconds", "help", "kind", "a")
	if err != nil {
		t.Fatal(err)
	}
	record[0](t.Context(), time.Second) // the series is made
	if n := testing.AllocsPerRun(100, func() { record[0](ctx, time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestALogLineIsOneJSONObjectWithItsTraceID(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(&out, slog.LevelInfo).With("component", "x")
	id := trace.TraceID{0x4b, 0xf9, 15: 0x36}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{1}}))
	log.InfoContext(ctx, "with\nnewline", "k", "v")
	log.InfoContext(t.Context(), "without")
	log.DebugContext(ctx, "below the level")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	var first, second map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil {
		t.Fatal(err)
	}
	if first["trace_id"] != id.String() || first["component"] != "x" || first["k"] != "v" {
		t.Errorf("first line: %s", lines[0])
	}
	if _, ok := second["trace_id"]; ok {
		t.Errorf("a trace id out of nothing: %s", lines[1])
	}
}
