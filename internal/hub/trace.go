package hub

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/message"
)

// maxTraced bounds the spans that one room keeps open; what comes beyond it while a shard lags has none here.
const maxTraced = 256

// traced is a message on its way whose publish is traced.
type traced struct {
	entry int64
	span  trace.Span
}

// fanOut begins the node's span of a message, which continues its publish's, on whatever node that was. nil: nobody is to know,
// or nobody is there.
func (h *Hub) fanOut(r *room, m *message.Message) trace.Span {
	if h.cfg.Tracer == nil {
		return nil
	}
	members := r.present()
	if members == 0 {
		return nil
	}
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: m.Trace.TraceID, SpanID: m.Trace.SpanID, TraceFlags: trace.TraceFlags(m.Trace.Flags), Remote: true})
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent) //nolint:forbidigo // it carries the parent, nothing waits for it
	_, span := h.cfg.Tracer.Start(ctx, "fan-out", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.destination.name", string(m.Room)), attribute.String("messaging.message.id", m.ID.String()),
		attribute.Int64("realtime.members", int64(members))))
	if !span.IsRecording() {
		return nil
	}
	return span
}

// follow keeps a span until its entry has passed; the lock is held.
func (r *room) follow(entry int64, span trace.Span) {
	if len(r.traced) < maxTraced {
		r.traced = append(r.traced, traced{entry, span})
	}
}

// carried returns the span of the oldest traced message among the entries [from, to); the lock is held.
func (r *room) carried(from, to int64) (sc trace.SpanContext) {
	for _, t := range r.traced {
		if t.entry >= from {
			if t.entry < to {
				sc = t.span.SpanContext()
			}
			break
		}
	}
	return sc
}

// arrived takes out the messages that the traversals of all shards with members have carried; the lock is held. The caller
// ends their spans without it.
func (r *room) arrived() []traced {
	n := 0
	for n < len(r.traced) && r.passed(r.traced[n].entry+1) {
		n++
	}
	ts := r.traced[:n:n]
	if r.traced = r.traced[n:]; len(r.traced) == 0 {
		r.traced = nil
	}
	return ts
}

func endAll(ts []traced) {
	for _, t := range ts {
		t.span.End()
	}
}
