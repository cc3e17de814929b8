// Command moderation is an example of a backend that nodes ask about their sessions: it keeps strangers out of the rooms of staff,
// and bad words out of messages.
//
//	go run ./cmd/examples/moderation --staff alice &
//	go run ./cmd/realtime serve --dev --hooks-addr 127.0.0.1:9191
//
// With a key in the variable MODERATION_KEY it answers only nodes that have it, too: --hooks-key env:MODERATION_KEY.
package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv("MODERATION_KEY"), os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "moderation:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, key string, out io.Writer) error {
	flags := flag.NewFlagSet("moderation", flag.ContinueOnError)
	flags.SetOutput(out)
	addr := flags.String("addr", "127.0.0.1:9191", "where nodes call")
	staff := flags.String("staff", "", "users who may enter rooms that begin with staff, with commas between")
	banned := flags.String("banned", "", "users who may not connect, with commas between")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(demand(key)))
	realtimev1.RegisterHooksServiceServer(server, &service{staff: set(*staff), banned: set(*banned), log: slog.New(slog.NewTextHandler(out, nil))})
	defer context.AfterFunc(ctx, server.GracefulStop)()
	fmt.Fprintln(out, "asked at", l.Addr())
	return server.Serve(l)
}

func set(list string) map[string]bool {
	s := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		s[name] = name != ""
	}
	return s
}

// demand refuses callers without the key; "": there is none.
func demand(key string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		given := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), "")
		if key != "" && subtle.ConstantTimeCompare([]byte(given), []byte("Bearer "+key)) != 1 {
			return nil, status.Error(codes.Unauthenticated, "no or another key")
		}
		return next(ctx, req)
	}
}
