// Package realtime puts rooms of messages into your program: browsers connect over WebSocket, join rooms and receive JSON in
// one order, and after a lost connection they continue where they were. It is the realtime service without its listeners:
// the same rooms, ids, resuming and presence, spoken by the same protocol.
//
// The shortest program:
//
//	hub := realtime.NewHub(logger)
//	go hub.Run(ctx) // and wait for it before main returns
//	http.Handle("/ws/", realtime.NewHandler(hub, logger, realtime.HandlerConfig{}))
//
// A browser then says new WebSocket("ws://host/ws/general") and is in the room general. What it sends reaches everybody there,
// and so does what the program says with [Hub.Publish] or [Hub.Broadcast].
//
// A [Hub] holds the rooms; a program has one. [NewRedisBroadcaster] has it share them with the hubs of other processes. A [Handler] lets sessions in, with rules of its own; a hub may have several. A
// [Connection] is one session, as the callbacks of [HandlerConfig] get it. Everything may be used concurrently.
//
// The package opens no listener, reads no flags, keeps no global state, and links neither gRPC nor an exporter of metrics.
package realtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

// Errors, to be matched with errors.Is. Their texts say more: what was wrong, the limit, and what to do.
var (
	// ErrNotRunning: Run was not called in time, or has ended. Nothing was published.
	ErrNotRunning = errors.New("realtime: the hub is not running")
	// ErrClosed: the session has ended.
	ErrClosed = errors.New("realtime: the session has ended")
	// ErrTooLarge: Data has more than 64 KiB.
	ErrTooLarge = errors.New("realtime: message too large")
	// ErrInvalid: a field of the message, or the name of a room, is against its rule.
	ErrInvalid = errors.New("realtime: invalid message")
	// ErrOverloaded: the room's members cannot keep up. Nothing was published; it may be tried again.
	ErrOverloaded = errors.New("realtime: the room takes no more at the moment, try again later")
	// ErrUnavailable: Redis is away, and HubConfig.RejectWhenDegraded set, or too much waits for Redis already. Nothing was
	// published.
	ErrUnavailable = errors.New("realtime: redis is away, try again later")
)

// MessageType says what a message is. Applications add their own: 1 to 64 of a-z 0-9 _ . -, beginning with a letter.
type MessageType string

// Types with a meaning of their own.
const (
	MessageTypeChat         MessageType = "chat"         // from a user; the only one that sessions send to rooms
	MessageTypePresence     MessageType = "presence"     // who is there: PresenceData. Never in a room's history
	MessageTypeNotification MessageType = "notification" // for users, from the program
	MessageTypeSystem       MessageType = "system"       // an announcement of the program's. Data must not have a key event: that is the server's own news
	MessageTypeError        MessageType = "error"        // something was wrong. Never in a room's history
	MessageTypePing         MessageType = "ping"         // a session's, answered with a pong; the program sends neither
	MessageTypePong         MessageType = "pong"
)

// Message is one frame, in the JSON of the protocol.
type Message struct {
	ID        string          `json:"id,omitempty"`       // tells it from all others, and orders those of a room: what a session names as last_id. The server's to choose
	Type      MessageType     `json:"type"`               // "" is chat
	Room      string          `json:"room,omitempty"`     // "": see where the message goes
	From      string          `json:"from,omitempty"`     // at most 128 bytes of printable text; "": the server
	Data      json.RawMessage `json:"data"`               // one JSON value of at most 64 KiB, kept as written; nil is null
	Timestamp time.Time       `json:"timestamp,omitzero"` // to the millisecond; zero: when the server takes it
}

// PresenceStatus is whether a user is there.
type PresenceStatus string

// A user of several sessions has the best of their statuses, in this order.
const (
	PresenceOnline  PresenceStatus = "online"
	PresenceAway    PresenceStatus = "away"
	PresenceOffline PresenceStatus = "offline"
)

// PresenceData is the data of a presence message, and an entry of Hub.Presence.
type PresenceData struct {
	Status PresenceStatus `json:"status"`
	UserID string         `json:"user_id"`
}

// SystemMessage makes a message of the server's own: without From, and for everyone unless a Room is set. The error is that of
// encoding data as JSON.
func SystemMessage(typ MessageType, data any) (*Message, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("realtime: data of a message: %w", err)
	}
	return &Message{Type: typ, Data: b}, nil
}

// convert makes the core's message, which shares nothing with m. Only the room's name is checked: "" stays.
func (m *Message) convert() (*message.Message, error) {
	if m == nil {
		return nil, fmt.Errorf("%w: it is nil", ErrInvalid)
	}
	if m.Room != "" {
		if _, err := message.ParseRoom(m.Room); err != nil {
			return nil, explain(err)
		}
	}
	c := &message.Message{Type: message.Type(m.Type), Room: message.Room(m.Room), From: m.From, Data: bytes.Clone(m.Data)}
	if c.Type == "" {
		c.Type = message.TypeChat
	}
	if len(c.Data) == 0 {
		c.Data = []byte("null")
	}
	if !m.Timestamp.IsZero() {
		c.Timestamp = m.Timestamp.UnixMilli()
	}
	return c, nil
}

// explain says what the core reports in the terms of this package.
func explain(err error) error {
	if bad, ok := errors.AsType[*message.Error](err); ok {
		if errors.Is(bad, message.ErrTooLarge) {
			return fmt.Errorf("%w: %s", ErrTooLarge, bad.Text)
		}
		return fmt.Errorf("%w: %s", ErrInvalid, bad.Text)
	}
	switch {
	case errors.Is(err, hub.ErrOverloaded), errors.Is(err, broker.ErrOverloaded):
		return ErrOverloaded
	case errors.Is(err, broker.ErrUnavailable):
		return ErrUnavailable
	case errors.Is(err, broker.ErrClosed):
		return ErrNotRunning
	}
	return fmt.Errorf("realtime: %w", err)
}
