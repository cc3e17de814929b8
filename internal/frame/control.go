package frame

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/slack5/realtime/internal/wire"
)

// maxControl is the longest payload of a control frame (RFC 6455, section 5.5), maxReason what a close code leaves of it.
const (
	maxControl = 125
	maxReason  = maxControl - 2
)

// Codes that stand for a close frame without a code, or without a frame at all, and must not be in one (RFC 6455, 7.4.1).
const (
	closeNoStatus = 1005
	closeAbnormal = 1006
	closeTLS      = 1015
)

// AppendPing appends a ping without payload.
func AppendPing(b []byte) []byte { return wire.AppendHeader(b, wire.OpPing, 0) }

// AppendPong appends the answer to a ping with this payload, of which more than 125 bytes cannot have come.
func AppendPong(b, payload []byte) []byte {
	payload = payload[:min(len(payload), maxControl)]
	return append(wire.AppendHeader(b, wire.OpPong, len(payload)), payload...)
}

// AppendClose appends a close frame. A reason above 123 bytes is cut between characters. The codes that are never sent
// (1005, 1006, 1015) give a close frame without code and reason.
func AppendClose(b []byte, code int, reason string) []byte {
	switch code {
	case closeNoStatus, closeAbnormal, closeTLS:
		return wire.AppendHeader(b, wire.OpClose, 0)
	}
	reason = cut(strings.ToValidUTF8(reason, "\uFFFD"), maxReason)
	b = wire.AppendHeader(b, wire.OpClose, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// cut shortens valid UTF-8 to at most n bytes, whole characters only.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
