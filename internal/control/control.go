// Package control is what nodes ask each other about the sessions they hold: the questions, the answers, and how one answer is
// made of those of all nodes. They travel over the broker, so this node and the others take one path.
//
// It holds no session and changes none: whoever does implements Node. rpc asks on behalf of operators, the node itself for
// the limit of a user's sessions. Every question may be repeated: what is done already is not done again.
package control

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Filter says which sessions are meant. The zero Filter means all, of the fields at most one is set.
type Filter struct {
	Node    string       `json:"node,omitzero"`
	User    string       `json:"user,omitzero"`
	Room    message.Room `json:"room,omitzero"`
	Session string       `json:"session,omitzero"`
}

// Query asks for a page of sessions, by session id.
type Query struct {
	Filter
	After string `json:"after,omitzero"` // a session id; those behind it
	Limit int    `json:"limit"`
	Brief bool   `json:"brief,omitzero"` // without what only the session's shard knows: rooms and whether it is blocked
}

// Session is one as an operator sees it. Times are Unix milliseconds.
type Session struct {
	ID           string `json:"id"`
	User         string `json:"user"`
	Node         string `json:"-"` // who answered
	Connected    int64  `json:"connected"`
	LastSeen     int64  `json:"seen,omitzero"`
	Address      string `json:"address,omitzero"`
	Agent        string `json:"agent,omitzero"`
	Rooms        []Room `json:"rooms,omitzero"`
	BlockedSince int64  `json:"blocked,omitzero"` // 0: its socket takes bytes
	Expires      int64  `json:"expires,omitzero"` // 0: never
}

// Room is where a session stands in one.
type Room struct {
	Room     message.Room `json:"room"`
	Position string       `json:"at"` // id of the last message written to it
	Lag      int64        `json:"lag,omitzero"`
}

// Disconnect says whom to close, and how: User or Sessions is set.
type Disconnect struct {
	User     string   `json:"user,omitzero"`
	Sessions []string `json:"sessions,omitzero"`
	Except   []string `json:"except,omitzero"` // sessions that stay
	Code     int      `json:"code"`
	Reason   string   `json:"reason,omitzero"`
}

// Disconnected is what came of it.
type Disconnected struct {
	Found  int `json:"found"`  // sessions that were meant, those that were closing already or stay included
	Closed int `json:"closed"` // of these, closed now
}

// Placing puts a user's sessions into rooms, or takes them out.
type Placing struct {
	User  string         `json:"user"`
	Rooms []message.Room `json:"rooms"`
}

// State is how a node is.
type State string

// The states of a node.
const (
	Serving  State = "serving"
	Degraded State = "degraded" // the broker is away
	Draining State = "draining"
)

// Info describes a node.
type Info struct {
	Node        string `json:"-"` // who answered
	Host        string `json:"host,omitzero"`
	Version     string `json:"version,omitzero"`
	Started     int64  `json:"started"` // Unix ms
	State       State  `json:"state"`   // "": it did not answer
	Sessions    int    `json:"sessions"`
	MaxSessions int    `json:"max_sessions"`
	Rooms       int    `json:"rooms"`
}

// Node is what a node can tell of its sessions, and do to them. The methods may be called concurrently.
type Node interface {
	// Sessions returns sessions by id, fewer than asked for if they are large; more tells whether there are others behind
	// them.
	Sessions(ctx context.Context, q Query) (sessions []Session, more bool, err error)
	Disconnect(d Disconnect) Disconnected
	// Join returns how many sessions are in all the rooms when it returns. It may wait for rooms to be live.
	Join(ctx context.Context, p Placing) int
	// Leave returns how many sessions of the user there are.
	Leave(p Placing) int
	// Revoked reads the revocations anew and returns how many sessions it ended.
	Revoked(ctx context.Context) (ended int, err error)
	Info() Info
	// RoomsOf returns the rooms that each user is in, some of them if they are very many.
	RoomsOf(users []string) [][]message.Room
}

// Bus is what of a broker carries questions.
type Bus interface {
	Ask(ctx context.Context, r broker.Request) (replies []broker.Reply, unreached []string, err error)
	Revoke(ctx context.Context, r broker.Revocation) error
	Revocations(ctx context.Context) ([]broker.Revocation, uint64, error)
}

// Bounds of questions.
const (
	MaxPage        = 1000 // sessions of a page
	MaxRooms       = 128  // rooms of a Placing
	MaxUsers       = 100  // whose rooms are asked for
	MaxReasonBytes = 123  // what fits into a close frame

	minCode, maxCode = 4000, 4999 // close codes that are not the WebSocket protocol's own
)

// timeout bounds a question whose asker has set no end.
const timeout = 5 * time.Second
