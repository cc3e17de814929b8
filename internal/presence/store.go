package presence

import (
	"bytes"
	"context"

	"github.com/slack5/realtime/internal/message"
)

// Status is how available a user is. The greater of two is what both together are.
type Status uint8

// The statuses. The zero value is Offline.
const (
	Offline Status = iota
	Away
	Online
)

// String is the status as frames name it.
func (s Status) String() string {
	switch s {
	case Online:
		return "online"
	case Away:
		return "away"
	default:
		return "offline"
	}
}

// State is a user in a place: his sessions there taken together. Times are Unix milliseconds.
type State struct {
	Since  int64  // when the first of his sessions came
	Active int64  // last sign of life of the person, to five minutes
	Newest int64  // when the newest of his sessions began; its Info is shown
	Info   []byte // JSON, at most 1 KiB; nil: none. Nobody changes its bytes
	// Sessions may be 0 while the grace runs.
	Sessions int32
	Status   Status // Offline: he is not there, and only Active says anything
}

// With is a user whose sessions are those of both.
func (s State) With(o State) State {
	switch {
	case o.Status == Offline:
		return s
	case s.Status == Offline:
		return o
	}
	// Equal times: which info it is must not depend on who asks.
	if o.Newest > s.Newest || o.Newest == s.Newest && bytes.Compare(o.Info, s.Info) > 0 {
		s.Newest, s.Info = o.Newest, o.Info
	}
	s.Since = min(s.Since, o.Since)
	s.Active = max(s.Active, o.Active)
	s.Sessions += o.Sessions
	s.Status = max(s.Status, o.Status)
	return s
}

// Field is a user in a place as one node has him. Only that node writes it, and always whole.
type Field struct {
	Node string
	User string
	State
}

// Totals are the users and sessions of a room.
type Totals struct{ Online, Away, Sessions int }

// Users is how many there are.
func (t Totals) Users() int { return t.Online + t.Away }

func (t Totals) plus(o Totals) Totals {
	return Totals{t.Online + o.Online, t.Away + o.Away, t.Sessions + o.Sessions}
}

// Freshness is how good an answer is.
type Freshness struct {
	Stale       bool // the bus is away: of other nodes this is what was last known
	Approximate bool // sums over nodes: a user on two nodes counts twice
}

// Seen is what the other nodes know of a user.
type Seen struct {
	State       // merged over them, in all rooms
	Last  int64 // the last sign of life in the last seven days, on any node, Unix ms; 0: none is known
}

// Store is what nodes tell each other about who is where, as one node sees it. What it takes is that node's own; what it
// gives is the others': a node's own fields never come back to it.
//
// Places are ordinary rooms; message.Global, where everybody connected is; and users' rooms (message.UserRoom): the one
// field per node that message.Global has of that user. Nobody puts fields to a user's room.
//
// All methods may be called concurrently once Run has called ready. Put, Follow, Unfollow, Stale and Leave never wait.
type Store interface {
	// Run serves until ctx ends and then returns nil, or an error that ends the node. It calls ready once. A node that has
	// ended without Leave is gone for the others once its lease is over.
	Run(ctx context.Context, s Sink, ready func()) error

	// Put says how the node's users stand in the room: the fields that changed (their Node is not looked at), Offline for
	// who is gone, and the node's totals with them. It is absolute: saying it again changes nothing. The Store keeps
	// neither slice. An Offline field of message.Global leaves his Active behind as the last that was seen of the user.
	Put(room message.Room, changes []Field, own Totals)

	// Follow asks for the others' fields of an ordinary or a user's room. Sink.Roster follows soon, perhaps before Follow
	// returns, also while the bus is away: then with what is known. Changed follows with every change that the Roster has
	// not. A room that is followed already stays so.
	Follow(room message.Room)
	// Unfollow ends it. Calls that are under way may still arrive.
	Unfollow(room message.Room)

	// Read returns the others' fields of an ordinary room or message.Global.
	Read(ctx context.Context, room message.Room) ([]Field, error)
	// Count returns the others' totals, one per room in the order asked for.
	Count(ctx context.Context, rooms []message.Room) ([]Totals, error)
	// Users returns what is known of each user, in the order asked for.
	Users(ctx context.Context, users []string) ([]Seen, error)
	// Rooms returns the others' ordinary rooms with users: names that begin with prefix and lie behind after, sorted, the
	// first limit of them.
	Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error)

	// Claim takes the node's field of a user in message.Global, as it would be with one more session, if the sessions that he
	// then has on all nodes are at most most; then the field stands as if it had been put, but nobody is told before it is.
	// Of all claims of one moment, on whatever nodes, no more are taken than there is room for. While the bus is away only
	// the field's own sessions count.
	Claim(ctx context.Context, own Field, most int) (taken bool, err error)

	// Stale tells whether the bus is away.
	Stale() bool
	// Leave is a drain's last act: the node's fields stand as they are until the grace is over, then the node is gone for
	// the others. What is put afterwards is ignored.
	Leave()
}

// Sink takes what a Store has for this node. One goroutine at a time calls it, per room in order; calls never block.
// It keeps the fields it is given, not the slices.
type Sink interface {
	// Roster is all the others' fields of a room that is followed. It replaces what was known of the room: so it heals
	// whatever was lost before it.
	Roster(room message.Room, fields []Field)
	// Changed are fields that changed since, Offline if gone.
	Changed(room message.Room, fields []Field)
	// Gone: no field of this node stands any more, in any room.
	Gone(node string)
	// Again: the bus has lost this node's fields. All are to be put anew.
	Again()
}
