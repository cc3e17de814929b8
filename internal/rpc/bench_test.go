package rpc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// loadEnv makes the test binary a caller: it bears address, connections, calls at a time on each, and calls in all.
const loadEnv = "RPC_BENCH_LOAD"

// BenchmarkPublish measures what a unary Publish costs the server. The callers are a process of their own, so that
// server-µs/op, and a profile of the benchmark, are of the server alone.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct{ conns, parallel int }{{1, 1}, {1, 64}, {8, 32}} {
		b.Run(fmt.Sprintf("conns=%d/parallel=%d", c.conns, c.parallel), func(b *testing.B) {
			s := serve(b, Config{}, core(b).Publisher())
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %d", loadEnv, s.addr, c.conns, c.parallel, b.N))
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
		})
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
	var addr string
	var conns, parallel, calls int
	if _, err := fmt.Sscanf(spec, "%s %d %d %d", &addr, &conns, &parallel, &calls); err != nil {
		return err
	}
	var pubs []realtimev1.PublisherServiceClient
	for range conns {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		pubs = append(pubs, realtimev1.NewPublisherServiceClient(conn))
	}
	run := func(calls int) error {
		var left atomic.Int64
		left.Store(int64(calls))
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		for i := range conns * parallel {
			pub := pubs[i%conns]
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if _, err := pub.Publish(ctx, hello()); err != nil {
						failed.Store(&err)
						return
					}
				}
			})
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
