package redis

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
)

// Flags of an envelope, its ninth byte. The two highest bits are the version.
const (
	envOriginal  = 1 << iota // 8 bytes: the first half of the id under which it was shown before it was stored
	envExclusive             // some are excluded: a count of 2 bytes, and as often a length byte, u or s, and an id
	envEphemeral             // not stored
	envChange                // a change of presence, no message
	envTraced                // 25 bytes of trace context
	envVersion   = 3 << 6
)

// envHead is low half, flags and timestamp.
const envHead = 17

var (
	errJunk    = errors.New("not of our making")
	errVersion = errors.New("of another version")
)

// item is a message under way, without its position.
type item struct {
	m        *message.Message // nil: a change of presence
	original message.Position // 0: its position is that of the stream
}

// appendEnv appends a message's envelope; original is the position it was shown at before, or 0.
func appendEnv(b []byte, m *message.Message, original message.Position) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(m.ID.Low))
	var flags byte
	if original != 0 {
		flags |= envOriginal
	}
	if m.HasExclusions() {
		flags |= envExclusive
	}
	if m.Ephemeral {
		flags |= envEphemeral
	}
	if m.Trace != nil {
		flags |= envTraced
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Timestamp))
	if original != 0 {
		b = binary.BigEndian.AppendUint64(b, half(original))
	}
	if m.HasExclusions() {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.ExcludeSessions)+len(m.ExcludeUsers)))
		for _, s := range m.ExcludeSessions {
			b = append(append(b, byte(len(s)), 's'), s...)
		}
		for _, s := range m.ExcludeUsers {
			b = append(append(b, byte(len(s)), 'u'), s...)
		}
	}
	if m.Trace != nil {
		b = append(append(append(b, m.Trace.TraceID[:]...), m.Trace.SpanID[:]...), m.Trace.Flags)
	}
	b = appendText(append(b, `{"type":`...), string(m.Type))
	if m.From != "" {
		b = appendText(append(b, `,"from":`...), m.From)
	}
	b = append(append(b, `,"data":`...), m.Data...)
	return append(b, '}')
}

func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // Check holds types and names to UTF-8; what is not, it replaces
	return b
}

// parseEnv reads an envelope of a room. What it returns shares nothing with s.
func parseEnv(s string, room message.Room) (item, error) {
	if len(s) < envHead {
		return item{}, errJunk
	}
	flags := s[8]
	if flags&envVersion != 0 {
		return item{}, errVersion
	}
	if flags&envChange != 0 {
		return item{}, nil
	}
	m := &message.Message{
		ID:        message.ID{Low: message.Low(binary.BigEndian.Uint64([]byte(s[:8])))},
		Timestamp: int64(binary.BigEndian.Uint64([]byte(s[9:envHead]))),
		Room:      room, Ephemeral: flags&envEphemeral != 0,
	}
	it := item{m: m}
	if m.Ephemeral != m.ID.Low.Unstored() && flags&envOriginal == 0 {
		return item{}, errJunk
	}
	s = s[envHead:]
	if flags&envOriginal != 0 {
		if len(s) < 8 {
			return item{}, errJunk
		}
		it.original, s = readHalf(s[:8]), s[8:]
	}
	if flags&envExclusive != 0 {
		var ok bool
		if s, ok = parseExclusions(m, s); !ok {
			return item{}, errJunk
		}
	}
	if flags&envTraced != 0 {
		if len(s) < 25 {
			return item{}, errJunk
		}
		m.Trace = &message.Trace{TraceID: [16]byte([]byte(s[:16])), SpanID: [8]byte([]byte(s[16:24])), Flags: s[24]}
		s = s[25:]
	}
	if err := parsePayload(m, s, false); err != nil {
		return item{}, err
	}
	return it, nil
}

// parseExclusions reads who is excluded and returns what follows.
func parseExclusions(m *message.Message, s string) (string, bool) {
	if len(s) < 2 {
		return "", false
	}
	n := int(s[0])<<8 | int(s[1])
	if n > message.MaxExclusions {
		return "", false
	}
	s = s[2:]
	for range n {
		if len(s) < 2 || len(s) < 2+int(s[0]) {
			return "", false
		}
		who := strings.Clone(s[2 : 2+int(s[0])])
		switch s[1] {
		case 's':
			m.ExcludeSessions = append(m.ExcludeSessions, who)
		case 'u':
			m.ExcludeUsers = append(m.ExcludeUsers, who)
		default:
			return "", false
		}
		s = s[2+len(who):]
	}
	return s, true
}

// parsePayload reads type, from and data. Our own payload ends with data, which is kept byte for byte; a foreign one has
// its members in any order, a timestamp among them if it likes, and others, which are ignored.
func parsePayload(m *message.Message, s string, foreign bool) error {
	dec := jsontext.NewDecoder(strings.NewReader(s))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return errJunk
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return errJunk
		}
		switch name := name.String(); {
		case name == "data" && !foreign:
			at := int(dec.InputOffset()) + 1
			if at >= len(s) || s[at-1] != ':' || s[len(s)-1] != '}' {
				return errJunk
			}
			m.Data = []byte(s[at : len(s)-1])
			return message.CheckJSON(m.Data)
		case name == "data":
			v, err := dec.ReadValue()
			if err != nil {
				return errJunk
			}
			m.Data = v.Clone()
		case name == "type" || name == "from" || name == "timestamp":
			tok, err := dec.ReadToken()
			if err != nil || tok.Kind() != '"' {
				return errJunk
			}
			if !setText(m, name, tok.String()) {
				return errJunk
			}
		default:
			if dec.SkipValue() != nil {
				return errJunk
			}
		}
	}
	if _, err := dec.ReadToken(); err != nil || !foreign || strings.TrimSpace(s[dec.InputOffset():]) != "" {
		return errJunk
	}
	return nil
}

func setText(m *message.Message, name, v string) bool {
	switch name {
	case "type":
		m.Type = message.Type(v)
	case "from":
		m.From = v
	default:
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return false
		}
		m.Timestamp = t.UnixMilli()
	}
	return true
}

// parseForeign reads what another program has published by itself: an ephemeral message without id.
func parseForeign(s string, room message.Room, now time.Time) (item, error) {
	m := &message.Message{Room: room, Ephemeral: true, Timestamp: now.UnixMilli()}
	if len(s) > 2*message.DefaultMaxDataBytes {
		return item{}, errJunk
	}
	if err := parsePayload(m, s, true); err != nil {
		return item{}, err
	}
	if m.Data == nil {
		m.Data = []byte("null")
	}
	if err := m.Check(message.DefaultMaxDataBytes); err != nil {
		return item{}, err
	}
	return item{m: m}, nil
}
