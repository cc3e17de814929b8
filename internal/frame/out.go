package frame

import (
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
	Timestamp string
}

// DecodeOut reads the JSON of one of the server's frames (see Payload). Members it does not know are skipped, and it may
// nest as deep as the server likes. The error is a *DecodeError. b must not change while Out.Data is used.
func DecodeOut(b []byte) (Out, error) {
	s := scanObject(b)
	s.deep = false // a history frame holds whole frames, each as deep as may be
	m, err := readMembers(s)
	out := Out{Data: m.data}
	var id string
	for _, f := range []struct {
		name string
		from jsontext.Value
		to   *string
	}{
		{"id", m.id, &id},
		{"room", m.room, &out.Room},
		{"from", m.from, &out.From},
		{"ref", m.ref, &out.Ref},
		{"timestamp", m.timestamp, &out.Timestamp},
	} {
		if err == nil {
			*f.to, err = text(f.name, f.from)
		}
	}
	if err == nil {
		out.Type, err = typeOf(m.typ)
	}
	if err != nil {
		return Out{}, &DecodeError{Code: CodeBadFrame, Text: err.Error()}
	}
	out.ID, _ = message.ParseID(id)
	return out, nil
}
