package rpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// loadEnv makes the test binary a caller: it bears address, what to call, connections, calls at a time on each, and calls in
// all.
const loadEnv = "RPC_BENCH_LOAD"

// echo is gRPC itself, as a yardstick: it answers requests of the same type with themselves.
var echo = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Unary",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var req realtimev1.PublishRequest
			return &req, decode(&req)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Stream", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, st grpc.ServerStream) error {
			for {
				var req realtimev1.PublishStreamRequest
				if err := st.RecvMsg(&req); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := st.SendMsg(&req); err != nil {
					return err
				}
			}
		},
	}},
}

// BenchmarkCalls measures what a call, or an item of a stream, costs the server, and a bare gRPC server beside it. The
// callers are a process of their own, so that server-µs/op, and a profile of the benchmark, are of the server alone.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct{ conns, parallel int }{{1, 1}, {1, 64}, {8, 32}} {
		for _, method := range []string{
			"/bench.Echo/Unary", realtimev1.PublisherService_Publish_FullMethodName,
			"/bench.Echo/Stream", realtimev1.PublisherService_PublishStream_FullMethodName,
		} {
			b.Run(fmt.Sprintf("conns=%d/parallel=%d%s", c.conns, c.parallel, method), func(b *testing.B) {
				s := serveNode(b, Config{}, core(b))
				addr := s.addr
				if method[1] == 'b' {
					addr = bare(b)
				}
				measure(b, fmt.Sprintf("%s %s %d %d %d", addr, method, c.conns, c.parallel, b.N))
			})
		}
	}
}

// crowdSize is how many users BenchmarkGetPresence asks for.
const crowdSize = 1000

// BenchmarkGetPresence asks for all of a room of a thousand users: while nothing changes, and while somebody comes or goes
// every two milliseconds.
func BenchmarkGetPresence(b *testing.B) {
	for name, changes := range map[string]bool{"still": false, "500 changes a second": true} {
		b.Run(name, func(b *testing.B) {
			n := core(b)
			for i := range crowdSize {
				n.Presence().Open(fmt.Sprintf("user-%d", i), nil).Joined("general")
			}
			s := serveNode(b, Config{}, n)
			if changes {
				tick, done := time.NewTicker(2*time.Millisecond), make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					come := n.Presence().Open("visitor", nil)
					for i := 0; ; i++ {
						select {
						case <-done:
							return
						case <-tick.C:
						}
						if i%2 == 0 {
							come.Joined("general")
						} else {
							come.Left("general", false)
						}
					}
				})
				b.Cleanup(func() { tick.Stop(); close(done); wg.Wait() })
			}
			measure(b, fmt.Sprintf("%s %s %d %d %d", s.addr, realtimev1.PresenceService_GetPresence_FullMethodName, 2, 16, b.N))
		})
	}
}

// bare serves echo.
func bare(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(grpc.NumStreamWorkers(workers))
	g.RegisterService(&echo, nil)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	b.Cleanup(func() { g.Stop(); wg.Wait() })
	return l.Addr().String()
}

// measure runs callers as told and reports what they cost this process.
func measure(b *testing.B, spec string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+spec)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	answer := bufio.NewReader(out)
	expect := func(want string) {
		b.Helper()
		if got, err := answer.ReadString('\n'); err != nil || got != want {
			b.Fatalf("the callers say %q, %v, want %q", got, err, want)
		}
	}
	expect("ready\n")
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	if _, err := io.WriteString(in, "go\n"); err != nil {
		b.Fatal(err)
	}
	expect("done\n")
	used := cpu(b) - before
	b.StopTimer()
	b.ReportMetric(float64(used.Nanoseconds())/1e3/float64(b.N), "server-µs/op")
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
}

// cpu is the time this process has spent on processors.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load is the callers' process.
func load(ctx context.Context, spec string) error {
	var addr, method string
	var conns, parallel, calls int
	if _, err := fmt.Sscanf(spec, "%s %s %d %d %d", &addr, &method, &conns, &parallel, &calls); err != nil {
		return err
	}
	var all []*grpc.ClientConn
	for range conns {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		all = append(all, conn)
	}
	run := func(calls int) error {
		left := new(atomic.Int64)
		left.Store(int64(calls))
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		keep := func(err error) {
			if err != nil {
				failed.Store(&err)
			}
		}
		for _, conn := range all {
			if method == realtimev1.PublisherService_PublishStream_FullMethodName || method == "/bench.Echo/Stream" {
				wg.Go(func() { keep(streamLoad(ctx, conn, method, parallel, left)) })
				continue
			}
			for range parallel {
				wg.Go(func() {
					for left.Add(-1) >= 0 && failed.Load() == nil {
						keep(conn.Invoke(ctx, method, requestOf(method), answerTo(method)))
					}
				})
			}
		}
		wg.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		return nil
	}
	if err := run(conns * parallel * 10); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := run(calls); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

func requestOf(method string) proto.Message {
	if method == realtimev1.PresenceService_GetPresence_FullMethodName {
		return &realtimev1.GetPresenceRequest{Room: "general", PageSize: crowdSize}
	}
	return hello()
}

// answerTo is what the answer of a method is read into.
func answerTo(method string) proto.Message {
	switch method {
	case "/bench.Echo/Unary":
		return &realtimev1.PublishRequest{}
	case "/bench.Echo/Stream":
		return &realtimev1.PublishStreamRequest{}
	case realtimev1.PublisherService_PublishStream_FullMethodName:
		return &realtimev1.PublishStreamResponse{}
	case realtimev1.PresenceService_GetPresence_FullMethodName:
		return &emptypb.Empty{} // it is not what a caller makes of the answer that is measured
	}
	return &realtimev1.PublishResponse{}
}

// streamLoad sends items while there are any left, so many ahead of their answers.
func streamLoad(ctx context.Context, conn *grpc.ClientConn, method string, ahead int, left *atomic.Int64) error {
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	places, ended := make(chan struct{}, ahead), make(chan struct{})
	var wg sync.WaitGroup
	var read error
	resp := answerTo(method)
	wg.Go(func() {
		for read == nil {
			if read = st.RecvMsg(resp); read == nil {
				<-places
			}
		}
		close(ended)
	})
	req := &realtimev1.PublishStreamRequest{Item: &realtimev1.PublishItem{Room: "general", Message: hello().GetMessage()}}
	for left.Add(-1) >= 0 && err == nil {
		select {
		case places <- struct{}{}:
			req.Tag++
			err = st.SendMsg(req)
		case <-ended:
			err = io.ErrUnexpectedEOF
		}
	}
	err = errors.Join(err, st.CloseSend())
	wg.Wait()
	if !errors.Is(read, io.EOF) {
		err = errors.Join(err, read)
	}
	return err
}
