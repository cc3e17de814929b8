package rpc

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/slack5/realtime/internal/broker"
)

func TestTheHooksAreNotServed(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	if err := s.conn.Invoke(t.Context(), "/realtime.v1.HooksService/OnConnect", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("HooksService: %v, want UNIMPLEMENTED: it is the user's to serve", err)
	}
}

// stream1 opens a stream and returns what its first answer is.
func stream1(ctx context.Context, t *testing.T, conn *grpc.ClientConn, d *grpc.StreamDesc, method string) error {
	t.Helper()
	st, err := conn.NewStream(ctx, d, method)
	if err != nil {
		return err
	}
	if err := errors.Join(st.SendMsg(&emptypb.Empty{}), st.CloseSend()); err != nil {
		t.Log(err) // the answer was there first
	}
	return st.RecvMsg(&emptypb.Empty{})
}

func TestHealthFollowsTheNodeForEachService(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	h := healthpb.NewHealthClient(s.conn)
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{
			"", "realtime.v1.PublisherService", "realtime.v1.SubscriberService", "realtime.v1.PresenceService", "realtime.v1.ControlService",
		} {
			got, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%q: %v, %v, want %v", name, got.GetStatus(), err, want)
			}
		}
	}
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	s.SetServing(true)
	expect(healthpb.HealthCheckResponse_SERVING)
	s.SetServing(false)
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "realtime.v1.HooksService"}); status.Code(err) != codes.NotFound {
		t.Errorf("a service that is not there: %v, want NOT_FOUND", err)
	}
	if got := s.log.records(t); got != nil {
		t.Errorf("logged: %v", got)
	}
}

func TestAWatcherOfHealthIsToldAndDoesNotHoldUpTheEnd(t *testing.T) {
	s := serve(t, Config{Timeout: time.Minute}, over(t, &bus{}, gate{}))
	s.SetServing(true)
	w, err := healthpb.NewHealthClient(s.conn).Watch(within10s(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
		if i == 1 {
			s.SetServing(false)
		}
		if got, err := w.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("told %v, %v, want %v", got.GetStatus(), err, want)
		}
	}
	begin := time.Now()
	s.Shutdown(t.Context())
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	_, err = w.Recv()
	if got, _ := read(t, err); got.Code != codes.Unavailable || got.Reason != "realtime/DRAINING" || got.Retry == 0 {
		t.Errorf("the watcher was told %v, want UNAVAILABLE, DRAINING with RetryInfo", err)
	}
	if got := s.log.records(t); got != nil {
		t.Errorf("logged: %v", got)
	}
}

func TestAWatcherThatLeavesIsNotLogged(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	ctx, leave := context.WithCancel(t.Context())
	w, err := healthpb.NewHealthClient(s.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recv(); err != nil {
		t.Fatal(err)
	}
	leave()
	s.Shutdown(t.Context()) // returns when its handler has
	if got := s.log.records(t); got != nil {
		t.Errorf("logged: %v", got)
	}
}

func TestTheServicesDescribeThemselvesOnlyIfToldTo(t *testing.T) {
	list := func(s *served) (names []string, err error) {
		st, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(within10s(t))
		if err != nil {
			return nil, err
		}
		if err := st.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Log(err)
		}
		resp, err := st.Recv()
		for _, svc := range resp.GetListServicesResponse().GetService() {
			names = append(names, svc.GetName())
		}
		return names, err
	}
	if names, err := list(serve(t, Config{}, over(t, &bus{}, gate{}))); status.Code(err) != codes.Unimplemented {
		t.Errorf("without being told to: %v, %v, want UNIMPLEMENTED", names, err)
	}
	names, err := list(serve(t, Config{Reflection: true, Timeout: 50 * time.Millisecond}, over(t, &bus{}, gate{})))
	for _, want := range services {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not described: %v, %v", want, names, err)
		}
	}
}

func TestTheEndWaitsForCallsUnderWayAndTakesNoMore(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	b := &bus{answer: func(context.Context, broker.Publication) (broker.Receipt, error) {
		close(arrived)
		<-release
		return broker.Receipt{}, nil
	}}
	s := serve(t, Config{}, over(t, b, gate{}))
	called, ended := make(chan error, 1), make(chan struct{})
	go func() { _, err := s.pub.Publish(t.Context(), hello()); called <- err }()
	<-arrived
	go func() { defer close(ended); s.Shutdown(t.Context()) }()
	until(t, "the port is closed", func() bool {
		nc, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = nc.Close()
		}
		return err != nil
	})
	select {
	case <-ended:
		t.Error("the end did not wait for the call")
	case err := <-called:
		t.Errorf("the call was cut: %v", err)
	default:
	}
	close(release)
	if err := <-called; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-ended
}

func TestACallThatDoesNotEndIsCut(t *testing.T) {
	for name, c := range map[string]struct {
		timeout, budget time.Duration
	}{
		"when the caller of Shutdown gives up": {time.Minute, 50 * time.Millisecond},
		"after the time that calls may take":   {50 * time.Millisecond, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{})
			b := &bus{answer: func(ctx context.Context, _ broker.Publication) (broker.Receipt, error) {
				close(arrived)
				<-ctx.Done()
				return broker.Receipt{}, ctx.Err()
			}}
			s := serve(t, Config{Timeout: c.timeout}, over(t, b, gate{}))
			called := make(chan error, 1)
			go func() { _, err := s.pub.Publish(within10s(t), hello()); called <- err }()
			<-arrived
			ctx, cancel := context.WithTimeout(t.Context(), c.budget)
			defer cancel()
			begin := time.Now()
			s.Shutdown(ctx)
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("the end took %v", took)
			}
			// A broken connection has no RetryInfo: whether it was published is unknown.
			if got, _ := read(t, <-called); got.Code != codes.Unavailable || got.Retry != 0 {
				t.Errorf("the call was told %+v, want UNAVAILABLE without RetryInfo", got)
			}
		})
	}
}

func TestServingAfterTheEndIsNoError(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	s.Shutdown(t.Context())
	s.SetServing(true) // a start that was overtaken
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
	s.Shutdown(t.Context()) // and again
}

// broken is a listener that fails.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errSecret }

func TestAListenerThatFailsIsAnError(t *testing.T) {
	s := serve(t, Config{}, over(t, &bus{}, gate{}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(broken{l}); !errors.Is(err, errSecret) {
		t.Errorf("Serve = %v, want the listener's error", err)
	}
}

func TestCallersAreAskedToConnectAnew(t *testing.T) {
	s := serve(t, Config{ConnectionAge: 50 * time.Millisecond}, over(t, &bus{}, gate{}))
	until(t, "a third connection, and no call lost", func() bool {
		if _, err := s.pub.Publish(t.Context(), hello()); err != nil {
			t.Fatal(err)
		}
		return s.accs.count() >= 3
	})
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not in 10 s: %s", what)
		}
		<-tick.C
	}
}
