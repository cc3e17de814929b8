package rpc

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
)

// pretended is a stream of which only the context is asked for.
type pretended struct {
	grpc.ServerStream
	ctx context.Context
}

func (p pretended) Context() context.Context { return p.ctx }

// Whatever may befall a call befalls a stream in the same way: both kinds go through the same steps.
func TestUnaryCallsAndStreamsPassTheSameChain(t *testing.T) {
	nobody, admitted := &Caller{}, &Caller{Scopes: ScopePublish}
	method := realtimev1.PublisherService_Publish_FullMethodName
	for name, c := range map[string]struct {
		who    *Caller
		method string
		run    func(context.Context) error
		want   codes.Code
		lines  int
	}{
		"nothing wrong":              {admitted, method, func(context.Context) error { return nil }, codes.OK, 0},
		"an error of the table":      {admitted, method, func(context.Context) error { return broker.ErrUnavailable }, codes.Unavailable, 0},
		"an error nobody knows":      {admitted, method, func(context.Context) error { return errSecret }, codes.Internal, 1},
		"a status of another's":      {admitted, method, func(context.Context) error { return status.Error(codes.NotFound, "hunter2") }, codes.Internal, 1},
		"a panic":                    {admitted, method, func(context.Context) error { panic("hunter2") }, codes.Internal, 1},
		"a scope that is missing":    {nobody, method, func(context.Context) error { return nil }, codes.PermissionDenied, 0},
		"a caller that is missing":   {nil, method, func(context.Context) error { return nil }, codes.PermissionDenied, 0},
		"a method nobody thought of": {admitted, "/a/b", func(context.Context) error { return nil }, codes.PermissionDenied, 0},
		"health without a caller":    {nil, healthMethods + "Check", func(context.Context) error { return nil }, codes.OK, 0},
		"health speaks for itself":   {nil, healthMethods + "Check", func(context.Context) error { return status.Error(codes.NotFound, "x") }, codes.NotFound, 0},
		"the caller is told apart": {admitted, method, func(ctx context.Context) error {
			if callerOf(ctx) != admitted {
				return errSecret
			}
			return nil
		}, codes.OK, 0},
	} {
		t.Run(name, func(t *testing.T) {
			both := map[string]error{}
			for _, kind := range []string{"unary", "stream"} {
				log := &lines{}
				ch := &chain{log: slog.New(slog.NewJSONHandler(log, nil)), timeout: time.Second, ending: t.Context()}
				ctx := t.Context()
				if c.who != nil {
					ctx = context.WithValue(ctx, callerKey{}, c.who)
				}
				if kind == "unary" {
					_, both[kind] = ch.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: c.method}, func(ctx context.Context, _ any) (any, error) { return nil, c.run(ctx) })
				} else {
					both[kind] = ch.stream(nil, pretended{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: c.method}, func(_ any, st grpc.ServerStream) error { return c.run(st.Context()) })
				}
				if got := status.Code(both[kind]); got != c.want || len(log.records(t)) != c.lines {
					t.Errorf("%s: %v, logged %v; want %v and %d lines", kind, both[kind], log.records(t), c.want, c.lines)
				}
				if n := ch.scopeMissing.Load(); (n == 1) != (c.want == codes.PermissionDenied) {
					t.Errorf("%s: %d missing scopes counted", kind, n)
				}
			}
			unary, a := read(t, both["unary"])
			stream, b := read(t, both["stream"])
			if d := cmp.Diff(unary, stream); d != "" || a != b {
				t.Errorf("a call is told %q, a stream %q (-call +stream):\n%s", a, b, d)
			}
		})
	}
}

// An hour of a connection's life is nothing a test can wait for: the chain is asked as gRPC asks it.
func TestAStreamEndsWithTheAgeOfItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t.Context(), Config{}, Parts{}, slog.New(slog.DiscardHandler))
		defer s.Shutdown(t.Context())
		ctx := context.WithValue(t.Context(), callerKey{}, &Caller{Scopes: AllScopes})
		begin := time.Now()
		ctx = peer.NewContext(ctx, &peer.Peer{Addr: since{Addr: &net.TCPAddr{}, at: begin}})
		time.Sleep(5 * time.Minute) // the connection is older than its stream
		err := s.chain.stream(nil, pretended{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: realtimev1.SubscriberService_Subscribe_FullMethodName},
			func(_ any, st grpc.ServerStream) error {
				<-st.Context().Done()
				return st.Context().Err()
			})
		if took := time.Since(begin); took != 11*time.Minute+30*time.Second {
			t.Errorf("after %v, want 11m30s", took)
		}
		if got, _ := read(t, err); got.Code != codes.Unavailable || got.Reason != "realtime/DRAINING" || got.Retry == 0 {
			t.Errorf("told %+v, want DRAINING", got)
		}
	})
}

func TestACallKnowsWhenItsConnectionBegan(t *testing.T) {
	before := time.Now()
	times := make(chan time.Time, 2)
	b := &bus{answer: func(ctx context.Context, _ broker.Publication) (broker.Receipt, error) {
		at, ok := connected(ctx)
		if !ok {
			return broker.Receipt{}, errors.New("no date")
		}
		times <- at
		return broker.Receipt{}, nil
	}}
	s := serve(t, Config{}, over(t, b, gate{}))
	for range 2 {
		if _, err := s.pub.Publish(t.Context(), hello()); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := <-times, <-times; first != second || first.Before(before) || first.After(time.Now()) {
		t.Errorf("%v, then %v; want the same time after %v", first, second, before)
	}
}
