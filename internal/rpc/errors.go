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
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// domain is ErrorInfo's: whose reasons these are.
const domain = "realtime"

// Errors that only callers of this package's services meet.
var (
	errTooMany  = errors.New("too many items")
	errPosition = errors.New("position unreadable")
)

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
	{hub.ErrOverloaded, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "the room's members cannot keep up: publish less, or again later", time.Second},
	{broker.ErrOverloaded, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "a bound of the broker's is reached: try again later", time.Second},
	{broker.ErrUnavailable, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_BROKER_UNAVAILABLE, "the broker is away; nothing was published", time.Second},
	{broker.ErrClosed, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{hub.ErrClosed, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{errDraining, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_DRAINING, "this node goes away: use another", time.Second},
	{errSlow, codes.ResourceExhausted, realtimev1.ErrorReason_ERROR_REASON_OVERLOADED, "the reader is too slow: call again with the last ids", time.Second},
	{errNotLive, codes.Unavailable, realtimev1.ErrorReason_ERROR_REASON_BROKER_UNAVAILABLE, "a room was not to be had in time: call again with the last ids", time.Second},
	{context.DeadlineExceeded, codes.DeadlineExceeded, realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED, "not done in time; whether it was published is unknown: repeat with the same idempotency key", 0},
	{context.Canceled, codes.Canceled, realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED, "cancelled by the caller; whether it was published is unknown", 0},
}

// internal is the row of everything else.
var internal = outcome{nil, codes.Internal, realtimev1.ErrorReason_ERROR_REASON_INTERNAL, "internal error: its cause is in the log of the service", 0}

// statusFor maps an error. known is false for one that is not in the table: nothing of it but the row's text leaves.
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
	row := internal
	for _, o := range table {
		if errors.Is(err, o.err) {
			row, known = o, true
			break
		}
	}
	text, details := row.text, make([]protoadapt.MessageV1, 0, 4)
	if text == "" {
		text = row.err.Error()
	}
	bad, ok := errors.AsType[*message.Error](err)
	if ok = ok && known; ok {
		text = bad.Text
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: bad.Field, Description: bad.Text}}})
	}
	if row.reason != realtimev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(row.reason.String(), "ERROR_REASON_"), Domain: domain}
		if ok {
			info.Metadata = metadata(bad)
		}
		details = append(details, info)
	}
	if row.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(row.retry)})
	}
	if traceID != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: traceID})
	}
	st = status.New(row.code, text)
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st, known
}

// metadata tells a program the numbers that the text tells a person.
func metadata(m *message.Error) map[string]string {
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
