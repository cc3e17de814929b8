// Package publish is the one way in: whoever sends a message to a room, a session through edge, a backend through rpc or an
// embedding program, comes through Publisher.Do. It decides who may send which type, checks the message, gives it its
// identity, waits while the room's members are late, and hands it to the broker.
//
// It keeps nothing and delivers nothing: the broker feeds the hub, the publishing node's own included.
package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Origin says who sends.
type Origin uint8

// Origins, from the least trusted.
const (
	Session  Origin = iota // a user's session: never a type of the server's or of backends only
	Backend                // over gRPC: any type but the server's own
	Embedded               // the program around pkg/realtime: presence and error too, which are never stored
	origins
)

// String names the origin in metrics, logs and idempotency scopes.
func (o Origin) String() string {
	return [...]string{"session", "backend", "embedded"}[o]
}

// Config of a Publisher.
type Config struct {
	MaxDataBytes int // largest data; default message.DefaultMaxDataBytes
	// Observe is called with how long each accepted message took, the wait for its room included; duplicates are not new.
	// The context bears the publish's span, if it has one. nil: nobody asks.
	Observe func(context.Context, Origin, time.Duration)
	// Tracer makes a span of each publish that is to be sampled, and names it in the message. nil: none.
	Tracer trace.Tracer
}

// Request is a message to be published. Message belongs to the publisher from here on.
type Request struct {
	Message     *message.Message // ID is set by Do; Timestamp 0 means now
	Caller, Key string           // see broker.Publication; equal callers of different origins are different
	Origin      Origin
}

// Gate holds publishers up while a room's members cannot follow; *hub.Hub is the one there is. Its error refuses the message.
type Gate interface {
	Ready(ctx context.Context, room message.Room) error
}

// Publisher is safe for concurrent use.
type Publisher struct {
	cfg      Config
	gate     Gate
	broker   broker.Broker
	minter   *message.Minter
	log      *slog.Logger
	received [origins]atomic.Uint64
}

// New makes a Publisher.
func New(cfg Config, g Gate, b broker.Broker, minter *message.Minter, logger *slog.Logger) *Publisher {
	if cfg.MaxDataBytes == 0 {
		cfg.MaxDataBytes = message.DefaultMaxDataBytes
	}
	return &Publisher{cfg: cfg, gate: g, broker: b, minter: minter, log: logger.With("component", "publish")}
}

// Do publishes. Nil means in the room's history, or ephemeral, or that the receipt says Degraded. Errors: *message.Error,
// the gate's (hub.ErrOverloaded), those of the broker, or ctx's; what of them leaves the outcome unknown, the broker's contract
// says. The room's name and the key's length are the caller's to check: what may be said there depends on who says it.
func (p *Publisher) Do(ctx context.Context, r Request) (broker.Receipt, error) {
	if p.cfg.Tracer != nil {
		return p.traced(ctx, r)
	}
	return p.do(ctx, r)
}

func (p *Publisher) do(ctx context.Context, r Request) (broker.Receipt, error) {
	begin := time.Now()
	m := r.Message
	if err := p.admit(m, r.Origin); err != nil {
		return broker.Receipt{}, err
	}
	if m.Timestamp == 0 {
		m.Timestamp = begin.UnixMilli()
	}
	if err := m.Check(p.cfg.MaxDataBytes); err != nil {
		return broker.Receipt{}, err
	}
	m.ID.Low = p.minter.Low(m.Room.Tag(), m.Ephemeral)
	if err := p.gate.Ready(ctx, m.Room); err != nil {
		return broker.Receipt{}, fmt.Errorf("publish: %w", err)
	}
	caller := ""
	if r.Key != "" {
		caller = r.Origin.String() + "/" + r.Caller
	}
	receipt, err := p.broker.Publish(ctx, broker.Publication{Message: m, Caller: caller, Key: r.Key})
	if err != nil {
		return broker.Receipt{}, fmt.Errorf("publish: %w", err)
	}
	if !receipt.Duplicate {
		p.received[r.Origin].Add(1)
		if p.cfg.Observe != nil {
			p.cfg.Observe(ctx, r.Origin, time.Since(begin))
		}
	}
	if p.log.Enabled(ctx, slog.LevelDebug) {
		p.log.DebugContext(ctx, "accepted", "id", receipt.ID.String(), "room", string(m.Room), "duplicate", receipt.Duplicate)
	}
	return receipt, nil
}

// admit settles who may send the type. What is the server's own is never stored.
func (p *Publisher) admit(m *message.Message, by Origin) error {
	forbidden := true
	switch by {
	case Session:
		forbidden = m.Type.BackendOnly()
	case Backend:
		forbidden = m.Type.Reserved()
	case Embedded:
		own := m.Type == message.TypePresence || m.Type == message.TypeError
		forbidden = m.Type.Reserved() && !own
		m.Ephemeral = m.Ephemeral || own
	}
	if forbidden {
		return &message.Error{Err: message.ErrForbiddenType, Field: "type", Text: "this type is the server's own: use chat or a type of your application"}
	}
	return nil
}

// Received counts accepted messages of an origin, duplicates not among them.
func (p *Publisher) Received(by Origin) uint64 { return p.received[by].Load() }
