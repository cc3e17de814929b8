package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusal makes of a call's error what a person wants to read: what was wrong, in which field, and what to do. The node's
// texts are written for that; gRPC's own are not.
func refusal(addr string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
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
			more = append(more, "try again in "+d.GetRetryDelay().AsDuration().Round(time.Millisecond).String())
		case *errdetails.RequestInfo:
			more = append(more, "request id "+d.GetRequestId())
		}
	}
	switch {
	case reason:
	case st.Code() == codes.Unavailable:
		return fmt.Errorf("the connection to %s broke: whether it was done is unknown", addr)
	case st.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no answer from %s in time: whether it was done is unknown", addr)
	case st.Code() == codes.Canceled:
		return errors.New("interrupted: whether it was done is unknown")
	default:
		text = fmt.Sprintf("%s (%s)", text, st.Code())
	}
	if more != nil {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	return errors.New(text)
}
