package publish

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// traced publishes in a span: the child of its caller's, or a root that the sampler decides on. One that is not sampled
// leaves no trace in the message, so that nothing behind it has to ask again. A span tells of the room, never of the data.
func (p *Publisher) traced(ctx context.Context, r Request) (broker.Receipt, error) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() && !sc.IsSampled() {
		return p.do(ctx, r)
	}
	ctx, span := p.cfg.Tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	sc := span.SpanContext()
	if !sc.IsSampled() {
		return p.do(ctx, r)
	}
	m := r.Message
	m.Trace = &message.Trace{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Flags: byte(sc.TraceFlags())}
	span.SetAttributes(attribute.String("messaging.destination.name", string(m.Room)))
	receipt, err := p.do(ctx, r)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		return receipt, err
	}
	// Only what was accepted has a type that is a short name.
	span.SetAttributes(attribute.String("messaging.message.id", receipt.ID.String()), attribute.String("realtime.type", string(m.Type)),
		attribute.String("realtime.origin", r.Origin.String()), attribute.Bool("realtime.duplicate", receipt.Duplicate))
	return receipt, nil
}
