package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// part is what has arrived of a frame, and of a message, that is not complete.
type part struct {
	// The frame under way.
	head      [maxHeader]byte // its header as far as it has come
	headLen   uint8
	inPayload bool
	frame     header // what is still to come of its payload: size, and key turned to the next byte
	control   []byte // payload of a control frame; a message may be under way around it

	// The message under way.
	op      Opcode // OpContinuation: there is none
	frames  int    // that have begun, this one included
	data    []byte
	checked int // bytes of data known to be whole characters
}

// begin starts the payload of a frame whose header was admitted.
func (q *part) begin(h header) {
	q.inPayload, q.frame = true, h
	if h.op.control() {
		return
	}
	q.frames++
	if h.op != OpContinuation {
		q.op = h.op
	}
}

// take unmasks and keeps what b has of the frame's payload, and returns how many bytes that is.
func (q *part) take(b []byte) int {
	if int64(len(b)) > q.frame.size {
		b = b[:q.frame.size]
	}
	unmask(b, q.frame.key)
	q.frame.key = bits.RotateLeft32(q.frame.key, -8*(len(b)&3))
	q.frame.size -= int64(len(b))
	// append, and no sizing by the header: a claim must cost the peer its bytes.
	if q.frame.op.control() {
		q.control = append(q.control, b...)
	} else {
		q.data = append(q.data, b...)
	}
	return len(b)
}

// validText checks what has come since the last time, each byte once, so that text is refused at the first piece it
// cannot be UTF-8 with. Until the last piece it may end inside a character.
func (q *part) validText(last bool) bool {
	b := q.data[q.checked:]
	if !last {
		b = b[:len(b)-openBytes(b)]
	}
	q.checked += len(b)
	return utf8.Valid(b)
}

// openBytes is the length of a character that b ends inside of: 0 to 3. One that no further byte can mend is not open.
func openBytes(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if !utf8.RuneStart(tail[0]) {
			continue
		}
		if utf8.FullRune(tail) {
			return 0
		}
		return n
	}
	return 0
}

// unmask applies the key of a mask to b, whose first byte belongs to the key's lowest.
func unmask(b []byte, key uint32) {
	if key == 0 {
		return
	}
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}

// decodeClose reads the payload of a close frame.
func decodeClose(b []byte) (code uint16, reason []byte, _ *fault) {
	switch len(b) {
	case 0:
		return CodeNone, nil, nil
	case 1:
		return 0, nil, errCloseLength
	}
	code, reason = binary.BigEndian.Uint16(b), b[2:]
	switch {
	case !sendable(code):
		return 0, nil, errCloseCode
	case !utf8.Valid(reason):
		return 0, nil, errCloseReason
	}
	return code, reason, nil
}

// sendable tells whether a code may stand in a close frame: those that RFC 6455 and IANA's registry define for it
// (1004 is reserved; 1005, 1006 and 1015 only name what happened), and the ranges for libraries and applications.
func sendable(code uint16) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
