package frame

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// maxTypeBytes bounds what may stand as a type; what is longer cannot be one.
const maxTypeBytes = 64

// In is a frame that a session sent. What is absent, and what may be null, is empty.
type In struct {
	Type message.Type   // any text of 1 to 64 bytes: message.Type's own rule is not checked
	Room string         // as sent, not checked
	Ref  string         // at most message.MaxRefRunes characters
	Key  string         // likewise
	Data jsontext.Value // one JSON value as sent, null included; nil: absent. It aliases Decode's argument.
}

// DecodeError says what is wrong with a frame. Text is fit for the session, it quotes nothing of the frame.
type DecodeError struct {
	Code Code
	Ref  string // of the frame, where it could be read
	Text string
}

func (e *DecodeError) Error() string { return e.Text }

// Decode reads one frame of a session, b's JSON text. It accepts one object of valid UTF-8 whose known members have
// their kinds, without duplicate keys anywhere and with no member nested deeper than message.MaxDepth. Members that the
// protocol does not know, and those only the server sets (id, from, timestamp), may be any JSON. Keys match exactly.
//
// The error is a *DecodeError with CodeBadFrame. b must not change while In.Data is used.
func Decode(b []byte) (In, error) {
	m, err := readMembers(scanObject(b))
	ref, refErr := short("ref", m.ref)
	in := In{Ref: ref, Data: m.data}
	if err == nil {
		err = refErr
	}
	if err == nil {
		in.Key, err = short("key", m.key)
	}
	if err == nil {
		in.Room, err = text("room", m.room)
	}
	if err == nil {
		in.Type, err = typeOf(m.typ)
	}
	if err != nil {
		return In{}, &DecodeError{Code: CodeBadFrame, Ref: ref, Text: err.Error()}
	}
	return in, nil
}

// members are the values of the frame's members that mean something, as they stand in the input; nil: absent.
type members struct {
	id, typ, room, from, ref, key, data, timestamp jsontext.Value
}

// readMembers takes a frame apart and closes s. With an error it returns what stands before the fault.
func readMembers(s *scanner) (m members, err error) {
	for s.next() {
		switch string(unquote(s.name)) {
		case "id":
			m.id = s.value
		case "type":
			m.typ = s.value
		case "room":
			m.room = s.value
		case "from":
			m.from = s.value
		case "ref":
			m.ref = s.value
		case "key":
			m.key = s.value
		case "data":
			m.data = s.value
		case "timestamp":
			m.timestamp = s.value
		}
	}
	return m, s.close()
}

// short reads a text of at most message.MaxRefRunes characters.
func short(name string, v jsontext.Value) (string, error) {
	s, err := text(name, v)
	if err == nil && len(s) > message.MaxRefRunes && utf8.RuneCountInString(s) > message.MaxRefRunes {
		return "", fmt.Errorf("%s must be at most %d characters", name, message.MaxRefRunes)
	}
	return s, err
}

// common are the types that frames bear most; those of sessions come first. They are not copied for each frame.
var common = []message.Type{
	message.TypeChat, message.TypePing, message.TypePresence, message.TypeSubscribe, message.TypeUnsubscribe,
	message.TypeWho, message.TypeHistory, message.TypeAuth,
	message.TypeAck, message.TypePong, message.TypeSystem, message.TypeNotification, message.TypeError,
}

func typeOf(v jsontext.Value) (message.Type, error) {
	switch v.Kind() {
	case '"':
	case 'n', 0:
		return "", errors.New("type is missing")
	default:
		return "", errors.New("type must be a string")
	}
	t := unquote(v)
	switch {
	case len(t) == 0:
		return "", errors.New("type is missing")
	case len(t) > maxTypeBytes:
		return "", fmt.Errorf("type must be at most %d bytes", maxTypeBytes)
	}
	if i := slices.IndexFunc(common, func(c message.Type) bool { return string(c) == string(t) }); i >= 0 {
		return common[i], nil
	}
	return message.Type(t), nil
}
