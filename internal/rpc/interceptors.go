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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// chain is what every call passes, unary or stream: its caller's scope, an end, recovery, and the error table.
type chain struct {
	log     *slog.Logger
	timeout time.Duration
	lasting time.Duration   // a stream ends once its connection is so old
	ending  context.Context // ends when streams must

	calls tally

	scopeMissing, rateLimited counter
}

// What ends a stream that would go on.
var (
	errDraining = errors.New("draining")
	errExpired  = errors.New("token expired")
)

func (c *chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	c.calls.begin()
	defer c.calls.end()
	if _, ok := ctx.Deadline(); !ok {
		b := bound(ctx, c.timeout)
		defer b.release()
		ctx = b
	}
	defer func() { err = c.end(ctx, info.FullMethod, caught(recover(), err)) }()
	if err := c.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	c.calls.begin()
	defer c.calls.end()
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	drain := func() { cancel(errDraining) }
	// Otherwise a caller that watches would hold up the end: nothing else tells its handler of it.
	release := context.AfterFunc(c.ending, drain)
	defer release()
	if since, ok := connected(ctx); ok {
		t := time.AfterFunc(time.Until(since.Add(c.lasting)), drain)
		defer t.Stop()
	}
	if end := callerOf(ctx).expires; !end.IsZero() {
		t := time.AfterFunc(time.Until(end), func() { cancel(errExpired) })
		defer t.Stop()
	}
	defer func() {
		err = caught(recover(), err)
		if why := context.Cause(ctx); err != nil && (errors.Is(why, errDraining) || errors.Is(why, errExpired)) {
			err = why
		}
		err = c.end(ctx, info.FullMethod, err)
	}()
	if err := c.admit(ctx, info.FullMethod); err != nil {
		return err
	}
	return next(srv, &stream{ServerStream: ss, ctx: ctx})
}

// stream is a ServerStream that ends with the server.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

// SendMsg fails with the caller's leaving, if that is why, whatever gRPC calls it.
func (s *stream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	switch status.Code(err) {
	case codes.Unavailable, codes.Unknown: // the connection is gone, or the stream is over
		return context.Canceled
	}
	return err
}

// admit refuses a caller without the method's scope.
func (c *chain) admit(ctx context.Context, method string) error {
	need, ok := scopeOf(method)
	who := callerOf(ctx)
	switch {
	case strings.HasPrefix(method, healthMethods):
		return nil
	case who == nobody:
		return errCredential
	case !ok:
		return &refusal{error: errScope}
	}
	return who.needs(need)
}

// unread is gRPC's own refusal of a message in a stream, an item above the limit, say: the caller has been told already.
type unread struct{ error }

// contract begins the methods whose errors are ours to map. Health and reflection speak for themselves.
const contract = "/realtime."

// end maps the outcome of a call.
func (c *chain) end(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if u, ok := errors.AsType[*unread](err); ok {
		return u.error
	}
	if _, theirs := status.FromError(err); theirs && !strings.HasPrefix(method, contract) {
		return err
	}
	traceID := ""
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		traceID = sc.TraceID().String()
	}
	st, known := statusFor(err, traceID)
	c.note(ctx, method, err, known)
	return st.Err()
}

// note counts a refusal. What nobody expected is logged, once, with the id that the caller is given.
func (c *chain) note(ctx context.Context, method string, err error, known bool) {
	switch {
	case errors.Is(err, errScope):
		c.scopeMissing.Add(1)
	case errors.Is(err, errRate):
		c.rateLimited.Add(1)
	case !known:
		attrs := []any{"method", method, "err", err}
		if p, ok := errors.AsType[*panicError](err); ok {
			attrs = append(attrs, "stack", string(p.stack))
		}
		c.log.ErrorContext(ctx, "call failed", attrs...)
	}
}

// panicError is a panic, with where it was.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// caught makes an error of what recover returned; without a panic it is err.
func caught(panicked any, err error) error {
	if panicked == nil {
		return err
	}
	return &panicError{panicked, debug.Stack()}
}
