// Package message holds the vocabulary that every other package shares: messages and their rules, room names,
// ids and positions, and the entries a broker hands to the hub.
//
// It does no input or output, knows no clock but the one given to it, and imports nothing of ours. All its
// functions may be called concurrently. The limits here are the protocol's own; those that configuration may
// change are fields of Limits.
package message

import (
	"fmt"
	"slices"
	"time"
)

// Limits of the protocol that no configuration changes.
const (
	MaxUserBytes      = 128 // a user id
	MaxFromBytes      = 128 // what a backend may say as `from`
	MaxKeyBytes       = 128 // an idempotency key; a session's `key` is held to MaxRefRunes as well
	MaxRefRunes       = 64  // a session's `ref` and `key`, in characters
	MaxExclusions     = 100 // excluded sessions and users of one message, together
	MaxSessionIDBytes = 64  // an excluded session's id
)

// DefaultMaxDataBytes is the largest `data` unless configured: what is larger belongs elsewhere, its id here.
const DefaultMaxDataBytes = 64 << 10

// A Message is one event in a room. Once handed to publish it is not changed any more; whoever holds it may read it.
type Message struct {
	ID        ID
	Type      Type
	Room      Room
	From      string // user id, or what the backend said; empty: the server
	Data      []byte // JSON text, byte for byte as published
	Timestamp int64  // Unix milliseconds: when it was accepted, or what the backend said
	Ephemeral bool   // for members connected now; in no history

	ExcludeSessions []string // sessions that do not get it
	ExcludeUsers    []string // users that do not get it on any session

	Trace *Trace // nil unless its publish is traced and sampled. It goes to every node with the message, and to no session
}

// Trace names the span of a message's publish, in the 25 bytes of W3C's trace context: nodes that fan the message out
// continue it.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	Flags   byte
}

// Excludes tells whether the message is not for this session of this user.
func (m *Message) Excludes(session, user string) bool {
	return slices.Contains(m.ExcludeSessions, session) || user != "" && slices.Contains(m.ExcludeUsers, user)
}

// HasExclusions tells whether Excludes can be true for anyone.
func (m *Message) HasExclusions() bool { return len(m.ExcludeSessions)+len(m.ExcludeUsers) > 0 }

// Time returns Timestamp in UTC.
func (m *Message) Time() time.Time { return time.UnixMilli(m.Timestamp).UTC() }

// Check tells what is wrong with the parts a publisher chooses, as an *Error. maxData is the largest Data in bytes.
// It does not judge who may send which type.
func (m *Message) Check(maxData int) error {
	if err := m.Type.Check(); err != nil {
		return err
	}
	if len(m.From) > MaxFromBytes || !printable(m.From) {
		return &Error{Err: ErrInvalid, Field: "from", Text: fmt.Sprintf("from must be at most %d bytes of printable UTF-8", MaxFromBytes), Limit: MaxFromBytes, Size: len(m.From)}
	}
	if len(m.Data) > maxData {
		return &Error{Err: ErrTooLarge, Field: "data", Text: fmt.Sprintf("data has %d bytes, the limit is %d: send an id and let the receiver fetch the rest", len(m.Data), maxData), Limit: maxData, Size: len(m.Data)}
	}
	if err := CheckJSON(m.Data); err != nil {
		return err
	}
	if m.Type == TypeSystem && hasKey(m.Data, "event") {
		return &Error{Err: ErrInvalidData, Field: "data", Text: "data of type system must not have a key event: it is the server's own"}
	}
	if n := len(m.ExcludeSessions) + len(m.ExcludeUsers); n > MaxExclusions {
		return &Error{Err: ErrInvalid, Field: "exclude_session_ids", Text: fmt.Sprintf("%d exclusions, the limit is %d", n, MaxExclusions), Limit: MaxExclusions, Size: n}
	}
	for _, s := range m.ExcludeSessions {
		if s == "" || len(s) > MaxSessionIDBytes || !printable(s) {
			return &Error{Err: ErrInvalidUser, Field: "exclude_session_ids", Text: fmt.Sprintf("a session id has 1 to %d printable characters", MaxSessionIDBytes)}
		}
	}
	for _, u := range m.ExcludeUsers {
		if err := CheckUser(u); err != nil {
			return &Error{Err: ErrInvalidUser, Field: "exclude_user_ids", Text: err.Error()}
		}
	}
	if m.Timestamp < 0 || m.Timestamp > maxMillis {
		return &Error{Err: ErrInvalid, Field: "timestamp", Text: "timestamp must lie between 1970 and 9999"}
	}
	return nil
}

// maxMillis is the last millisecond of the year 9999: RFC 3339 has four digits for the year.
const maxMillis = 253402300799999
