//go:build !race

package rpc

import (
	"bytes"
	"testing"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestADeliveryAllocatesTheMessageOnly(t *testing.T) {
	d := &delivery{rooms: map[string]*place{"room": {room: "room", live: true}}}
	f := frame.AppendMessage(nil, &message.Message{Type: "chat", Room: "room", From: "u1", Data: []byte(`{"text":"Hello"}`), ID: message.ID{Position: 1, Low: 1 << 63}})
	if n := testing.AllocsPerRun(100, func() { _, _ = d.response(f) }); n != 5 { // the message and its texts: id, room, from, data
		t.Errorf("%v allocations, want 5", n)
	}
	p := ofHub(t)
	in := bytes.Repeat(f, 100)
	once := func() {
		_, _ = p.TryWrite(in)
		for p.fetch() {
			for f := p.next(); f != nil; f = p.next() {
				_ = f
			}
		}
	}
	once()
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("the pipe allocates %v times", n)
	}
}
