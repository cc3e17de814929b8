package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// chain is what every call passes, unary or stream: an end, recovery, and the error table.
type chain struct {
	log     *slog.Logger
	timeout time.Duration
	ending  context.Context // ends when streams must
}

// errDraining ends a stream that would go on.
var errDraining = errors.New("draining")

func (c *chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if _, ok := ctx.Deadline(); !ok {
		b := bound(ctx, c.timeout)
		defer b.release()
		ctx = b
	}
	defer func() { err = c.end(ctx, info.FullMethod, recover(), err) }()
	return next(ctx, req)
}

func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	// Otherwise a caller that watches would hold up the end: nothing else tells its handler of it.
	release := context.AfterFunc(c.ending, func() { cancel(errDraining) })
	defer release()
	defer func() {
		panicked := recover()
		if err != nil && errors.Is(context.Cause(ctx), errDraining) {
			err = errDraining
		}
		err = c.end(ctx, info.FullMethod, panicked, err)
	}()
	return next(srv, &stream{ServerStream: ss, ctx: ctx})
}

// stream is a ServerStream that ends with the server.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

// contract begins the methods whose errors are ours to map. Health and reflection speak for themselves.
const contract = "/realtime."

// end maps the outcome of a call. What nobody expected is logged here, once, with the id that the caller is given.
func (c *chain) end(ctx context.Context, method string, panicked any, err error) error {
	if panicked != nil {
		err = fmt.Errorf("panic: %v", panicked)
	}
	if err == nil {
		return nil
	}
	if _, theirs := status.FromError(err); theirs && !strings.HasPrefix(method, contract) {
		return err
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
