package frame

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// Out is a frame that the server sent, as who gets it reads it. What is absent is empty.
type Out struct {
	ID        message.ID // zero: absent, or not stamped
	Type      message.Type
	Room      string // as sessions call it
	From      string
	Ref       string
	Data      jsontext.Value // aliases DecodeOut's argument
	Timestamp time.Time      // zero: absent, or no time
}

// DecodeOut reads the JSON of one of the server's frames (see Payload). Members it does not know are skipped, and it may
// nest as deep as the server likes. It allocates nothing but the texts of Out. The error is a *DecodeError. b must not
// change while Out.Data is used.
func DecodeOut(b []byte) (Out, error) {
	s := scanObject(b)
	s.deep = false // a history frame holds whole frames, each as deep as may be
	m, err := readMembers(s)
	out := Out{Data: m.data}
	var said [5][]byte
	for i, v := range [len(said)]jsontext.Value{m.id, m.room, m.from, m.ref, m.timestamp} {
		if err == nil {
			said[i], err = raw([...]string{"id", "room", "from", "ref", "timestamp"}[i], v)
		}
	}
	if err == nil {
		out.Type, err = typeOf(m.typ)
	}
	if err != nil {
		return Out{}, &DecodeError{Code: CodeBadFrame, Text: err.Error()}
	}
	out.ID, _ = message.ParseID(said[0])
	out.Room, out.From, out.Ref = string(said[1]), string(said[2]), string(said[3])
	if at := (time.Time{}); at.UnmarshalText(said[4]) == nil {
		out.Timestamp = at
	}
	return out, nil
}

// Event is what a system frame of the server's own says, as far as it is about a room.
type Event struct {
	Name          string            // "subscribed", "gap", "degraded", …
	After, Before message.ID        // of a gap; zero: absent
	Reason        message.GapReason // of a gap, or of the one that Incomplete means
	LastID        message.ID        // of subscribed
	Incomplete    bool              // of subscribed: something was to be resumed, and a gap preceded
}

// Event reads what the server itself says; false for whatever others published, an operator's system messages included.
func (o Out) Event() (e Event, own bool) {
	if o.Type != message.TypeSystem || o.Data.Kind() != '{' {
		return Event{}, false
	}
	s := scanObject(o.Data)
	for s.next() {
		said, _ := raw("", s.value)
		switch string(unquote(s.name)) {
		case "event":
			e.Name = string(said)
		case "after":
			e.After, _ = message.ParseID(said)
		case "before":
			e.Before, _ = message.ParseID(said)
		case "reason":
			e.Reason = message.GapReason(said)
		case "last_id":
			e.LastID, _ = message.ParseID(said)
		case "recovered":
			e.Incomplete = s.value.Kind() == 'f'
		}
	}
	if s.close() != nil || e.Name == "" {
		return Event{}, false
	}
	return e, true
}
