package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// chain is what every call passes, unary or stream: a deadline, recovery, and the error table.
type chain struct {
	log     *slog.Logger
	timeout time.Duration
}

func (c *chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	defer func() { err = c.end(ctx, info.FullMethod, recover(), err) }()
	return next(ctx, req)
}

func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() { err = c.end(ss.Context(), info.FullMethod, recover(), err) }()
	return next(srv, ss)
}

// end maps the outcome of a call. What nobody expected is logged here, once, with the id that the caller is given.
func (c *chain) end(ctx context.Context, method string, panicked any, err error) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v", panicked)
	}
	if err == nil {
		return nil
	}
	traceID := ""
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		traceID = sc.TraceID().String()
	}
	st, known := statusFor(err, traceID)
	if !known {
		attrs := []any{"method", method, "err", err}
		if panicked != nil {
			attrs = append(attrs, "stack", string(debug.Stack()))
		}
		c.log.ErrorContext(ctx, "call failed", attrs...)
	}
	return st.Err()
}
