package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// domain is ErrorInfo's: whose reasons these are.
const domain = "realtime"

// Errors that only callers of this package's services meet.
var (
	errCredential = errors.New("no or unknown credential")
	errScope      = errors.New("scope missing")
	errRate       = errors.New("rate limited")
	errTooMany    = errors.New("too many items")
	errPosition   = errors.New("position unreadable")
	errOff        = errors.New("turned off")
)

// refusal is an error of the table with what its row cannot know.
type refusal struct {
	error
	text     string // empty: the row's
	retry    time.Duration
	metadata map[string]string
}

func (r *refusal) Unwrap() error { return r.error }

// outcome is a row of the one table of errors. Text is what the caller reads; empty: the row's error's own. The text of a
// *message.Error is written for him and goes before both.
type outcome struct {
	err    error
	code   codes.Code
	reason realtimev1.ErrorReason
	text   string
	retry  time.Duration // 0: no RetryInfo
}

// table maps every error that a service method may return. The first match decides.
var table = []outcome{
	{message.ErrInvalidRoom, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_ROOM_INVALID, "", 0},
	{message.ErrForbiddenType, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_TYPE_FORBIDDEN, "", 0},
	{message.ErrInvalidData, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_DATA_INVALID, "", 0},
	{message.ErrTooLarge, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_DATA_TOO_LARGE, "", 0},
	{message.ErrInvalidUser, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_USER_INVALID, "", 0},
	{message.ErrInvalid, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_ARGUMENT_INVALID, "", 0},
	{errTooMany, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_TOO_MANY_ITEMS, "", 0},
	{errPosition, codes.InvalidArgument, realtimev1.ErrorReason_ERROR_REASON_POSITION_INVALID, "", 0},
	{control.ErrNotFound, codes.NotFound, realtimev1.ErrorReason_ERROR_REASON_NOT_FOUND, "no such session or node: it has ended, or another service has it", 0},
	{errOff, codes.FailedPrecondition, realtimev1.ErrorReason_ERROR_REASON_FEATURE_OFF, "turned off by configuration", 0},
	{errCredential, codes.Unauthenticated, realtimev1.ErrorReason_ERROR_REASON_CREDENTIAL_INVALID, "no or unknown credential: send the metadata authorization: Bearer KEY, or a service's token", 0},
	{errExpired, codes.Unauthenticated, realtimev1.ErrorReason_ERROR_REASON_CREDENTIAL_INVALID, "the token has expired: call again with a new one", 0},
	{errScope, codes.PermissionDenied, realtimev1.ErrorReason_ERROR_REASON_SCOPE_MISSING, "the credential does not allow this", 0},
	{errRate, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_RATE_LIMITED, "more publishes than this caller may send: publish less, or again later", time.Second},
	{hub.ErrOverloaded, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "the room's members cannot keep up: publish less, or again later", time.Second},
	{broker.ErrOverloaded, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "a bound of the broker's is reached: try again later", time.Second},
	{broker.ErrUnavailable, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_BROKER_UNAVAILABLE, "the broker is away: nothing was done", time.Second},
	{broker.ErrClosed, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{presence.ErrClosed, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{hub.ErrClosed, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{errDraining, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{errSlow, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "the reader is too slow: call again with the last ids", time.Second},
	{errNotLive, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_BROKER_UNAVAILABLE, "a room was not to be had in time: call again with the last ids", time.Second},
	{context.DeadlineExceeded, codes.DeadlineExceeded, realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED, "not done in time; if it was a publish, whether it was published is unknown: repeat with the same idempotency key", 0},
	{context.Canceled, codes.Canceled, realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED, "cancelled by the caller; if it was a publish, whether it was published is unknown", 0},
}

// internal is the row of everything else.
var internal = outcome{nil, codes.Internal, realtimev1.ErrorReason_ERROR_REASON_INTERNAL, "internal error: its cause is in the log of the service", 0}

// cause is what the table says of an error.
type cause struct {
	outcome                // with the error's own retry, if it has one
	bad     *message.Error // nil: not about a field
	meta    map[string]string
	known   bool // false for an error that is not in the table: nothing of it but the row's text leaves
}

func explain(err error) cause {
	c := cause{outcome: internal}
	for _, o := range table {
		if errors.Is(err, o.err) {
			c.outcome, c.known = o, true
			break
		}
	}
	if !c.known {
		return c
	}
	if c.text == "" {
		c.text = c.err.Error()
	}
	if bad, ok := errors.AsType[*message.Error](err); ok {
		c.bad, c.text, c.meta = bad, bad.Text, figures(bad)
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		c.meta = r.metadata
		if r.text != "" {
			c.text = r.text
		}
		if r.retry > 0 {
			c.retry = r.retry
		}
	}
	return c
}

// statusFor maps an error. known is false for one that is not in the table.
func statusFor(err error, traceID string) (st *status.Status, known bool) {
	if s, ok := status.FromError(err); ok {
		switch s.Code() {
		case codes.Unimplemented:
			return s, true // the generated answer of a method that is not there yet
		case codes.Canceled: // so gRPC itself tells a stream's handler
			err = context.Canceled
		case codes.DeadlineExceeded:
			err = context.DeadlineExceeded
		}
	}
	c := explain(err)
	details := make([]protoadapt.MessageV1, 0, 4)
	if c.bad != nil {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: c.bad.Field, Description: c.bad.Text}}})
	}
	if c.reason != realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		details = append(details, &errdetails.ErrorInfo{Reason: strings.TrimPrefix(c.reason.String(), "ERROR_REASON_"), Domain: domain, Metadata: c.meta})
	}
	if c.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(c.retry)})
	}
	if traceID != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: traceID})
	}
	st = status.New(c.code, c.text)
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st, c.known
}

// itemError maps the error of one item, as statusFor that of a call.
func (c cause) itemError() *realtimev1.ItemError {
	e := &realtimev1.ItemError{Code: int32(c.code), Reason: c.reason, Message: c.text}
	if c.retry > 0 {
		e.RetryAfter = durationpb.New(c.retry)
	}
	return e
}

// figures tell a program the numbers that the text tells a person.
func figures(m *message.Error) map[string]string {
	if m.Limit == 0 {
		return nil
	}
	if errors.Is(m, message.ErrTooLarge) {
		return map[string]string{"limit_bytes": strconv.Itoa(m.Limit), "size_bytes": strconv.Itoa(m.Size)}
	}
	if errors.Is(m, errTooMany) {
		return map[string]string{"limit": strconv.Itoa(m.Limit), "count": strconv.Itoa(m.Size)}
	}
	return map[string]string{"limit": strconv.Itoa(m.Limit)}
}

// aboutMessage tells an error in what was sent from one of where it was to go.
func aboutMessage(err error) bool {
	_, ok := errors.AsType[*message.Error](err)
	return ok
}

// within names the fields of an error by their path in a request that holds the message in this field.
func within(field string, err error) error {
	bad, ok := errors.AsType[*message.Error](err)
	if !ok {
		return err
	}
	named := *bad
	named.Field = field + "." + named.Field
	return &named
}
