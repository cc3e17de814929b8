package publish

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

func recorder(s sdktrace.Sampler) (*tracetest.SpanRecorder, trace.Tracer) {
	rec := tracetest.NewSpanRecorder()
	return rec, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec), sdktrace.WithSampler(s)).Tracer("test")
}

func calledBy(ctx context.Context, flags trace.TraceFlags) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags}))
}

func TestASampledPublishIsASpanThatTheMessageNames(t *testing.T) {
	rec, tracer := recorder(sdktrace.AlwaysSample())
	b := &bus{answer: broker.Receipt{ID: message.ID{Position: 5, Low: 7}}}
	var observed trace.SpanContext
	p := publisher(t, Config{Tracer: tracer, Observe: func(ctx context.Context, _ Origin, _ time.Duration) { observed = trace.SpanContextFromContext(ctx) }}, open, b)
	if _, err := p.Do(calledBy(t.Context(), trace.FlagsSampled), Request{Message: chat(), Origin: Backend}); err != nil {
		t.Fatal(err)
	}
	if len(rec.Ended()) != 1 {
		t.Fatalf("%d spans, want 1", len(rec.Ended()))
	}
	s := rec.Ended()[0]
	sc := s.SpanContext()
	if s.Name() != "publish" || s.Parent().SpanID() != (trace.SpanID{2}) || sc.TraceID() != (trace.TraceID{1}) {
		t.Errorf("span %s of %s under %s, want publish under its caller's", s.Name(), sc.TraceID(), s.Parent().SpanID())
	}
	if d := cmp.Diff(&message.Trace{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Flags: 1}, b.got[0].Message.Trace); d != "" {
		t.Errorf("the message's trace (-want +got):\n%s", d)
	}
	if !observed.Equal(sc) {
		t.Errorf("observed under %v, want the publish's span", observed)
	}
	got := make(map[string]string)
	for _, kv := range s.Attributes() {
		got[string(kv.Key)] = kv.Value.String()
	}
	want := map[string]string{
		"messaging.destination.name": "general", "messaging.message.id": b.answer.ID.String(),
		"realtime.type": "chat", "realtime.origin": "backend", "realtime.duplicate": "false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
}

func TestWhatASessionSendsIsARootThatTheSamplerDecidesOn(t *testing.T) {
	for name, c := range map[string]struct {
		sampler sdktrace.Sampler
		spans   int
	}{
		"sampled": {sdktrace.ParentBased(sdktrace.AlwaysSample()), 1}, "not sampled": {sdktrace.ParentBased(sdktrace.NeverSample()), 0},
	} {
		t.Run(name, func(t *testing.T) {
			rec, tracer := recorder(c.sampler)
			b := &bus{}
			if _, err := publisher(t, Config{Tracer: tracer}, open, b).Do(t.Context(), Request{Message: chat(), Origin: Session}); err != nil {
				t.Fatal(err)
			}
			if len(rec.Ended()) != c.spans || (b.got[0].Message.Trace != nil) != (c.spans > 0) {
				t.Errorf("%d spans, the message's trace is %v", len(rec.Ended()), b.got[0].Message.Trace)
			}
			if c.spans > 0 && rec.Ended()[0].Parent().IsValid() {
				t.Errorf("its parent is %v, want none", rec.Ended()[0].Parent())
			}
		})
	}
}

func TestAPublishOfACallThatIsNotSampledIsNotEither(t *testing.T) {
	rec, tracer := recorder(sdktrace.AlwaysSample()) // it is not asked again
	b := &bus{}
	if _, err := publisher(t, Config{Tracer: tracer}, open, b).Do(calledBy(t.Context(), 0), Request{Message: chat(), Origin: Backend}); err != nil {
		t.Fatal(err)
	}
	if len(rec.Started()) != 0 || b.got[0].Message.Trace != nil {
		t.Errorf("%d spans, the message's trace is %v, want none", len(rec.Started()), b.got[0].Message.Trace)
	}
}

func TestARefusedPublishIsAFailedSpanWithoutWhatWasSent(t *testing.T) {
	rec, tracer := recorder(sdktrace.AlwaysSample())
	long := chat()
	long.Type = message.Type(strings.Repeat("secret", 1000))
	bad := chat()
	bad.Data = []byte(`{"secret":`)
	for _, r := range []Request{{Message: long, Origin: Session}, {Message: bad, Origin: Session}, {Message: chat(), Origin: origins}} {
		if _, err := publisher(t, Config{Tracer: tracer}, open, &bus{}).Do(t.Context(), r); err == nil {
			t.Fatal("accepted")
		}
	}
	if _, err := publisher(t, Config{Tracer: tracer}, gate(func(message.Room) error { return hub.ErrOverloaded }), &bus{}).Do(t.Context(), Request{Message: chat(), Origin: Session}); err == nil {
		t.Fatal("accepted")
	}
	if len(rec.Ended()) != 4 {
		t.Fatalf("%d spans, want 4", len(rec.Ended()))
	}
	for _, s := range rec.Ended() {
		if s.Status().Code != codes.Error || s.Status().Description == "" {
			t.Errorf("status %+v, want the error", s.Status())
		}
		for _, kv := range s.Attributes() {
			if strings.Contains(kv.Value.String(), "secret") {
				t.Errorf("attribute %s tells what was sent", kv.Key)
			}
		}
		if strings.Contains(s.Status().Description, "secret") {
			t.Errorf("status tells what was sent: %.100s", s.Status().Description)
		}
	}
}
