package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestARefusalIsWrittenForAPerson(t *testing.T) {
	of := func(code codes.Code, text string, details ...protoadapt.MessageV1) error {
		st, err := status.New(code, text).WithDetails(details...)
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	field := func(name, text string) *errdetails.BadRequest_FieldViolation {
		return &errdetails.BadRequest_FieldViolation{Field: name, Description: text}
	}
	info := &errdetails.ErrorInfo{Reason: "X", Domain: "realtime"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a bad field": {
			of(codes.InvalidArgument, "data is too large", info, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{field("message.data", "data is too large")}}),
			"data is too large (field message.data)",
		},
		"two bad fields": {
			of(codes.InvalidArgument, "no", info, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{field("a", "x"), field("b", "y")}}),
			"no (field a: x, field b: y)",
		},
		"for now": {
			of(codes.ResourceExhausted, "too much", info, &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}),
			"too much (try again in 1.5s)",
		},
		"the node's fault": {of(codes.Internal, "internal error", info, &errdetails.RequestInfo{RequestId: "abc"}), "internal error (request id abc)"},
		"of gRPC itself":   {of(codes.OutOfRange, "too far"), "too far (OutOfRange)"},
		"not served":       {of(codes.Unimplemented, "unknown method"), "the node at node:1 does not serve this: it is of another version"},
		"no key":           {of(codes.Unauthenticated, "who are you?"), "who are you? (--key is what to call with)"},
		"too late":         {of(codes.DeadlineExceeded, "context deadline exceeded"), "no answer from node:1 in time: whether it was done is unknown"},
		"too late, says the node": {
			of(codes.DeadlineExceeded, "not done in time"), "no answer from node:1 in time: whether it was done is unknown",
		},
		"broken off":          {of(codes.Unavailable, "transport is closing"), "the connection to node:1 broke: whether it was done is unknown"},
		"the node goes away":  {of(codes.Unavailable, "use another", info), "use another"},
		"interrupted":         {of(codes.Canceled, "context canceled"), "interrupted: whether it was done is unknown"},
		"no status of a call": {errors.New("disk full"), "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refusal("node:1", c.err).Error(); got != c.want {
				t.Errorf("refusal = %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheFieldIsNamedAndNoCodeIsShown(t *testing.T) {
	addr := "--addr=" + node(t)
	for field, args := range map[string][]string{
		"room":            {"a b", "1"},
		"message.data":    {"general", "{"},
		"message.type":    {"general", "1", "--type=presence"},
		"idempotency_key": {"general", "1", "--idempotency-key=" + strings.Repeat("k", 129)},
	} {
		_, err := command(t, append([]string{"publish", addr}, args...)...)
		if err == nil || !strings.Contains(err.Error(), "(field "+field+")") || strings.Contains(err.Error(), "rpc error") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestWithoutANodeItSaysWhatToDo(t *testing.T) {
	_, err := command(t, "publish", "--addr=127.0.0.1:1", "general", "1")
	if err == nil || !strings.HasPrefix(err.Error(), "no node answers at 127.0.0.1:1: is `realtime serve` running there?") {
		t.Errorf("publish: %v", err)
	}
}
