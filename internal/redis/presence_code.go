package redis

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// What presence writes:
//
//	a field's value  status,since,active,newest,sessions[,info]   numbers in base 36; status 1 away, 2 online
//	a node's totals  online,away,sessions                         in base 36
//	a frame's env    low half (8) ‖ flags (1) ‖ Unix ms (8) ‖ length (1), inc ‖ per change: length, user ‖ length, value
//
// The lengths of a change are varints, an empty value is a user who is gone. Flags are those of all envs: presence is not
// stored (4) and is for nodes only (8).
const maxInfoBytes = 1 << 10

// appendState appends the value of a user who is there.
func appendState(b []byte, s *presence.State) []byte {
	b = strconv.AppendInt(b, int64(s.Status), 36)
	for _, n := range [...]int64{s.Since, s.Active, s.Newest, int64(s.Sessions)} {
		b = append(b, ',')
		b = strconv.AppendInt(b, n, 36)
	}
	if len(s.Info) > 0 {
		b = append(b, ',')
		b = append(b, s.Info...)
	}
	return b
}

// parseState reverts appendState; false: it is not ours.
func parseState(v string) (s presence.State, ok bool) {
	var n [5]int64
	rest, more := v, true
	for i := range n {
		if !more {
			return s, false
		}
		var part string
		part, rest, more = strings.Cut(rest, ",")
		if n[i], ok = parseNumber(part); !ok {
			return s, false
		}
	}
	if n[0] < int64(presence.Away) || n[0] > int64(presence.Online) || n[4] > 1<<31-1 {
		return s, false
	}
	s = presence.State{Status: presence.Status(n[0]), Since: n[1], Active: n[2], Newest: n[3], Sessions: int32(n[4])}
	if more {
		s.Info = []byte(rest)
		if len(s.Info) == 0 || len(s.Info) > maxInfoBytes || !jsontext.Value(s.Info).IsValid() {
			return presence.State{}, false
		}
	}
	return s, true
}

func formatTotals(t presence.Totals) string {
	if t.Users() == 0 && t.Sessions == 0 {
		return ""
	}
	b := strconv.AppendInt(nil, int64(t.Online), 36)
	b = strconv.AppendInt(append(b, ','), int64(t.Away), 36)
	return string(strconv.AppendInt(append(b, ','), int64(t.Sessions), 36))
}

func parseTotals(v string) (t presence.Totals, ok bool) {
	parts := strings.Split(v, ",")
	if len(parts) != 3 {
		return t, false
	}
	for i, to := range [...]*int{&t.Online, &t.Away, &t.Sessions} {
		n, ok := parseNumber(parts[i])
		if !ok || n > 1<<40 { // sums over nodes must not wrap
			return presence.Totals{}, false
		}
		*to = int(n)
	}
	return t, true
}

func parseNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 36, 64)
	return n, err == nil && n >= 0 && n < 1<<53
}

// fieldName is a user's field in the hash of a room.
func fieldName(inc, user string) string { return inc + ":" + escape(user) }

// parseField reverts fieldName.
func parseField(name string) (inc, user string, ok bool) {
	inc, escaped, ok := strings.Cut(name, ":")
	if !ok || inc == "" {
		return "", "", false
	}
	user, ok = unescape(escaped)
	return inc, user, ok && message.CheckUser(user) == nil
}

// presenceFrameOf is the length and env of the frame that tells of changes, of which there is at least one.
func presenceFrameOf(inc string, changes []presence.Field) string {
	b := make([]byte, 4+envHead, 4+envHead+len(inc)+64*len(changes))
	_, _ = rand.Read(b[4:12]) // it never fails
	b[12] = envEphemeral | envChange
	binary.BigEndian.PutUint64(b[13:], uint64(time.Now().UnixMilli()))
	b = append(b, byte(len(inc)))
	b = append(b, inc...)
	var value []byte
	for i := range changes {
		c := &changes[i]
		b = binary.AppendUvarint(b, uint64(len(c.User)))
		b = append(b, c.User...)
		value = value[:0]
		if c.Status != presence.Offline {
			value = appendState(value, &c.State)
		}
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return string(b)
}

// presenceOf is the payload of a frame that tells of presence; mine is false for all other frames and payloads.
func presenceOf(frame string) (payload string, mine bool) {
	rest := frame
	for range 3 {
		var ok bool
		if _, rest, ok = strings.Cut(rest, "|"); !ok {
			return "", false
		}
	}
	if len(rest) < 4+envHead || rest[12]&envVersion != 0 || rest[12]&envChange == 0 {
		return "", false
	}
	return rest[4+envHead:], true
}

// parseChanges are the fields of a payload; false: it is junk, and none of it counts.
func parseChanges(payload string) (fields []presence.Field, inc string, ok bool) {
	inc, rest, ok := cutLen(payload)
	if !ok || inc == "" {
		return nil, "", false
	}
	for rest != "" {
		f := presence.Field{Node: inc}
		var value string
		if f.User, rest, ok = cutLen(rest); !ok || message.CheckUser(f.User) != nil {
			return nil, "", false
		}
		if value, rest, ok = cutLen(rest); !ok {
			return nil, "", false
		}
		if value != "" {
			if f.State, ok = parseState(value); !ok {
				return nil, "", false
			}
		}
		fields = append(fields, f)
	}
	return fields, inc, true
}

// cutLen cuts off what a varint gives the length of.
func cutLen(s string) (part, rest string, ok bool) {
	var head [binary.MaxVarintLen64]byte
	n, size := binary.Uvarint(head[:copy(head[:], s)])
	if size <= 0 || n > uint64(len(s)-size) {
		return "", "", false
	}
	end := size + int(n)
	return s[size:end], s[end:], true
}
