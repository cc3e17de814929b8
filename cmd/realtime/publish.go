package main

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// content are the options of every command that publishes. What belongs to the message does not come from the environment,
// where it would be forgotten.
type content struct {
	Type           string `placeholder:"TYPE" env:"-" help:"Type of the message."`
	From           string `placeholder:"NAME" env:"-" help:"Shown as its sender."`
	IdempotencyKey string `placeholder:"KEY" env:"-" help:"A repeat with the same key is not published again."`
	Ephemeral      bool   `env:"-" help:"For members connected now; keep nothing."`
}

func (c *content) message(data string) *realtimev1.MessageContent {
	return &realtimev1.MessageContent{Type: c.Type, Data: data, From: c.From, Ephemeral: c.Ephemeral}
}

// publish says one message, or one per line of standard input.
type publish struct {
	dial
	content
	Room string `arg:"" help:"Room to publish to."`
	Data string `arg:"" name:"json" help:"Any JSON value; -: one per line of standard input."`
}

func (*publish) Help() string {
	return `Prints the message's id. With - it prints how many were published and refused; --idempotency-key is then the
beginning of each line's key, so that a second run publishes only what the first did not.

Examples:
  realtime publish general '{"text":"Hello"}'
  realtime publish --type order.paid --from billing orders 4711
  realtime publish general - < messages.jsonl`
}

func (p *publish) Run(e *env) error {
	if p.Data == "-" {
		return p.stream(e)
	}
	return p.call(e, "publish", func(conn *grpc.ClientConn) error {
		resp, err := realtimev1.NewPublisherServiceClient(conn).Publish(e.ctx, &realtimev1.PublishRequest{
			Room: p.Room, IdempotencyKey: p.IdempotencyKey, Message: p.message(p.Data),
		})
		if err != nil {
			return err
		}
		return p.receipt(e, resp, resp.GetReceipt())
	})
}

// notify says a message to users.
type notify struct {
	dial
	content
	User string   `arg:"" help:"User to notify."`
	Data string   `arg:"" name:"json" help:"Any JSON value."`
	More []string `name:"user" placeholder:"USER" sep:"none" env:"-" help:"One more user. Repeatable."`
}

func (*notify) Help() string {
	return `Prints the message's id; for several users a line for each.

Examples:
  realtime notify alice '{"text":"Your order was sent"}'
  realtime notify alice --user bob '{"text":"Meeting in five minutes"}'`
}

func (n *notify) Run(e *env) error {
	return n.call(e, "notify", func(conn *grpc.ClientConn) error {
		users := append([]string{n.User}, n.More...)
		resp, err := realtimev1.NewPublisherServiceClient(conn).Notify(e.ctx, &realtimev1.NotifyRequest{
			UserIds: users, IdempotencyKey: n.IdempotencyKey, Message: n.message(n.Data),
		})
		if err != nil {
			return err
		}
		return n.results(e, users, resp.GetResults())
	})
}

// broadcast says a message to everyone, or to rooms.
type broadcast struct {
	dial
	content
	Data string   `arg:"" name:"json" help:"Any JSON value."`
	Room []string `placeholder:"ROOM" sep:"none" env:"-" help:"To the members of this room only. Repeatable."`
}

func (*broadcast) Help() string {
	return `Prints the message's id; for several rooms a line for each.

Examples:
  realtime broadcast '{"text":"Maintenance at noon"}'
  realtime broadcast --room team-1 --room team-2 '{"text":"Deployed"}'`
}

func (b *broadcast) Run(e *env) error {
	return b.call(e, "broadcast", func(conn *grpc.ClientConn) error {
		calls := realtimev1.NewPublisherServiceClient(conn)
		if len(b.Room) == 0 {
			resp, err := calls.BroadcastAll(e.ctx, &realtimev1.BroadcastAllRequest{IdempotencyKey: b.IdempotencyKey, Message: b.message(b.Data)})
			if err != nil {
				return err
			}
			return b.receipt(e, resp, resp.GetReceipt())
		}
		resp, err := calls.Broadcast(e.ctx, &realtimev1.BroadcastRequest{Rooms: b.Room, IdempotencyKey: b.IdempotencyKey, Message: b.message(b.Data)})
		if err != nil {
			return err
		}
		return b.results(e, b.Room, resp.GetResults())
	})
}

// receipt prints the answer about one message.
func (d *dial) receipt(e *env, answer proto.Message, r *realtimev1.Receipt) error {
	if d.JSON {
		return printJSON(e.out, answer)
	}
	_, err := fmt.Fprintf(e.out, "%s%s\n", r.GetId(), notes(r))
	return err
}

// results prints the answers about several, those that were refused as errors. With JSON all of them are data.
func (d *dial) results(e *env, targets []string, results []*realtimev1.PublishResult) error {
	if len(results) != len(targets) {
		return fmt.Errorf("%d answers about %d messages: %s is no node, or of another version", len(results), len(targets), d.Addr)
	}
	refused := 0
	for i, r := range results {
		var err error
		switch refusal := r.GetError(); {
		case d.JSON:
			err = printJSON(e.out, r)
		case refusal != nil && len(targets) > 1:
			fmt.Fprintf(e.err, "%s: %v\n", word(targets[i]), itemRefusal(refusal))
		case refusal != nil:
			return itemRefusal(refusal)
		case len(targets) > 1:
			_, err = fmt.Fprintf(e.out, "%s %s%s\n", word(targets[i]), r.GetReceipt().GetId(), notes(r.GetReceipt()))
		default:
			err = d.receipt(e, r, r.GetReceipt())
		}
		if err != nil {
			return err
		}
		if r.GetError() != nil {
			refused++
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d refused", refused, len(targets))
	}
	return nil
}
