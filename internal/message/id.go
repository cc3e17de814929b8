package message

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Position is a place in a room: milliseconds and a 12-bit sequence number, strictly increasing per room. Zero is no
// position; positions of different rooms compare as times.
type Position uint64

const (
	seqBits  = 12
	seqMask  = 1<<seqBits - 1
	maxMilli = 1<<48 - 1
)

// At is the position of a millisecond and a sequence number (0 to 4095).
func At(ms int64, seq int) Position {
	return Position(uint64(ms)&maxMilli<<seqBits | uint64(seq)&seqMask)
}

// Millis is the time part, in Unix milliseconds.
func (p Position) Millis() int64 { return int64(p >> seqBits) }

// Seq is the sequence part.
func (p Position) Seq() int { return int(p & seqMask) }

// Time is the time part.
func (p Position) Time() time.Time { return time.UnixMilli(p.Millis()).UTC() }

// Next is the smallest position above p: sequence 4095 is followed by the next millisecond's 0.
func (p Position) Next() Position { return p + 1 }

// Before is the position d earlier; never below 1.
func (p Position) Before(d time.Duration) Position {
	if back := Position(d.Milliseconds()) << seqBits; p > back {
		return p - back
	}
	return 1
}

// After is the position d later.
func (p Position) After(d time.Duration) Position { return p + Position(d.Milliseconds())<<seqBits }

// Low is the low half of an id: a message's identity. Two ids with the same low half are the same message.
//
//	10 | 1 bit P | 13 bits room tag | 16 bits node | 32 bits counter
type Low uint64

const (
	variant  = 1 << 63
	unstored = 1 << 61
	tagShift = 48
	tagMask  = 1<<13 - 1
)

// Unstored is the bit P: not itself in the room's history at this position.
func (l Low) Unstored() bool { return l&unstored != 0 }

// Tag is the 13-bit tag of the room the id belongs to.
func (l Low) Tag() uint16 { return uint16(l >> tagShift & tagMask) }

// Node is the number of the node that made it.
func (l Low) Node() uint16 { return uint16(l >> 32) }

// ID is a UUIDv7: position and identity. The zero ID is none.
type ID struct {
	Position Position
	Low      Low
}

// IDBytes is the length of an id as text.
const IDBytes = 36

// IsZero tells the absent id.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string {
	var b [IDBytes]byte // one allocation, not one for each growth
	return string(id.AppendTo(b[:0]))
}

// AppendTo appends the 36 characters of the UUID.
func (id ID) AppendTo(b []byte) []byte {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], uint64(id.Position)>>seqBits<<16|7<<12|uint64(id.Position)&seqMask)
	binary.BigEndian.PutUint64(raw[8:], uint64(id.Low))
	b = hex.AppendEncode(b, raw[:4])
	for _, part := range [...][]byte{raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		b = hex.AppendEncode(append(b, '-'), part)
	}
	return b
}

// ParseID reads an id in the form AppendTo gives, upper case allowed. Anything else is no id.
func ParseID[T string | []byte](s T) (ID, bool) {
	if len(s) != IDBytes || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' || s[14] != '7' {
		return ID{}, false
	}
	var half [2]uint64
	n := 0
	for i := range IDBytes {
		c := s[i]
		switch {
		case c == '-':
			if i != 8 && i != 13 && i != 18 && i != 23 {
				return ID{}, false
			}
			continue
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return ID{}, false
		}
		half[n/16] = half[n/16]<<4 | uint64(c)
		n++
	}
	if half[1]>>62 != 2 {
		return ID{}, false
	}
	return ID{Position: Position(half[0]>>16<<seqBits | half[0]&seqMask), Low: Low(half[1])}, true
}

// A Minter makes all low halves of one node. It is safe for concurrent use.
type Minter struct {
	node    uint16
	counter atomic.Uint32
}

// NewMinter starts at a random count, so that a node that is quickly started again does not repeat itself.
func NewMinter(node uint16) *Minter {
	m := &Minter{node: node}
	m.counter.Store(rand.Uint32())
	return m
}

// Node is the node's number.
func (m *Minter) Node() uint16 { return m.node }

// Low makes the identity of a message of a room with this tag; unstored sets P.
func (m *Minter) Low(tag uint16, notStored bool) Low {
	l := Low(variant | uint64(tag&tagMask)<<tagShift | uint64(m.node)<<32 | uint64(m.counter.Add(1)))
	if notStored {
		l |= unstored
	}
	return l
}
