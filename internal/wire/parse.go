// Package wire turns the bytes of a WebSocket into events and makes the headers of the frames that go back (RFC 6455,
// the server's side, no extensions).
//
// It is pure: no input or output, no clock, no goroutine, and it imports nothing of ours. The edge feeds a Parser with
// whatever the socket gave, in pieces of any size, and does what the events say; frame puts AppendHeader's bytes in
// front of its payloads.
//
// It must never hold memory that a peer has only announced, hand out text that is not UTF-8, or put anything of the
// input into the reason of an Error.
package wire

import (
	"cmp"
	"math"
	"unicode/utf8"
)

// What Limits holds unless set.
const (
	DefaultMessageBytes = 64 << 10
	// DefaultFragments leaves a message of DefaultMessageBytes fragments of 256 bytes; a peer that sends smaller ones
	// makes work, not messages.
	DefaultFragments = 256
)

// Limits bound what a peer may send. One value serves any number of parsers; nobody changes it while they are in use.
type Limits struct {
	MessageBytes int  // payload of one message over all its frames; 0: DefaultMessageBytes
	Fragments    int  // frames of one message, empty ones included; 0: DefaultFragments
	Binary       bool // take binary messages too; else one is an Error as soon as its header is seen
}

// Parser takes the bytes of one peer, from behind the handshake on. Its zero value is ready, but takes no pings and
// pongs before Allow. Between messages it is 16 bytes and refers to nothing. It is not safe for concurrent use and must
// not be copied once used.
type Parser struct {
	part    *part // nil between messages
	control int32 // pings and pongs that may still come
	ended   bool  // a Close or an Error was returned
}

// Allow sets how many pings and pongs may come from now until the next Allow; one more is an Error with CodeAbuse. What
// was left before is forgotten. The owner calls it at the rate it grants. A close frame is not counted: it is the last.
func (p *Parser) Allow(n int) { p.control = int32(max(0, min(n, math.MaxInt32))) }

// Partial tells whether a frame or a message has begun and not ended: what the owner sets a deadline for. Bytes behind a
// message may begin the next, so a deadline starts anew when Next has returned a Text or Binary; a Ping or Pong can come
// in the middle of a message and proves nothing.
func (p *Parser) Partial() bool { return p.part != nil }

// Next takes bytes off the front of b and returns how many, with what they complete. It must be called again with the
// rest until it returns None: then all of b was taken. It unmasks in place, so b is overwritten as far as it was taken.
// After a Close or an Error it takes everything and returns None.
//
// Next never blocks. It allocates only for a frame or message that b does not hold whole, and at most in proportion to
// what has arrived of it. l must not be nil.
func (p *Parser) Next(b []byte, l *Limits) (Event, int) {
	if p.ended {
		return Event{}, len(b)
	}
	used := 0
	for {
		if p.part == nil || !p.part.inPayload {
			h, n, whole, f := p.header(b[used:], l)
			if f != nil {
				return p.fail(f), used
			}
			if used += n; !whole {
				return Event{}, used
			}
			if rest := b[used:]; p.alone(h) && int64(len(rest)) >= h.size {
				data := rest[:h.size:h.size]
				unmask(data, h.key)
				return p.complete(h.op, data, false), used + len(data)
			}
			p.begin(h)
		}
		e, n := p.payload(b[used:])
		if used += n; e.Kind != None || p.part.inPayload {
			return e, used
		}
	}
}

// header takes a frame's header off b, over as many calls as it arrives in, and judges it; n bytes of b were taken.
func (p *Parser) header(b []byte, l *Limits) (h header, n int, whole bool, f *fault) {
	q, had := p.part, 0
	if q != nil && q.headLen > 0 {
		had = int(q.headLen)
		b = q.head[:had+copy(q.head[had:], b)]
	}
	h, size, f := decodeHeader(b)
	if f != nil {
		return h, 0, false, f
	}
	if size == 0 {
		p.keepHeader(b)
		return h, len(b) - had, false, nil
	}
	if f := p.admit(h, l); f != nil {
		return h, 0, false, f
	}
	if q != nil {
		q.headLen = 0
	}
	return h, size - had, true, nil
}

// keepHeader keeps b, all there is of a header, for when more of it comes.
func (p *Parser) keepHeader(b []byte) {
	if len(b) == 0 {
		return
	}
	if p.part == nil {
		p.part = new(part)
	}
	p.part.headLen = uint8(copy(p.part.head[:], b))
}

// admit holds a header against what came before it, and against the limits. It must see each header once.
func (p *Parser) admit(h header, l *Limits) *fault {
	var size, frames int
	inMessage := p.part != nil && p.part.op != OpContinuation
	if inMessage {
		size, frames = len(p.part.data), p.part.frames
	}
	switch {
	case h.op == OpClose:
		return nil
	case h.op.control():
		if p.control == 0 {
			return errControlFlood
		}
		p.control--
		return nil
	case h.op == OpContinuation && !inMessage:
		return errNoMessage
	case h.op != OpContinuation && inMessage:
		return errInterleaved
	case h.op == OpBinary && !l.Binary:
		return errBinary
	case h.size > int64(cmp.Or(l.MessageBytes, DefaultMessageBytes)-size):
		return errTooBig
	case frames >= cmp.Or(l.Fragments, DefaultFragments):
		return errFragments
	}
	return nil
}

// alone tells a frame that needs no assembly if all of it is there: a control frame or a message of one frame.
func (p *Parser) alone(h header) bool {
	return h.op.control() || h.fin && (p.part == nil || p.part.op == OpContinuation)
}

// begin makes room for the payload of a frame.
func (p *Parser) begin(h header) {
	if p.part == nil {
		p.part = new(part)
	}
	p.part.begin(h)
}

// payload takes what b has of the payload under way. If the frame is complete afterwards, inPayload is false or the
// event says that there is nothing under way any more.
func (p *Parser) payload(b []byte) (Event, int) {
	q := p.part
	n := q.take(b)
	ended := q.frame.size == 0
	if q.frame.op.control() {
		if !ended {
			return Event{}, n
		}
		data := q.control
		q.inPayload, q.control = false, nil
		return p.complete(q.frame.op, data, true), n
	}
	last := ended && q.frame.fin
	if q.op == OpText && !q.validText(last) {
		return p.fail(errText), n
	}
	q.inPayload = !ended
	if !last {
		return Event{}, n
	}
	p.part = nil
	return Event{Kind: q.op.kind(), Owned: true, Data: q.data}, n
}

// complete makes the event of a whole control frame or message of one frame.
func (p *Parser) complete(op Opcode, data []byte, owned bool) Event {
	if p.part != nil && p.part.op == OpContinuation {
		p.part = nil
	}
	e := Event{Kind: op.kind(), Owned: owned, Data: data}
	switch op {
	case OpText:
		if !utf8.Valid(data) {
			return p.fail(errText)
		}
	case OpClose:
		var f *fault
		if e.Code, e.Data, f = decodeClose(data); f != nil {
			return p.fail(f)
		}
		p.part, p.ended = nil, true
	}
	return e
}

func (p *Parser) fail(f *fault) Event {
	p.part, p.ended = nil, true
	return Event{Kind: Error, Code: f.code, Reason: f.reason}
}
