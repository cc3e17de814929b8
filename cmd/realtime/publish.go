package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// callTimeout bounds a command's call. The node takes the caller's bound for its own.
const callTimeout = 10 * time.Second

// dial are the options of every command that calls a node.
type dial struct {
	Addr string `default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"gRPC address of a node."`
	JSON bool   `name:"json" env:"-" help:"Print the answer as JSON."`
}

// connect returns a connection that stands: who cannot be reached is told before anything is asked of it.
func (d *dial) connect(ctx context.Context) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(d.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("--addr: %w", err)
	}
	conn.Connect()
	state := conn.GetState()
	for state != connectivity.Ready && state != connectivity.TransientFailure && conn.WaitForStateChange(ctx, state) {
		state = conn.GetState()
	}
	if state != connectivity.Ready {
		_ = conn.Close()
		return nil, fmt.Errorf("no node answers at %s: is `realtime serve` running there? --addr names another", d.Addr)
	}
	return conn, nil
}

// publish says one message. What belongs to the message does not come from the environment, where it would be forgotten.
type publish struct {
	dial
	Room      string `arg:"" help:"Room to publish to."`
	Data      string `arg:"" name:"json" help:"Any JSON value."`
	Type      string `placeholder:"TYPE" env:"-" help:"Type of the message; chat if not given."`
	From      string `placeholder:"NAME" env:"-" help:"Shown as its sender."`
	Key       string `name:"idempotency-key" placeholder:"KEY" env:"-" help:"Idempotency key: a repeat is not published again."`
	Ephemeral bool   `env:"-" help:"For members connected now; keep nothing."`
}

func (p *publish) Run(e *env) error {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	resp, err := realtimev1.NewPublisherServiceClient(conn).Publish(ctx, &realtimev1.PublishRequest{
		Room: p.Room, IdempotencyKey: p.Key,
		Message: &realtimev1.MessageContent{Type: p.Type, Data: p.Data, From: p.From, Ephemeral: p.Ephemeral},
	})
	if err != nil {
		return fmt.Errorf("publish: %w", refusal(p.Addr, err))
	}
	if p.JSON {
		b, err := protojson.Marshal(resp)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(e.out, string(b))
		return err
	}
	note := ""
	if resp.GetReceipt().GetDuplicate() {
		note = " (duplicate)"
	}
	_, err = fmt.Fprintf(e.out, "%s%s\n", resp.GetReceipt().GetId(), note)
	return err
}
