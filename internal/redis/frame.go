package redis

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

// kind tells what a push is.
type kind uint8

const (
	published kind = iota // messages, in the order of the room
	restored              // one that was lost and is back in its place
	deleted               // history up to first is gone
)

// push is what a room's channel brings, or what a publish of our own has brought about.
type push struct {
	kind  kind
	first message.Position // of the first stored one; the others follow it. 0: none is stored
	prev  message.Position // before it. Nothing stored: the room's tip
	items []item
}

// isRestored tells whether a frame says that something was put back.
func isRestored(s string) bool {
	_, rest, _ := strings.Cut(s[:min(len(s), 32)], "|")
	return strings.HasPrefix(rest, "R|")
}

// maxFrameItems is more than any node puts into one frame.
const maxFrameItems = 1024

// parsePush reads a frame: pos1|prev|n| then n times 4 bytes of length and an envelope. Envelopes of other versions and
// changes of presence are left out; of stored ones the place is kept, as an item without message.
func parsePush(s string, room message.Room) (push, error) {
	var head [3]string
	for i := range head {
		var ok bool
		if head[i], s, ok = strings.Cut(s, "|"); !ok || len(head[i]) > 24 {
			return push{}, errJunk
		}
	}
	var p push
	var ok bool
	if p.first, ok = parseStreamID(head[0]); !ok {
		return push{}, errJunk
	}
	switch head[1] {
	case "R":
		p.kind = restored
	case "D":
		p.kind = deleted
	default:
		if p.prev, ok = parseStreamID(head[1]); !ok {
			return push{}, errJunk
		}
	}
	n, err := strconv.ParseUint(head[2], 10, 16)
	if err != nil || n > maxFrameItems || p.kind == restored && n != 1 || p.kind != published && p.first == 0 {
		return push{}, errJunk
	}
	for range n {
		if len(s) < 4 {
			return push{}, errJunk
		}
		size := int(binary.BigEndian.Uint32([]byte(s[:4])))
		if s = s[4:]; size > len(s) || size < envHead {
			return push{}, errJunk
		}
		env := s[:size]
		s = s[size:]
		it, err := parseEnv(env, room)
		if err != nil || it.m == nil {
			if env[8]&envEphemeral == 0 {
				p.items = append(p.items, item{})
			}
			continue
		}
		p.items = append(p.items, it)
	}
	if s != "" {
		return push{}, errJunk
	}
	return p, nil
}
