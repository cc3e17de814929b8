package redis

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

// streamID is a position as Redis writes it; none is empty.
func streamID(p message.Position) string {
	if p == 0 {
		return ""
	}
	var b [24]byte
	s := strconv.AppendInt(b[:0], p.Millis(), 10)
	return string(strconv.AppendInt(append(s, '-'), int64(p.Seq()), 10))
}

// parseStreamID reads a position; empty is none. What Redis gave by itself may have a sequence number that no position
// has: then it is not ours.
func parseStreamID(s string) (message.Position, bool) {
	if s == "" {
		return 0, true
	}
	a, b, ok := strings.Cut(s, "-")
	ms, err := strconv.ParseUint(a, 10, 48)
	seq, err2 := strconv.ParseUint(b, 10, 12)
	return message.At(int64(ms), int(seq)), ok && err == nil && err2 == nil && (ms > 0 || seq > 0)
}

// half is the first half of an id's UUID, for a position.
func half(p message.Position) uint64 { return uint64(p.Millis())<<16 | 7<<12 | uint64(p.Seq()) }

// readHalf is the position in the first half of a UUID.
func readHalf(s string) message.Position {
	h := binary.BigEndian.Uint64([]byte(s))
	return message.At(int64(h>>16), int(h&0xfff))
}
