package bench

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/wire"
)

// A published message's data is {"bench":"PPPP-SSSSSSSS-TTTTTTTTTTTTTTTT","pad":"xx…"}, P the publisher, S its sequence
// number and T the time of sending in nanoseconds, all hex. Every part has a fixed width, so a reader compares and never
// searches.
const (
	markKey   = `{"bench":"`
	markBytes = 4 + 1 + 8 + 1 + 16
	padKey    = `","pad":"`
	markEnd   = `"}`
	// minSize is the smallest data there can be.
	minSize = len(markKey) + markBytes + len(padKey) + len(markEnd)
)

// author is what a message is: whose and which, in one number.
type author uint64

func authorOf(publisher int, seq uint32) author { return author(publisher)<<32 | author(seq) }

func (a author) publisher() int { return int(a >> 32) }
func (a author) seq() uint32    { return uint32(a) }

// appendData appends data of size bytes, which must be at least minSize.
func appendData(b []byte, a author, sent int64, size int) []byte {
	end := len(b) + size
	b = append(b, markKey...)
	b = appendHex(b, uint64(a.publisher()), 4)
	b = appendHex(append(b, '-'), uint64(a.seq()), 8)
	b = appendHex(append(b, '-'), uint64(sent), 16)
	b = append(b, padKey...)
	b = slices.Grow(b, max(0, end-len(b)))
	for len(b) < end-len(markEnd) {
		b = append(b, 'x')
	}
	return append(b, markEnd...)
}

func appendHex(b []byte, v uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		b = append(b, "0123456789abcdef"[v>>(4*i)&15])
	}
	return b
}

// readMark reads the mark that data begins with; false if it is not ours.
func readMark(data []byte) (mark [markBytes]byte, a author, sent int64, ok bool) {
	if len(data) < minSize || string(data[:len(markKey)]) != markKey {
		return mark, 0, 0, false
	}
	copy(mark[:], data[len(markKey):])
	if mark[4] != '-' || mark[13] != '-' {
		return mark, 0, 0, false
	}
	p, err1 := strconv.ParseUint(string(mark[:4]), 16, 16)
	n, err2 := strconv.ParseUint(string(mark[5:13]), 16, 32)
	t, err3 := strconv.ParseInt(string(mark[14:]), 16, 64)
	return mark, authorOf(int(p), uint32(n)), t, err1 == nil && err2 == nil && err3 == nil
}

// maxFrame is the largest frame a server is believed.
const maxFrame = 16 << 20

var errFrame = errors.New("the server broke RFC 6455")

// nextFrame takes a server's frame off the front of b: opcode, payload and length; a length of 0 means that b does not
// hold all of it. The server of this protocol neither masks nor fragments.
func nextFrame(b []byte) (op wire.Opcode, payload []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	op = wire.Opcode(b[0] & 0x0f)
	if b[0]&0xf0 != 0x80 || b[1] >= 0x80 {
		return 0, nil, 0, fmt.Errorf("%w: header bytes %#x %#x", errFrame, b[0], b[1])
	}
	head, size := 2, uint64(b[1])
	if size >= 126 {
		head += 2 + int(size-126)*6
		if len(b) < head {
			return 0, nil, 0, nil
		}
		size = 0
		for _, c := range b[2:head] {
			size = size<<8 | uint64(c)
		}
	}
	if size > maxFrame {
		return 0, nil, 0, fmt.Errorf("%w: a frame of %d bytes", errFrame, size)
	}
	if n = head + int(size); len(b) < n {
		return 0, nil, 0, nil
	}
	return op, b[head:n], n, nil
}

// appendMasked appends a session's control frame, payload at most 125 bytes. A mask of zero is a legal mask.
func appendMasked(b []byte, op wire.Opcode, payload []byte) []byte {
	b = append(b, 0x80|byte(op), 0x80|byte(len(payload)), 0, 0, 0, 0)
	return append(b, payload...)
}

// idAt is where the text of an id lies in every frame of ours, behind {"id":" .
const idAt = len(`{"id":"`)

// idText is an id as it stands in a frame.
type idText [message.IDBytes]byte
