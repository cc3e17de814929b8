package frame

import "github.com/slack5/realtime/internal/message"

// Own frames are the server's answers and news for one session, or for the members of a room. Each Append appends one
// text frame whose timestamp is now (Unix milliseconds) and whose id is a hole for Stamp. A Ref is what the frame that is
// answered carried; empty: absent. A Room is shown as sessions call it; empty: absent. Times are Unix milliseconds.

// Welcome is the first frame of a session.
type Welcome struct {
	Session, User, Node string
	Time                int64
	Expires             int64 // of the token; 0: never
	PingMS              int
	MaxFrame            int // bytes
	MaxRooms            int
}

// protocolVersion is what Welcome tells; it grows only with a change that sessions could not ignore.
const protocolVersion = 1

// Append appends the frame.
func (w Welcome) Append(b []byte, now int64) []byte {
	f := event(b, "welcome", "")
	f.text("session", w.Session)
	f.text("user", w.User)
	f.text("node", w.Node)
	f.time("time", w.Time)
	f.expires(w.Expires)
	f.number("ping_ms", int64(w.PingMS))
	f.number("max_frame", int64(w.MaxFrame))
	f.number("max_rooms", int64(w.MaxRooms))
	f.number("protocol", protocolVersion)
	return f.end(now, "")
}

// expires appends when a token ends, unless it does not.
func (f *builder) expires(ms int64) {
	if ms != 0 {
		f.time("expires", ms)
	}
}

// Expiring warns that the session's token ends.
type Expiring struct{ InMS int64 }

// Append appends the frame.
func (e Expiring) Append(b []byte, now int64) []byte {
	f := event(b, "expiring", "")
	f.number("in_ms", e.InMS)
	return f.end(now, "")
}

// Renewed says that a new token was taken.
type Renewed struct {
	Ref     string
	Expires int64 // 0: never
}

// Append appends the frame.
func (r Renewed) Append(b []byte, now int64) []byte {
	f := event(b, "renewed", "")
	f.expires(r.Expires)
	return f.end(now, r.Ref)
}

// Reconnect announces that the server will close the session.
type Reconnect struct{ InMS int64 }

// Append appends the frame.
func (r Reconnect) Append(b []byte, now int64) []byte {
	f := event(b, "reconnect", "")
	f.number("in_ms", r.InMS)
	return f.end(now, "")
}

// Ack says that a message was taken.
type Ack struct {
	Room      message.Room
	Ref       string
	ID        message.ID // zero: it was taken, but not published
	Degraded  bool
	Duplicate bool
}

// Append appends the frame.
func (a Ack) Append(b []byte, now int64) []byte {
	f := begin(b, message.TypeAck, a.Room, ownBytes)
	f.id("id", a.ID)
	f.flag("degraded", a.Degraded)
	f.flag("duplicate", a.Duplicate)
	return f.end(now, a.Ref)
}

// Pong answers a session's ping frame, and gives its data back as it was. It copies Data.
type Pong struct {
	Ref  string
	Data []byte // JSON; nil is null
}

// Append appends the frame.
func (p Pong) Append(b []byte, now int64) []byte {
	f := envelope(b, message.TypePong, "", ownBytes+len(p.Data))
	f.json("data", p.Data)
	return f.close(now, p.Ref)
}

// Own is a frame of any type for one session only. It copies Data.
type Own struct {
	Type message.Type
	Room message.Room
	From string // empty: absent
	Data []byte // JSON; nil is null
}

// Append appends the frame.
func (o Own) Append(b []byte, now int64) []byte {
	f := envelope(b, o.Type, o.Room, ownBytes+len(o.Data))
	f.optional("from", o.From)
	f.json("data", o.Data)
	return f.close(now, "")
}

// Error says why something was not done. Text must be fit for the one who gets it and quote nothing of what was sent.
type Error struct {
	Room         message.Room
	Ref          string
	Code         Code
	Text         string
	RetryAfterMS int64 // 0: absent, unless the code is Retryable
	TraceID      string
}

// Append appends the frame.
func (e Error) Append(b []byte, now int64) []byte {
	f := begin(b, message.TypeError, e.Room, ownBytes)
	f.text("code", string(e.Code))
	f.text("error", e.Text)
	if e.RetryAfterMS > 0 || e.Code.Retryable() {
		f.number("retry_after_ms", max(e.RetryAfterMS, 0))
	}
	f.optional("trace_id", e.TraceID)
	return f.end(now, e.Ref)
}
