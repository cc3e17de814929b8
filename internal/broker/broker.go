// Package broker is the contract of the bus between nodes: it gives messages their positions, keeps rooms' history,
// hands every node the rooms it has members of, and carries questions between nodes. Memory is the bus of a single
// node; internal/redis is the other one. brokertest holds both to the same cases.
//
// A broker never touches sessions or sockets. It calls the Sink, which never blocks and never calls back.
package broker

import (
	"context"
	"errors"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Errors of a Broker.
var (
	// ErrUnavailable: the bus is away and the message was not taken.
	ErrUnavailable = errors.New("broker away")
	// ErrOverloaded: a bound of the broker's is reached; nothing was published. Try again later.
	ErrOverloaded = errors.New("broker overloaded")
	// ErrClosed: Run has ended.
	ErrClosed = errors.New("broker closed")
)

// Broker is one node's end of the bus. All methods may be called concurrently, once Run has called ready.
type Broker interface {
	// Run serves until ctx ends and then returns nil, or an error that ends the node. It calls ready once, when the other
	// methods may be called.
	Run(ctx context.Context, s Sink, ready func()) error

	// Subscribe asks for the room's entries. It never waits; Sink.Live follows, perhaps before Subscribe returns.
	// Every entry after the tip that Live names reaches the Sink. A room that is subscribed already stays so.
	Subscribe(room message.Room)
	// Unsubscribe ends it. Entries that are under way may still arrive.
	Unsubscribe(room message.Room)

	// Publish stores and distributes a message, unless it is ephemeral: then it only distributes it. The message's low
	// half is its identity, chosen by the caller; position and ID are set by Publish in a copy, p.Message is not changed.
	// When it returns nil the message is in the room's history, or the Receipt says Degraded. A context that ends
	// before the message was handed over means not published, afterwards unknown.
	// Order: calls that follow one another keep their order in the room.
	Publish(ctx context.Context, p Publication) (Receipt, error)

	// Delete empties the room's history. Positions go on; members are told through Sink.Deleted, resumes through
	// Page.Cut. What was deleted never comes back.
	Delete(ctx context.Context, room message.Room) error

	// Now is a position strictly below every position given later, in any room, and not below any given before by this
	// node but for the clock's resolution.
	Now() message.Position

	// History reads kept entries. Entries come oldest first with their Prev. Nothing kept is an empty page, no error.
	History(ctx context.Context, q message.Query) (message.Page, error)

	// Rooms lists ordinary rooms with kept entries, by name: the first limit of those that begin with prefix and lie behind
	// after.
	Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error)

	// Ask puts a question to all nodes, the asking one included, and gathers their replies until all have answered or
	// the context ends (at most 2 s). unreached names the nodes that did not answer.
	Ask(ctx context.Context, r Request) (replies []Reply, unreached []string, err error)
	// Serve sets who answers on this node; call it before Run.
	Serve(func(context.Context, Request) Reply)

	// Revoke adds a revocation, or takes one back if its Expires is zero.
	Revoke(ctx context.Context, r Revocation) error
	// Revocations returns those in force and a version that changes with each Revoke.
	Revocations(ctx context.Context) ([]Revocation, uint64, error)
}

// Publication is a message with what makes publishing it idempotent.
type Publication struct {
	Message *message.Message // with its low half; P is set if and only if it is ephemeral
	// Caller and Key: a second publication of the same Caller with the same Key in the same room within the idempotency
	// time is not published; it gets the first one's Receipt. An empty Key means none. Caller keeps services, users and
	// sessions apart.
	Caller, Key string
}

// Receipt is the proof that a message was taken.
type Receipt struct {
	ID        message.ID
	Timestamp int64 // Unix milliseconds, as delivered
	Duplicate bool  // the receipt of an earlier publication with the same key
	Degraded  bool  // delivered on this node, kept for the others: the bus is away
}

// Sink takes what a broker has for this node. Per room one goroutine at a time calls it, in position order; calls never
// block and never call the broker back.
type Sink interface {
	// Append takes an entry of a subscribed room. The entry's message is not changed any more by anyone.
	// Stored entries come in position order, each once, except those flagged Belated. An ephemeral entry bears the
	// position of the stored entry before it, or Now if there is none. What came as Degraded comes once more when it is
	// stored, flagged Shown: only its place is new.
	Append(e message.Entry)
	// Live: the room's entries after tip (0: it has none) follow from now on. degraded: the bus is away, tip is unknown.
	Live(room message.Room, tip message.Position, degraded bool)
	// Gap: between after and before something was stored that cannot be delivered.
	Gap(room message.Room, after, before message.Position, why message.GapReason)
	// Deleted: history up to upTo was deleted.
	Deleted(room message.Room, upTo message.Position)
	// Degraded and Restored: the bus is away, or back, for this room ("": all).
	Degraded(room message.Room)
	Restored(room message.Room)
}

// Request is a question to all nodes. Body's form is the asker's and the answerer's own.
type Request struct {
	Kind string
	Body []byte
}

// Reply is one node's answer.
type Reply struct {
	Node string
	Body []byte
}

// Revocation makes tokens invalid. Exactly one of User, TokenID and All is set.
type Revocation struct {
	User    string
	TokenID string
	All     bool
	Before  time.Time // tokens issued before this
	Expires time.Time // when it may be forgotten; zero, given to Revoke: take it back
}

// Retention is how much of a room's history is kept: the newest Messages, none older than Age.
type Retention struct {
	Messages int
	Age      time.Duration
}

// DefaultRetention is what a room keeps unless configured.
var DefaultRetention = Retention{Messages: 10_000, Age: 15 * time.Minute}

// DefaultIdempotencyTTL is how long a key is remembered unless configured.
const DefaultIdempotencyTTL = 5 * time.Minute
