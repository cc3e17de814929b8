package frame

// PresenceChange is what a room's members are told of a user.
type PresenceChange struct {
	UserID string
	Status string // "online", "away" or "offline"
	Since  int64  // when the user came, or left; Unix milliseconds
	Info   []byte // JSON; empty: absent
}

// AppendPresence appends the data of a presence message: one change by itself, several as a list.
func AppendPresence(b []byte, changes []PresenceChange) []byte {
	f := builder{b: b}
	if len(changes) == 1 {
		f.change(changes[0])
		return f.b
	}
	f.b = append(f.b, '{')
	f.key("changes")
	f.b = append(f.b, '[')
	for i, c := range changes {
		f.item(i)
		f.change(c)
	}
	return append(f.b, ']', '}')
}

func (f *builder) change(c PresenceChange) {
	f.b = append(f.b, '{')
	f.text("status", c.Status)
	f.text("user_id", c.UserID)
	f.time("since", c.Since)
	if len(c.Info) > 0 {
		f.json("info", c.Info)
	}
	f.b = append(f.b, '}')
}

// AppendCounts appends the data of a presence message in a room that tells numbers instead of changes.
func AppendCounts(b []byte, users, sessions int) []byte {
	f := builder{b: append(b, '{')}
	f.text("mode", "counts")
	f.number("users", int64(users))
	f.number("sessions", int64(sessions))
	return append(f.b, '}')
}

// AppendEvents appends the data of the presence message after which a room tells changes again.
func AppendEvents(b []byte) []byte {
	return append(b, `{"mode":"events"}`...)
}
