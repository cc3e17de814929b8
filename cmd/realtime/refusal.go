package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// refusal makes of a call's error what a person wants to read: what was wrong, in which field, and what to do. The node's
// texts are written for that; gRPC's own are not.
func refusal(addr string, err error) error {
	text, unknown := explain(addr, err)
	switch {
	case text == "":
		return err
	case unknown:
		text += ": whether it was done is unknown"
	}
	return errors.New(text)
}

// itemRefusal is the same for one item of a call.
func itemRefusal(e *realtimev1.ItemError) error {
	if e.GetRetryAfter() == nil {
		return errors.New(e.GetMessage())
	}
	return fmt.Errorf("%s (%s)", e.GetMessage(), later(e.GetRetryAfter().AsDuration()))
}

func later(d time.Duration) string { return "try again in " + d.Round(time.Millisecond).String() }

// explain is empty for what is no call's error. Unknown is whether the call was carried out.
func explain(addr string, err error) (text string, unknown bool) {
	st, ok := status.FromError(err)
	if !ok {
		return "", false
	}
	reason, text, more := false, st.Message(), []string(nil)
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = true
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				if v.GetDescription() == text {
					more = append(more, "field "+v.GetField())
				} else {
					more = append(more, "field "+v.GetField()+": "+v.GetDescription())
				}
			}
		case *errdetails.RetryInfo:
			more = append(more, later(d.GetRetryDelay().AsDuration()))
		case *errdetails.RequestInfo:
			more = append(more, "request id "+d.GetRequestId())
		}
	}
	switch {
	case st.Code() == codes.Unauthenticated:
		more = append(more, "--key is what to call with")
	case reason:
	case st.Code() == codes.Unavailable:
		return fmt.Sprintf("the connection to %s broke", addr), true
	case st.Code() == codes.DeadlineExceeded:
		return fmt.Sprintf("no answer from %s in time", addr), true
	case st.Code() == codes.Canceled:
		return "interrupted", true
	case st.Code() == codes.Unimplemented:
		text = fmt.Sprintf("the node at %s does not serve this: it is of another version", addr)
	default:
		text = fmt.Sprintf("%s (%s)", text, st.Code())
	}
	if more != nil {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	return text, false
}

// again tells whether calling again may help, and how long to wait first at least. A call that keeps sending may end at any
// time: the node drains, a connection breaks, this side was too slow.
func again(err error) (wait time.Duration, ok bool) {
	st, isCall := status.FromError(err)
	if !isCall {
		return 0, errors.Is(err, errStream)
	}
	reason := false
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = true
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	// Without a reason of ours it is gRPC's own: too large, which it would be again.
	return wait, st.Code() == codes.Unavailable || st.Code() == codes.ResourceExhausted && reason
}
