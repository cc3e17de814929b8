// Package frame renders everything a session is sent as complete WebSocket frames, and reads what a session sends.
//
// It owns the JSON of the protocol: the members of a frame and their order, the error codes, and which input is
// acceptable. An id lies at the same place in every text frame, so that a frame can be rendered first and stamped when it
// is written. The hub renders messages, the edge own frames and answers; the edge decodes sessions' frames; pipes, the
// bench and the command line decode the server's.
//
// It is pure: it knows no clock and no configuration, keeps nothing it is given, and all its functions may be called
// concurrently. It never judges who may send what, and its error texts never quote what was sent. It does not check a
// message again: data, info and echoes are copied as they are, so they must be JSON that message.CheckJSON accepted.
package frame

import (
	"slices"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/wire"
)

const (
	// idKey begins every text frame's JSON; the 36 characters of the id follow.
	idKey = `{"id":"`
	// hole stands where an own frame's id will be. It is no id of ours, so ReadID tells it from a stamped one.
	hole = "00000000-0000-0000-0000-000000000000"
)

// AppendMessage appends m to b as one text frame. It allocates nothing if b has the room. Empty Data is shown as null.
func AppendMessage(b []byte, m *message.Message) []byte {
	size := objectSize(m)
	b, start := reserve(b, size)
	return seal(appendObject(b, m), start, wire.OpText, headerSize(size))
}

// appendObject appends the JSON object of a message.
func appendObject(b []byte, m *message.Message) []byte {
	b = append(b, idKey...)
	b = m.ID.AppendTo(b)
	b = appendQuoted(append(b, `","type":`...), string(m.Type))
	b = appendQuoted(append(b, `,"room":`...), string(m.Room.Shown()))
	if m.From != "" {
		b = appendQuoted(append(b, `,"from":`...), m.From)
	}
	b = appendJSON(append(b, `,"data":`...), m.Data)
	b = appendTime(append(b, `,"timestamp":`...), m.Timestamp)
	return append(b, '}')
}

// objectSize is how long appendObject's result is if no string needs escaping; never more.
func objectSize(m *message.Message) int {
	n := len(idKey) + len(`","type":"","room":"","data":,"timestamp":}`) + message.IDBytes + timeBytes
	n += len(m.Type) + len(m.Room.Shown()) + max(len(m.Data), len("null"))
	if m.From != "" {
		n += len(`,"from":""`) + len(m.From)
	}
	return n
}

// Stamp writes id into a text frame that this package rendered; f must begin with its header. It allocates nothing.
func Stamp(f []byte, id message.ID) {
	at := headerLen(f) + len(idKey)
	id.AppendTo(f[at:at:(at + message.IDBytes)])
}

// ReadID returns the id of a text frame that this package rendered. It is false for a frame that has none: a control
// frame, or an own frame that was not stamped.
func ReadID(f []byte) (message.ID, bool) {
	at := headerLen(f) + len(idKey)
	if !IsText(f) || len(f) < at+message.IDBytes {
		return message.ID{}, false
	}
	return message.ParseID(f[at : at+message.IDBytes])
}

// HasID tells a frame with an id, or with the place for one that Stamp fills.
func HasID(f []byte) bool {
	at := headerLen(f)
	return IsText(f) && len(f) >= at+len(idKey)+message.IDBytes && string(f[at:at+len(idKey)]) == idKey
}

// IsText tells a text frame from a ping, pong or close.
func IsText(f []byte) bool { return len(f) > 0 && f[0]&0x0F == byte(wire.OpText) }

// Payload returns what follows the header of a rendered frame: of a text frame the JSON. It aliases f.
func Payload(f []byte) []byte {
	return f[min(headerLen(f), len(f)):]
}

// headerLen is how long the header is that f begins with.
func headerLen(f []byte) int {
	switch {
	case len(f) < 2 || f[1] < 126:
		return 2
	case f[1] == 126:
		return 4
	default:
		return 10
	}
}

// headerSize is how long the header of a frame of n bytes is.
func headerSize(n int) int {
	switch {
	case n < 126:
		return 2
	case n <= 0xFFFF:
		return 4
	default:
		return 10
	}
}

// reserve makes room for a payload of about n bytes behind a header, whose place it skips. It returns where the frame
// starts.
func reserve(b []byte, n int) ([]byte, int) {
	head := headerSize(n)
	start := len(b)
	b = slices.Grow(b, head+n)
	return b[:start+head], start
}

// seal writes the header of the frame that starts at start in front of its payload, for which head bytes were left. A
// payload whose header takes more or fewer is moved.
func seal(b []byte, start int, op wire.Opcode, head int) []byte {
	n := len(b) - start - head
	if need := headerSize(n); need != head {
		b = slices.Grow(b, max(0, need-head))
		payload := b[start+head : start+head+n]
		b = b[:start+need+n]
		copy(b[start+need:], payload)
	}
	wire.AppendHeader(b[:start], op, n)
	return b
}
