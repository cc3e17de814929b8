package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// script is a stream that brings its events, each after its time, and then ends with err; nil: it stays silent.
type script struct {
	ctx    context.Context
	events []time.Duration
	err    error
}

func (s *script) Recv() (*int, error) {
	if len(s.events) == 0 {
		if s.err != nil {
			return nil, s.err
		}
		<-s.ctx.Done()
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	wait := s.events[0]
	s.events = s.events[1:]
	select {
	case <-time.After(wait):
		n := len(s.events)
		return &n, nil
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

// follow tails streams, the last of them again and again, until d has passed. It returns when each was opened.
func follow(t *testing.T, d time.Duration, streams ...script) (opened []time.Duration, told string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var errOut text
	begin := time.Now()
	open := func(ctx context.Context) (received[int], error) {
		next := streams[min(len(opened), len(streams)-1)]
		next.ctx, opened = ctx, append(opened, time.Since(begin))
		return &next, nil
	}
	err = tail(&dial{Addr: "node:1"}, &env{ctx: ctx, err: &errOut}, "subscribe", open, func(*int) error { return nil })
	return opened, errOut.String(), err
}

func TestAStreamThatBreaksIsOpenedAgainWithGrowingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, told, err := follow(t, 10*time.Minute, script{err: status.Error(codes.Unavailable, "EOF")})
		if err != nil {
			t.Errorf("interrupted: %v", err)
		}
		if n := len(opened); n < 40 || n > 200 {
			t.Errorf("opened %d times within ten minutes, want about one a ten seconds", n)
		}
		for i := 1; i < len(opened); i++ {
			if wait := opened[i] - opened[i-1]; wait < 250*time.Millisecond || wait > maxWait*3/2 {
				t.Errorf("wait %d is %v", i, wait)
			}
		}
		if line := "subscribe: the connection to node:1 broke: calling again\n"; !strings.HasPrefix(told, line) {
			t.Errorf("told:\n%s", told)
		}
	})
}

func TestAStreamThatBroughtSomethingIsOpenedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := status.Error(codes.Unavailable, "EOF")
		var streams []script
		for range 20 {
			streams = append(streams, script{err: broken})
		}
		streams = append(streams, script{events: []time.Duration{0}, err: broken})
		opened, _, _ := follow(t, time.Hour, streams...)
		for i := 21; i < len(opened); i++ {
			if wait := opened[i] - opened[i-1]; wait > 750*time.Millisecond {
				t.Errorf("wait %d is %v", i, wait)
			}
		}
	})
}

func TestAStreamThatIsSilentIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, told, err := follow(t, 10*time.Minute, script{events: []time.Duration{keepalive, keepalive, silence - 1}}, script{events: []time.Duration{keepalive}, err: io.EOF}, script{})
		if err != nil || len(opened) < 3 {
			t.Fatalf("opened at %v: %v", opened, err)
		}
		if least := 2*keepalive + 2*silence; opened[1] < least || opened[1] > least+time.Second {
			t.Errorf("given up and opened again after %v, want %v", opened[1], least)
		}
		if want := "subscribe: the stream ended: nothing came for 1m0s: calling again\nsubscribe: the stream ended: calling again\n"; !strings.HasPrefix(told, want) {
			t.Errorf("told:\n%s", told)
		}
	})
}

func TestOnlyWhatMayPassIsTriedAgain(t *testing.T) {
	retry := func(d time.Duration) *errdetails.RetryInfo {
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
	}
	for name, c := range map[string]struct {
		err   error
		again bool
		wait  time.Duration
	}{
		"a drain":               {draining(), true, 0},
		"a broken connection":   {status.Error(codes.Unavailable, "EOF"), true, 0},
		"a broker away":         {refused(codes.Unavailable, "BROKER_UNAVAILABLE", "x", retry(3*time.Second)), true, 3 * time.Second},
		"too slow a reader":     {refused(codes.ResourceExhausted, "OVERLOADED", "x", retry(time.Minute)), true, time.Minute},
		"a clean end":           {errStream, true, 0},
		"a message too large":   {status.Error(codes.ResourceExhausted, "received message larger than max"), false, 0},
		"a bad room":            {refused(codes.InvalidArgument, "ROOM_INVALID", "x"), false, 0},
		"no key":                {status.Error(codes.Unauthenticated, "x"), false, 0},
		"no scope":              {refused(codes.PermissionDenied, "SCOPE_MISSING", "x"), false, 0},
		"not served":            {status.Error(codes.Unimplemented, "x"), false, 0},
		"the node's fault":      {refused(codes.Internal, "INTERNAL", "x"), false, 0},
		"a full disk over here": {errors.New("no space left"), false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if wait, ok := again(c.err); ok != c.again || wait != c.wait {
				t.Errorf("again = %v, %v, want %v, %v", wait, ok, c.wait, c.again)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		opened, _, err := follow(t, time.Hour, script{err: refused(codes.ResourceExhausted, "OVERLOADED", "x", retry(time.Minute))}, script{err: refused(codes.InvalidArgument, "ROOM_INVALID", "a room name is something else")})
		if err == nil || err.Error() != "subscribe: a room name is something else" {
			t.Errorf("ended with %v", err)
		}
		if len(opened) != 2 || opened[1] < time.Minute {
			t.Errorf("opened at %v, want it to wait as long as it was told", opened)
		}
	})
}
