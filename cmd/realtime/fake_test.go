package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// fake is a node whose answers a test writes. A call that no function is there for fails the test.
type fake struct {
	realtimev1.UnimplementedPublisherServiceServer
	realtimev1.UnimplementedSubscriberServiceServer
	realtimev1.UnimplementedPresenceServiceServer
	realtimev1.UnimplementedControlServiceServer
	t   *testing.T
	key string // what each call must bear; "": none

	publish       func(*realtimev1.PublishRequest) (*realtimev1.PublishResponse, error)
	notify        func(*realtimev1.NotifyRequest) (*realtimev1.NotifyResponse, error)
	broadcast     func(*realtimev1.BroadcastRequest) (*realtimev1.BroadcastResponse, error)
	broadcastAll  func(*realtimev1.BroadcastAllRequest) (*realtimev1.BroadcastAllResponse, error)
	getHistory    func(*realtimev1.GetHistoryRequest) (*realtimev1.GetHistoryResponse, error)
	publishStream func(grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) error
	subscribe     func(*realtimev1.SubscribeRequest, grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error
	getPresence   func(*realtimev1.GetPresenceRequest) (*realtimev1.GetPresenceResponse, error)
	getUsers      func(*realtimev1.GetUsersRequest) (*realtimev1.GetUsersResponse, error)
	listRooms     func(*realtimev1.ListRoomsRequest) (*realtimev1.ListRoomsResponse, error)
	controlled
	watchPresence func(*realtimev1.WatchPresenceRequest, grpc.ServerStreamingServer[realtimev1.WatchPresenceResponse]) error
}

// serve lets f answer until the test's end and returns --addr.
func (f *fake) serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	f.t = t
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	realtimev1.RegisterPublisherServiceServer(s, f)
	realtimev1.RegisterSubscriberServiceServer(s, f)
	realtimev1.RegisterPresenceServiceServer(s, f)
	realtimev1.RegisterControlServiceServer(s, f)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Errorf("the fake: %v", err)
		}
	})
	return "--addr=" + l.Addr().String()
}

// check is what every call must keep to.
func (f *fake) check(ctx context.Context, unary bool) {
	if _, bound := ctx.Deadline(); bound != unary {
		f.t.Errorf("a call with a deadline: %v, want %v", bound, unary)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	want := ""
	if f.key != "" {
		want = "Bearer " + f.key
	}
	if got := strings.Join(md.Get("authorization"), "|"); got != want {
		f.t.Errorf("authorization is %q, want %q", got, want)
	}
}

// answer is what a function of the test says, if there is one.
func answer[Q, A any](ctx context.Context, f *fake, req *Q, fn func(*Q) (*A, error)) (*A, error) {
	f.check(ctx, true)
	if fn == nil {
		f.t.Errorf("unexpected: %T", req)
		return nil, status.Error(codes.Unimplemented, "not in this test")
	}
	return fn(req)
}

func (f *fake) Publish(ctx context.Context, r *realtimev1.PublishRequest) (*realtimev1.PublishResponse, error) {
	return answer(ctx, f, r, f.publish)
}

func (f *fake) Notify(ctx context.Context, r *realtimev1.NotifyRequest) (*realtimev1.NotifyResponse, error) {
	return answer(ctx, f, r, f.notify)
}

func (f *fake) Broadcast(ctx context.Context, r *realtimev1.BroadcastRequest) (*realtimev1.BroadcastResponse, error) {
	return answer(ctx, f, r, f.broadcast)
}

func (f *fake) BroadcastAll(ctx context.Context, r *realtimev1.BroadcastAllRequest) (*realtimev1.BroadcastAllResponse, error) {
	return answer(ctx, f, r, f.broadcastAll)
}

func (f *fake) GetHistory(ctx context.Context, r *realtimev1.GetHistoryRequest) (*realtimev1.GetHistoryResponse, error) {
	return answer(ctx, f, r, f.getHistory)
}

func (f *fake) GetPresence(ctx context.Context, r *realtimev1.GetPresenceRequest) (*realtimev1.GetPresenceResponse, error) {
	return answer(ctx, f, r, f.getPresence)
}

func (f *fake) GetUsers(ctx context.Context, r *realtimev1.GetUsersRequest) (*realtimev1.GetUsersResponse, error) {
	return answer(ctx, f, r, f.getUsers)
}

func (f *fake) ListRooms(ctx context.Context, r *realtimev1.ListRoomsRequest) (*realtimev1.ListRoomsResponse, error) {
	return answer(ctx, f, r, f.listRooms)
}

func (f *fake) PublishStream(s grpc.BidiStreamingServer[realtimev1.PublishStreamRequest, realtimev1.PublishStreamResponse]) error {
	f.check(s.Context(), false)
	return f.publishStream(s)
}

func (f *fake) Subscribe(r *realtimev1.SubscribeRequest, s grpc.ServerStreamingServer[realtimev1.SubscribeResponse]) error {
	f.check(s.Context(), false)
	return f.subscribe(r, s)
}

func (f *fake) WatchPresence(r *realtimev1.WatchPresenceRequest, s grpc.ServerStreamingServer[realtimev1.WatchPresenceResponse]) error {
	f.check(s.Context(), false)
	return f.watchPresence(r, s)
}

// refused is a node's error.
func refused(code codes.Code, reason, text string, more ...protoadapt.MessageV1) error {
	st, err := status.New(code, text).WithDetails(append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "realtime"}}, more...)...)
	if err != nil {
		return err
	}
	return st.Err()
}

func draining() error {
	return refused(codes.Unavailable, "DRAINING", "this node goes away: use another", &errdetails.RetryInfo{RetryDelay: durationpb.New(0)})
}

// both runs a command and returns what it printed, both ways.
func both(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e text
	err = run(t.Context(), args, &o, &e)
	return o.String(), e.String(), err
}
