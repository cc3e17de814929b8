package realtime

import (
	"fmt"
	"log/slog"

	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
)

// Connection is a session. It may be used concurrently, kept, compared, used as a key of a map, and used after the session's
// end.
type Connection interface {
	// ID is the session's id, as its welcome tells it.
	ID() string
	// UserID is who its token names; the ID of an anonymous session.
	UserID() string
	// Rooms lists the rooms it is a member of now; of a session that has ended perhaps none.
	Rooms() []string
	// Send gives a message to this session only. It never waits: a session that does not read is closed as slow. msg is not
	// changed, kept nowhere, and may name any room or none. Errors: ErrInvalid, ErrTooLarge, ErrClosed.
	Send(msg *Message) error
	// Close ends the session. The code is 4003 or one of 4400 to 4499, after which it may come back, or one of 4700 to 4999,
	// after which it must not; another is logged and 4003 takes its place. The reason, at most 123 bytes of UTF-8, is shown to
	// the session. The first close counts.
	Close(code int, reason string)
}

// connection is comparable: two of one session are equal.
type connection struct {
	conn *edge.Conn
	log  *slog.Logger
}

var _ Connection = connection{}

func (c connection) ID() string { return c.conn.ID() }

func (c connection) UserID() string { return c.conn.User() }

func (c connection) Rooms() []string {
	rooms := c.conn.Rooms()
	names := make([]string, len(rooms))
	for i, r := range rooms {
		names[i] = string(r)
	}
	return names
}

func (c connection) Send(msg *Message) error {
	m, err := msg.convert()
	if err != nil {
		return err
	}
	if m.Type.Reserved() && m.Type != message.TypePresence && m.Type != message.TypeError {
		return fmt.Errorf("%w: type %s is the server's own: use chat or a type of your application", ErrInvalid, m.Type)
	}
	if err := m.Check(message.DefaultMaxDataBytes); err != nil {
		return explain(err)
	}
	if c.conn.Send(m) != nil {
		return ErrClosed
	}
	return nil
}

func (c connection) Close(code int, reason string) {
	if code != int(edge.CloseMayReturn) && (code < 4400 || code > 4499) && (code < 4700 || code > 4999) {
		c.log.Warn("close code is not the application's, 4003 takes its place: use 4003, 4400 to 4499 or 4700 to 4999", "session_id", c.ID(), "code", code)
		code = int(edge.CloseMayReturn)
	}
	c.conn.Close(edge.CloseCode(code), reason)
}
