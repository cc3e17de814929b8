package frame

// PresenceChange is a user as a room's members are told of him.
type PresenceChange struct {
	UserID string
	Status string
	Since  int64  // Unix ms
	Info   []byte // JSON; empty: absent
}

// AppendPresenceChanges appends the data of a presence message: one change as it is, several as a list. It copies Info.
func AppendPresenceChanges(b []byte, changes []PresenceChange) []byte {
	f := builder{b: b}
	if len(changes) == 1 {
		f.change(changes[0])
		return f.b
	}
	f.b = append(f.b, `{"changes":[`...)
	for i, c := range changes {
		f.item(i)
		f.change(c)
	}
	return append(f.b, "]}"...)
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

// AppendPresenceCounts appends the data of a presence message of a room with too many users to tell of each.
func AppendPresenceCounts(b []byte, users, sessions int) []byte {
	f := builder{b: append(b, '{')}
	f.text("mode", "counts")
	f.number("users", int64(users))
	f.number("sessions", int64(sessions))
	return append(f.b, '}')
}

// AppendPresenceEvents appends the data that says that each user is told of again: who is there is to be asked anew.
func AppendPresenceEvents(b []byte) []byte { return append(b, `{"mode":"events"}`...) }
