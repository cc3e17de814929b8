package message

// Flags tell how an entry came.
type Flags uint8

const (
	// Belated: restored behind newer entries that were delivered already. Its position lies before theirs.
	Belated Flags = 1 << iota
	// Degraded: delivered on this node while the broker was away.
	Degraded
	// Ephemeral: in no history. Its position is the last stored one, its low half has P set.
	Ephemeral
	// Shown: it came before, as Degraded, and now has its place. Nobody gets it again.
	Shown
)

// Entry is a message in its place.
type Entry struct {
	Message *Message
	Prev    Position // position of the stored entry before it; 0: there was none, or it is not stored
	Flags   Flags
}

// Query asks for a part of a room's history.
type Query struct {
	Room     Room
	From     Position // exclusive. Backward: 0 means from the newest
	Backward bool     // towards the past
	Limit    int      // entries
	Bytes    int      // of data and names, about; at least one entry comes whatever its size. 0: no bound
}

// Page is an answer to a Query.
type Page struct {
	Entries []Entry  // oldest first, whatever the direction
	More    bool     // in the direction asked there is more
	Tip     Position // of the newest entry that was ever stored and is still known; 0: none
	Cut     Position // history was deleted up to here
	Lost    bool     // backward, without More: what lay before the first entry was lost, for it would be kept still
	// Since is how far back the broker can vouch for a room: a position at or after it, before which no entry is known, has
	// missed nothing. One before it may have.
	Since Position
}

// Truncated tells whether something that followed after is no longer kept; the page was asked for from there, forwards.
func (p Page) Truncated(after Position) bool {
	if p.Cut > after {
		return true
	}
	if len(p.Entries) == 0 {
		return p.Tip > after || p.Tip == 0 && after < p.Since
	}
	first := p.Entries[0].Prev
	return first > after || first == 0 && after < p.Since
}

// GapReason says why messages cannot be delivered. The values are the protocol's words.
type GapReason string

// Reasons of a gap.
const (
	GapExpired         GapReason = "expired"          // older than what history keeps
	GapUnknownPosition GapReason = "unknown_position" // the room does not know the position
	GapLimit           GapReason = "limit"            // more than a resume may bring, or history not readable in time
	GapDeleted         GapReason = "deleted"          // history was deleted
	GapLost            GapReason = "lost"             // the broker lost it
)
