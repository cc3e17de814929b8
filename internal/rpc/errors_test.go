package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// told is all that a caller can read from an error.
type told struct {
	Code     codes.Code
	Reason   string // with the domain's prefix
	Metadata map[string]string
	Field    string
	Retry    time.Duration
	Request  string
}

func read(t *testing.T, err error) (got told, text string) {
	t.Helper()
	st := status.Convert(err)
	got.Code = st.Code()
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			got.Reason, got.Metadata = d.GetDomain()+"/"+d.GetReason(), d.GetMetadata()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				got.Field += v.GetField()
				if v.GetDescription() == "" {
					t.Error("a violation without a description")
				}
			}
		case *errdetails.RetryInfo:
			got.Retry = d.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			got.Request = d.GetRequestId()
		default:
			t.Errorf("a detail of type %T", d)
		}
	}
	return got, st.Message()
}

// sentinels are the exported errors of message, hub and broker, our own and those of context, with what a backend is told.
var sentinels = []struct {
	err  error
	want told
}{
	{message.ErrInvalidRoom, told{Code: codes.InvalidArgument, Reason: "realtime/ROOM_INVALID"}},
	{message.ErrForbiddenType, told{Code: codes.InvalidArgument, Reason: "realtime/TYPE_FORBIDDEN"}},
	{message.ErrInvalidData, told{Code: codes.InvalidArgument, Reason: "realtime/DATA_INVALID"}},
	{message.ErrTooLarge, told{Code: codes.InvalidArgument, Reason: "realtime/DATA_TOO_LARGE"}},
	{message.ErrInvalidUser, told{Code: codes.InvalidArgument, Reason: "realtime/USER_INVALID"}},
	{message.ErrInvalid, told{Code: codes.InvalidArgument, Reason: "realtime/ARGUMENT_INVALID"}},
	{control.ErrNotFound, told{Code: codes.NotFound, Reason: "realtime/NOT_FOUND"}},
	{errOff, told{Code: codes.FailedPrecondition, Reason: "realtime/FEATURE_OFF"}},
	{errTooMany, told{Code: codes.InvalidArgument, Reason: "realtime/TOO_MANY_ITEMS"}},
	{errPosition, told{Code: codes.InvalidArgument, Reason: "realtime/POSITION_INVALID"}},
	{hub.ErrOverloaded, told{Code: codes.ResourceExhausted, Reason: "realtime/OVERLOADED", Retry: time.Second}},
	{broker.ErrOverloaded, told{Code: codes.ResourceExhausted, Reason: "realtime/OVERLOADED", Retry: time.Second}},
	{broker.ErrUnavailable, told{Code: codes.Unavailable, Reason: "realtime/BROKER_UNAVAILABLE", Retry: time.Second}},
	{broker.ErrClosed, told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}},
	{presence.ErrClosed, told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}},
	{hub.ErrClosed, told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}},
	{errTooMany, told{Code: codes.InvalidArgument, Reason: "realtime/TOO_MANY_ITEMS"}},
	{errPosition, told{Code: codes.InvalidArgument, Reason: "realtime/POSITION_INVALID"}},
	{errCredential, told{Code: codes.Unauthenticated, Reason: "realtime/CREDENTIAL_INVALID"}},
	{errExpired, told{Code: codes.Unauthenticated, Reason: "realtime/CREDENTIAL_INVALID"}},
	{errScope, told{Code: codes.PermissionDenied, Reason: "realtime/SCOPE_MISSING"}},
	{errRate, told{Code: codes.ResourceExhausted, Reason: "realtime/RATE_LIMITED", Retry: time.Second}},
	{errDraining, told{Code: codes.Unavailable, Reason: "realtime/DRAINING", Retry: time.Second}},
	{errSlow, told{Code: codes.ResourceExhausted, Reason: "realtime/OVERLOADED", Retry: time.Second}},
	{errNotLive, told{Code: codes.Unavailable, Reason: "realtime/BROKER_UNAVAILABLE", Retry: time.Second}},
	{context.DeadlineExceeded, told{Code: codes.DeadlineExceeded}},
	{context.Canceled, told{Code: codes.Canceled}},
}

func TestEveryErrorHasItsRowAndEveryRowItsError(t *testing.T) {
	for _, row := range table {
		found := false
		for _, c := range sentinels {
			found = found || errors.Is(c.err, row.err)
		}
		if !found {
			t.Errorf("the row of %q is not tested", row.err)
		}
		if row.reason != realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED && realtimev1.ErrorReason_name[int32(row.reason)] == "" {
			t.Errorf("the reason of %q is not in the contract", row.err)
		}
	}
	for _, c := range sentinels {
		t.Run(c.err.Error(), func(t *testing.T) {
			for name, err := range map[string]error{"bare": c.err, "wrapped": fmt.Errorf("publish: %w", fmt.Errorf("%w: to hunter2", c.err))} {
				st, known := statusFor(err, "")
				got, text := read(t, st.Err())
				if d := cmp.Diff(c.want, got); d != "" || !known || text == "" || strings.Contains(text, "hunter2") {
					t.Errorf("%s: known %v, %q (-want +got):\n%s", name, known, text, d)
				}
			}
		})
	}
}

// The bus's and the hub's errors as a caller sees them, through the whole chain.
func TestAnErrorOfTheBusReachesTheCallerByTheTable(t *testing.T) {
	for _, c := range sentinels {
		t.Run(c.err.Error(), func(t *testing.T) {
			s := serve(t, Config{}, over(t, refusing(fmt.Errorf("bus: %w", c.err)), gate{}))
			_, err := s.pub.Publish(t.Context(), hello())
			if got, _ := read(t, err); !cmp.Equal(c.want, got) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(c.want, got))
			}
			if got := s.log.records(t); got != nil {
				t.Errorf("an expected error is logged: %v", got)
			}
		})
	}
}

func TestABadRequestNamesTheFieldAndTheNumbers(t *testing.T) {
	s := serve(t, Config{}, core(t).Publisher())
	long := func(n int) string { return strings.Repeat("a", n) }
	invalid := func(reason, field string, meta map[string]string) told {
		return told{Code: codes.InvalidArgument, Reason: "realtime/" + reason, Field: field, Metadata: meta}
	}
	for name, c := range map[string]struct {
		change func(*realtimev1.PublishRequest)
		want   told
	}{
		"no room":        {func(r *realtimev1.PublishRequest) { r.Room = "" }, invalid("ROOM_INVALID", "room", map[string]string{"limit": "128"})},
		"everyone":       {func(r *realtimev1.PublishRequest) { r.Room = "@global" }, invalid("ROOM_INVALID", "room", map[string]string{"limit": "128"})},
		"a user's room":  {func(r *realtimev1.PublishRequest) { r.Room = "@user/u1" }, invalid("ROOM_INVALID", "room", map[string]string{"limit": "128"})},
		"no message":     {func(r *realtimev1.PublishRequest) { r.Message = nil }, invalid("ARGUMENT_INVALID", "message", nil)},
		"a long key":     {func(r *realtimev1.PublishRequest) { r.IdempotencyKey = long(129) }, invalid("ARGUMENT_INVALID", "idempotency_key", map[string]string{"limit": "128"})},
		"a type of ours": {func(r *realtimev1.PublishRequest) { r.Message.Type = "presence" }, invalid("TYPE_FORBIDDEN", "message.type", nil)},
		"no type":        {func(r *realtimev1.PublishRequest) { r.Message.Type = "Chat" }, invalid("TYPE_FORBIDDEN", "message.type", map[string]string{"limit": "64"})},
		"no JSON":        {func(r *realtimev1.PublishRequest) { r.Message.Data = `{"hunter2"` }, invalid("DATA_INVALID", "message.data", nil)},
		"an event of the server's": {
			func(r *realtimev1.PublishRequest) { r.Message.Type, r.Message.Data = "system", `{"event":"welcome"}` },
			invalid("DATA_INVALID", "message.data", nil),
		},
		"too large": {
			func(r *realtimev1.PublishRequest) { r.Message.Data = `"` + long(64<<10) + `"` },
			invalid("DATA_TOO_LARGE", "message.data", map[string]string{"limit_bytes": "65536", "size_bytes": "65538"}),
		},
		"a long from": {func(r *realtimev1.PublishRequest) { r.Message.From = long(129) }, invalid("ARGUMENT_INVALID", "message.from", map[string]string{"limit": "128"})},
		"an excluded session": {
			func(r *realtimev1.PublishRequest) { r.Message.ExcludeSessionIds = []string{""} }, invalid("USER_INVALID", "message.exclude_session_ids", nil),
		},
		"an excluded user": {
			func(r *realtimev1.PublishRequest) { r.Message.ExcludeUserIds = []string{"hunter2\n"} }, invalid("USER_INVALID", "message.exclude_user_ids", nil),
		},
		"too many excluded": {
			func(r *realtimev1.PublishRequest) { r.Message.ExcludeUserIds = make([]string, 101) },
			invalid("ARGUMENT_INVALID", "message.exclude_session_ids", map[string]string{"limit": "100"}),
		},
		"a time before 1970": {
			func(r *realtimev1.PublishRequest) { r.Message.Timestamp = timestamppb.New(time.Unix(0, -1)) },
			invalid("ARGUMENT_INVALID", "message.timestamp", nil),
		},
		"no time at all": {
			func(r *realtimev1.PublishRequest) { r.Message.Timestamp = &timestamppb.Timestamp{Nanos: -1} },
			invalid("ARGUMENT_INVALID", "message.timestamp", nil),
		},
		"a time after 9999": {
			func(r *realtimev1.PublishRequest) {
				r.Message.Timestamp = &timestamppb.Timestamp{Seconds: 253402300800}
			},
			invalid("ARGUMENT_INVALID", "message.timestamp", nil),
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := hello()
			c.change(req)
			_, err := s.pub.Publish(t.Context(), req)
			got, text := read(t, err)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if text == "" || strings.Contains(text, "hunter2") {
				t.Errorf("text %q: it must say what is wrong and quote nothing", text)
			}
		})
	}
	if got := s.log.records(t); got != nil {
		t.Errorf("what callers do wrong is logged: %v", got)
	}
}

// tracing gives each call a trace, as a tracer would.
type tracing struct{ id trace.TraceID }

func (h tracing) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: h.id, SpanID: trace.SpanID{1}}))
}
func (tracing) HandleRPC(context.Context, stats.RPCStats)                         {}
func (tracing) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (tracing) HandleConn(context.Context, stats.ConnStats)                       {}

func TestWithATraceTheCallerGetsItsID(t *testing.T) {
	id := trace.TraceID{0xab, 0xcd, 15: 0xef}
	for name, err := range map[string]error{"an expected error": broker.ErrUnavailable, "an unexpected one": errSecret, "the time is up": context.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{Stats: tracing{id}}, over(t, refusing(err), gate{}))
			_, err := s.pub.Publish(t.Context(), hello())
			if got, _ := read(t, err); got.Request != "abcd00000000000000000000000000ef" {
				t.Errorf("request id %q, want the trace's", got.Request)
			}
		})
	}
}

func TestTheUnexpectedLeavesAsAFixedTextAndIsLoggedOnce(t *testing.T) {
	want := told{Code: codes.Internal, Reason: "realtime/INTERNAL"}
	for name, c := range map[string]struct {
		answer func() error
		log    string
		stack  bool
	}{
		"an error nobody knows": {func() error { return errSecret }, errSecret.Error(), false},
		"a status of another's": {func() error { return status.Error(codes.NotFound, "hunter2") }, "hunter2", false},
		"a message's, but of no kind we know": {
			func() error { return &message.Error{Err: errors.New("new"), Field: "hunter2", Text: "hunter2"} }, "hunter2", false,
		},
		"a panic":               {func() error { panic("hunter2") }, "hunter2", true},
		"a panic with an error": {func() error { panic(errSecret) }, errSecret.Error(), true},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bus{answer: func(context.Context, broker.Publication) (broker.Receipt, error) { return broker.Receipt{}, c.answer() }}
			s := serve(t, Config{}, over(t, b, gate{}))
			_, err := s.pub.Publish(t.Context(), hello())
			got, text := read(t, err)
			if d := cmp.Diff(want, got); d != "" || text != internal.text {
				t.Errorf("text %q (-want +got):\n%s", text, d)
			}
			records := s.log.records(t)
			if len(records) != 1 {
				t.Fatalf("%d lines logged, want one: %v", len(records), records)
			}
			r := records[0]
			if !strings.Contains(fmt.Sprint(r["err"]), c.log) || r["method"] != realtimev1.PublisherService_Publish_FullMethodName || r["level"] != "ERROR" || r["component"] != "rpc" {
				t.Errorf("logged %v", r)
			}
			if stack, _ := r["stack"].(string); strings.Contains(stack, "errors_test.go") != c.stack {
				t.Errorf("stack %q, want one that leads to the panic: %v", stack, c.stack)
			}
			if _, err := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the next call: %v, want the server to go on", err)
			}
		})
	}
}

// A stream's handler is told by gRPC in statuses when its caller leaves.
func TestACallersLeavingIsNotTheUnexpected(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		st, known := statusFor(fmt.Errorf("send: %w", status.Error(code, "transport")), "")
		if !known || st.Code() != code {
			t.Errorf("%v: %v, known %v", code, st, known)
		}
	}
}
