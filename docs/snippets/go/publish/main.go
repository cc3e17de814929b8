// Command publish publishes one message over gRPC: publish ROOM JSON [IDEMPOTENCY-KEY].
//
// From the environment: ADDR, where the node listens for backends (dns:///realtime:9090 for all nodes behind a headless
// service), and KEY, what to call with.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// With an idempotency key a repeat is not published again, so every call may be repeated.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "realtime.v1.PublisherService", "method": "Publish"}],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
}`

// bearer sends the key along with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false } // true with TLS

func main() {
	if err := publish(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func publish(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: publish ROOM JSON [IDEMPOTENCY-KEY]")
	}
	// With TLS: credentials.NewTLS(nil). One connection serves a whole program.
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:9090"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(os.Getenv("KEY"))), grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	key := fmt.Sprintf("%s-%d", args[0], time.Now().UnixNano()) // better: the id of what happened
	if len(args) > 2 {
		key = args[2]
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := realtimev1.NewPublisherServiceClient(conn).Publish(ctx, &realtimev1.PublishRequest{
		Room: args[0], IdempotencyKey: key, Message: &realtimev1.MessageContent{Type: "chat", Data: args[1]},
	})
	if err != nil {
		return err
	}
	fmt.Println(answer.GetReceipt().GetId(), answer.GetReceipt().GetDuplicate())
	return nil
}
