package frame

import "github.com/slack5/realtime/internal/message"

// Subscribed says that the session is a member of a room, and how its resume went.
type Subscribed struct {
	Room      message.Room
	Ref       string
	Resumed   bool // false: there was nothing to resume, Recovered is not shown
	Recovered bool
	Replayed  int
	LastID    message.ID        // the room's position; zero: absent
	Reason    message.GapReason // of the gap, if not recovered
	OldestID  message.ID        // zero: absent
	Counts    bool              // Users and Sessions are known and may be seen
	Users     int
	Sessions  int
	Presence  string // "events", "counts" or "off"
	Grants    string // of "rwph"
	ByServer  bool   // the session asked for the room neither by URL nor by frame
}

// Append appends the frame.
func (s Subscribed) Append(b []byte, now int64) []byte {
	f := event(b, "subscribed", s.Room)
	if s.Resumed {
		f.bool("recovered", s.Recovered)
	}
	f.number("replayed", int64(s.Replayed))
	f.id("last_id", s.LastID)
	f.optional("reason", string(s.Reason))
	f.id("oldest_id", s.OldestID)
	if s.Counts {
		f.number("users", int64(s.Users))
		f.number("sessions", int64(s.Sessions))
	}
	f.text("presence", s.Presence)
	f.text("grants", s.Grants)
	if s.ByServer {
		f.text("by", "server")
	}
	return f.end(now, s.Ref)
}

// Unsubscribed says that nothing of the room follows.
type Unsubscribed struct {
	Room   message.Room
	Ref    string
	Reason string // "requested", "permission" or "operator"
}

// Append appends the frame.
func (u Unsubscribed) Append(b []byte, now int64) []byte {
	f := event(b, "unsubscribed", u.Room)
	f.text("reason", u.Reason)
	return f.end(now, u.Ref)
}

// Gap stands where messages of a room are missing.
type Gap struct {
	Room   message.Room
	After  message.ID // the last before it; zero: absent
	Before message.ID // the first behind it; zero: absent
	Reason message.GapReason
}

// Append appends the frame.
func (g Gap) Append(b []byte, now int64) []byte {
	f := event(b, "gap", g.Room)
	f.id("after", g.After)
	f.id("before", g.Before)
	f.text("reason", string(g.Reason))
	return f.end(now, "")
}

// Outage says that a room reaches this node's members only, or again all.
type Outage struct {
	Room     message.Room // "": all rooms
	Restored bool
}

// Append appends the frame. The room is named twice: data says what is meant, the frame's own room whose position its id
// carries.
func (o Outage) Append(b []byte, now int64) []byte {
	name := "degraded"
	if o.Restored {
		name = "restored"
	}
	f := event(b, name, o.Room)
	f.name("room", o.Room)
	return f.end(now, "")
}

// Who answers a who frame: a page of a room's members.
type Who struct {
	Room     message.Room
	Ref      string
	Members  []Member
	Users    int // in the room, not on the page
	Sessions int
	Next     string // where the next page begins; "": this is the last
}

// Member is a user in a room.
type Member struct {
	UserID   string
	Status   string
	Since    int64
	Sessions int
	Info     []byte // JSON; empty: absent
}

// Append appends the frame.
func (w Who) Append(b []byte, now int64) []byte {
	f := begin(b, message.TypePresence, w.Room, ownBytes+len(w.Members)*ownBytes/2)
	f.key("members")
	f.b = append(f.b, '[')
	for i, m := range w.Members {
		f.item(i)
		f.b = append(f.b, '{')
		f.text("user_id", m.UserID)
		f.text("status", m.Status)
		f.time("since", m.Since)
		f.number("sessions", int64(m.Sessions))
		if len(m.Info) > 0 {
			f.json("info", m.Info)
		}
		f.b = append(f.b, '}')
	}
	f.b = append(f.b, ']')
	f.number("users", int64(w.Users))
	f.number("sessions", int64(w.Sessions))
	f.optional("next", w.Next)
	return f.end(now, w.Ref)
}

// History answers a history frame: a page of a room's messages.
type History struct {
	Room      message.Room
	Ref       string
	Messages  []*message.Message // oldest first
	Next      string             // where the next page begins; "": there is none
	Truncated bool               // what follows the id asked for is no longer kept
}

// Append appends the frame.
func (h History) Append(b []byte, now int64) []byte {
	size := ownBytes
	for _, m := range h.Messages {
		size += objectSize(m) + 1
	}
	f := begin(b, message.TypeHistory, h.Room, size)
	f.key("messages")
	f.b = append(f.b, '[')
	for i, m := range h.Messages {
		f.item(i)
		f.b = appendObject(f.b, m)
	}
	f.b = append(f.b, ']')
	f.optional("next", h.Next)
	f.flag("truncated", h.Truncated)
	return f.end(now, h.Ref)
}

// item separates the i-th element of an array from the one before it.
func (f *builder) item(i int) {
	if i > 0 {
		f.b = append(f.b, ',')
	}
}
