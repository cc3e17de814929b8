package wire

import "encoding/binary"

// Opcode is the four-bit kind of a WebSocket frame (RFC 6455, section 5.2).
type Opcode uint8

// The opcodes RFC 6455 defines; every other value is reserved.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

// The bits and length codes of the first two header bytes.
const (
	finBit       = 0x80
	reservedBits = 0x70
	opcodeBits   = 0x0F
	maskBit      = 0x80
	lengthBits   = 0x7F

	length16 = 126
	length64 = 127

	// maxControl is the longest payload of a close, ping or pong frame.
	maxControl = 125
)

// AppendHeader appends to b the header of a whole, unmasked frame of n payload bytes, its length in the shortest form,
// and returns the longer slice. The caller appends the payload. n must not be negative, and at most 125 for a close,
// ping or pong; AppendHeader does not check.
func AppendHeader(b []byte, op Opcode, n int) []byte {
	b = append(b, finBit|byte(op))
	switch {
	case n < length16:
		return append(b, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(b, length16), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, length64), uint64(n))
	}
}

func (op Opcode) control() bool { return op >= OpClose }

// kind is that of the event which a frame, or a message that begins with it, ends in.
func (op Opcode) kind() Kind {
	switch op {
	case OpText:
		return Text
	case OpBinary:
		return Binary
	case OpPing:
		return Ping
	case OpPong:
		return Pong
	case OpClose:
		return Close
	}
	return None
}

// maxHeader is the longest header a peer can send: two bytes, 64 bits of length, the mask's key.
const maxHeader = 2 + 8 + 4

// header is what the header of a received frame says.
type header struct {
	op   Opcode
	fin  bool
	key  uint32 // of the mask; its first byte is the lowest
	size int64  // of the payload, as claimed
}

// decodeHeader reads the header that b begins with; n is its length, or 0 while b holds only a part of it. It judges
// what can be judged without knowing what came before, the first two bytes as soon as they are there.
func decodeHeader(b []byte) (h header, n int, _ *fault) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h = header{op: Opcode(b[0] & opcodeBits), fin: b[0]&finBit != 0, size: int64(b[1] & lengthBits)}
	if f := h.check(b[0], b[1]); f != nil {
		return h, 0, f
	}
	n = 2 + 4
	switch h.size {
	case length16:
		n += 2
	case length64:
		n += 8
	}
	if len(b) < n {
		return h, 0, nil
	}
	least := int64(0)
	switch h.size {
	case length16:
		h.size, least = int64(binary.BigEndian.Uint16(b[2:])), length16
	case length64:
		h.size, least = int64(binary.BigEndian.Uint64(b[2:])), 1<<16
	}
	switch {
	case h.size < 0:
		return h, 0, errLengthRange
	case h.size < least:
		return h, 0, errLengthForm
	}
	h.key = binary.LittleEndian.Uint32(b[n-4:])
	return h, n, nil
}

// check judges the first two bytes.
func (h header) check(first, second byte) *fault {
	switch {
	case first&reservedBits != 0:
		return errReservedBits
	case second&maskBit == 0:
		return errUnmasked
	case h.op > OpBinary && h.op < OpClose, h.op > OpPong:
		return errReservedOpcode
	case h.op.control() && !h.fin:
		return errControlFragment
	case h.op.control() && h.size > maxControl:
		return errControlLength
	}
	return nil
}
