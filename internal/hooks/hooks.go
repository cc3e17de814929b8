// Package hooks asks others at four points of a session's life: when it wants to connect, to join a room, when it has sent a
// message, and when it has ended. Who is asked are functions: those of a client of HooksService (remote), or of the program
// around.
//
// A Chain puts around each function what keeps it from harming more than the session it is asked about: a timeout, a bound on
// how many are asked at once, a circuit breaker, the check of what is answered, and the rule for when there is no good answer.
// A hook that fails open lets pass what it was asked about, one that fails closed refuses it.
//
// It knows no sessions, frames or transports, and keeps nothing but the queue of ended sessions. edge asks; node runs it.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Point is where a hook is asked.
type Point uint8

// Points, in the order of a session's life.
const (
	Connect Point = iota
	Subscribe
	Message
	Disconnect
	points
)

// String names the point in options, metrics and logs.
func (p Point) String() string {
	return [...]string{"connect", "subscribe", "message", "disconnect"}[p]
}

// Points returns all of them.
func Points() []Point { return []Point{Connect, Subscribe, Message, Disconnect} }

// ParsePoint is String's inverse.
func ParsePoint(s string) (Point, error) {
	for _, p := range Points() {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is no hook: they are connect, subscribe, message and disconnect", s)
}

// Hooks are the functions that are asked; a nil one is not. They are called concurrently, at most one at a time for a session
// but for Subscribe, and end with their context. What they are given they must not change.
//
// A *Denied is their answer no. Any other error, and an answer against its rules, is a failure of the hook.
type Hooks struct {
	// Connect judges a session before it begins. An Admission's zero value changes nothing.
	Connect func(context.Context, *Attempt) (*Admission, error)
	// Subscribe judges whether a session may join a room.
	Subscribe func(ctx context.Context, s *Session, room message.Room) error
	// Message judges what a session has sent, and returns what is published: m itself, or another message with a type, data
	// and from of its own, of which nothing else counts. nil: it is taken and not published.
	Message func(ctx context.Context, s *Session, m *message.Message) (*message.Message, error)
	// Disconnect tells of sessions that have ended, until it returns nil. One call at a time.
	Disconnect func(ctx context.Context, ended []Disconnection) error
}

// Session is the one that a hook is asked about.
type Session struct {
	ID      string
	User    string // an anonymous session's is its ID, and at Connect empty
	Node    string // that holds it
	Address string // of the peer
	Data    []byte // Admission.Data of its Connect; nil: none

	Conn any // at Subscribe and Message the edge's *Conn, for hooks of the program around
}

// Attempt is a session that wants to connect.
type Attempt struct {
	Session
	Claims  []byte            // of its verified token, JSON; nil: there is none
	Rooms   []message.Room    // of the URL, in its order
	Headers map[string]string // that are to be passed on, by their lower-case names
}

// Admission is what a session gets on its way.
type Admission struct {
	User    string            // who it is, whatever the token says; "": as the token says
	Rooms   []message.Room    // joined besides the URL's
	Grants  map[string]string // operations by pattern, in place of the token's; nil: the token's
	Data    []byte            // JSON of at most MaxDataBytes, for the later hooks of the session; nil: none
	Info    []byte            // JSON of at most MaxInfoBytes, shown in presence in place of the token's; nil: the token's
	Expires time.Time         // when it must renew; zero: when the token says, or never
}

// Limits of what a hook may answer.
const (
	MaxDataBytes   = 4 << 10 // Admission.Data
	MaxInfoBytes   = 1 << 10 // Admission.Info
	maxReasonBytes = 512     // of a Denied in an error frame
	maxCloseBytes  = 123     // and in a close frame
)

// Denied is a hook's no.
type Denied struct {
	Code   int    // at Connect what the session is closed with: 4502, 4400 to 4499 or 4700 to 4999; 0: 4502
	Reason string // shown to the session; "": there is none
}

func (d *Denied) Error() string { return "a hook denied it" }

// defaultDenial is the close code for who may not connect, and not come back with the same.
const defaultDenial = 4502

// Unavailable is what a Chain returns where a hook that fails closed has failed: nothing is known against the session, and it
// may try again.
type Unavailable struct {
	Point Point
	Retry time.Duration
}

func (u *Unavailable) Error() string { return "the hook " + u.Point.String() + " is not to be had" }

// ErrNoAnswer says that whoever is to be asked could not be reached, or did not answer. Hooks wrap it; it is what makes a
// breaker open, as does a timeout: a bad answer does not, as it comes at once.
var ErrNoAnswer = errors.New("no answer")

// Disconnection is a session that has ended.
type Disconnection struct {
	Session    Session
	Rooms      []Place
	Code       int // of the close frame sent or received; 1006: there was none
	Reason     string
	Time       time.Time
	LastOfUser bool // no other session of the user was left
}

// Place is a room that a session was in, and the last id it was written there.
type Place struct {
	Room message.Room
	Last message.ID
}

// size is an upper bound of what d takes in a request.
func (d *Disconnection) size() int {
	const fields, perRoom, id = 160, 16, 36
	n := fields + len(d.Session.ID) + len(d.Session.User) + len(d.Session.Node) + len(d.Session.Address) + len(d.Session.Data) + len(d.Reason)
	for _, p := range d.Rooms {
		n += perRoom + len(p.Room) + id
	}
	return n
}
