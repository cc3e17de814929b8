package redis

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

func untraced(error) {}

// span begins a span of what Redis is asked about a room: the child of who asks, or a root that the sampler decides on. end
// ends it. What is not sampled costs nothing.
func (b *Broker) span(ctx context.Context, name string, room message.Room) (_ context.Context, end func(error)) {
	if b.cfg.Tracer == nil {
		return ctx, untraced
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() && !sc.IsSampled() {
		return ctx, untraced
	}
	ctx, span := b.cfg.Tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient))
	if !span.IsRecording() {
		span.End()
		return ctx, untraced
	}
	span.SetAttributes(attribute.String("db.system.name", "redis"), attribute.String("messaging.destination.name", string(room)))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// Publish implements broker.Broker.
func (b *Broker) Publish(ctx context.Context, p broker.Publication) (broker.Receipt, error) {
	ctx, end := b.span(ctx, "redis publish", p.Message.Room)
	r, err := b.publish(ctx, p)
	end(err)
	return r, err
}

// History implements broker.Broker.
func (b *Broker) History(ctx context.Context, q message.Query) (message.Page, error) {
	ctx, end := b.span(ctx, "redis read", q.Room)
	page, err := b.history(ctx, q)
	end(err)
	return page, err
}
