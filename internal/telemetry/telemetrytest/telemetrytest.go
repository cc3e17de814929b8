// Package telemetrytest has a collector for tests: it takes what a node pushes over OTLP.
package telemetrytest

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
)

// Span is one that was pushed. Attributes that are no text are left out.
type Span struct {
	Name, TraceID, SpanID, Parent string
	Attributes, Resource          map[string]string
	Failed                        bool
}

// Collector keeps what is pushed to it. Its methods may be called concurrently.
type Collector struct {
	mu      sync.Mutex
	spans   []Span
	metrics map[string]map[string]string
	raw     []byte
}

// Start serves a collector until the test's end and has the environment name it.
func Start(t testing.TB) *Collector {
	c := &Collector{metrics: make(map[string]map[string]string)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", take(c, &tracepb.ExportTraceServiceRequest{}, c.addSpans))
	mux.HandleFunc("POST /v1/metrics", take(c, &metricspb.ExportMetricsServiceRequest{}, c.addMetrics))
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.SetKeepAlivesEnabled(false) // the exporters leave an idle connection behind when they are shut down
	srv.Start()
	t.Cleanup(srv.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	return c
}

// take decodes a request and hands it on; what cannot be decoded is refused. empty is copied.
func take[T proto.Message](c *Collector, empty T, add func(T)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		req, ok := proto.Clone(empty).(T)
		if err != nil || !ok || proto.Unmarshal(b, req) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, b...)
		add(req)
	}
}

func (c *Collector) addSpans(req *tracepb.ExportTraceServiceRequest) {
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, Span{
					Name: s.GetName(), TraceID: hex.EncodeToString(s.GetTraceId()), SpanID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Attributes: texts(s.GetAttributes()), Resource: texts(rs.GetResource().GetAttributes()), Failed: s.GetStatus().GetCode() == 2,
				})
			}
		}
	}
}

func (c *Collector) addMetrics(req *metricspb.ExportMetricsServiceRequest) {
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				c.metrics[m.GetName()] = texts(rm.GetResource().GetAttributes())
			}
		}
	}
}

func texts(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, kv := range kvs {
		if s, ok := kv.GetValue().GetValue().(*commonpb.AnyValue_StringValue); ok {
			m[kv.GetKey()] = s.StringValue
		}
	}
	return m
}

// Spans returns those with this name, in the order they came.
func (c *Collector) Spans(name string) (found []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// Metric returns the resource that pushed an instrument; nil: none has.
func (c *Collector) Metric(name string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metrics[name]
}

// Raw returns all bytes that were pushed.
func (c *Collector) Raw() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.raw)
}
