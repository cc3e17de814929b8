package frame_test

import (
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// typical is a chat message as most are.
var typical = &message.Message{
	ID: id1, Type: message.TypeChat, Room: "team-7.general", From: "0193a1b2-user-42", Timestamp: moment,
	Data: []byte(`{"text":"Hello, are you coming to the meeting this afternoon?","thread":17}`),
}

func TestRenderingIntoALargeEnoughBufferAllocatesNothing(t *testing.T) {
	escaped := *typical
	escaped.From = strings.Repeat(`é"`, 40)
	escaped.Room = message.UserRoom("u")
	large := *typical
	large.Data = []byte(`"` + strings.Repeat("x", 100_000) + `"`)
	b := make([]byte, 0, 1<<20)
	f := frame.AppendMessage(nil, typical)
	for name, render := range map[string]func(){
		"message":                    func() { frame.AppendMessage(b, typical) },
		"message with escaped texts": func() { frame.AppendMessage(b, &escaped) },
		"large message":              func() { frame.AppendMessage(b, &large) },
		"stamp":                      func() { frame.Stamp(f, id2) },
		"read id":                    func() { frame.ReadID(f) },
		"ack":                        func() { frame.Ack{Room: "r", Ref: "1", ID: id1}.Append(b, moment) },
		"pong":                       func() { frame.Pong{Ref: "1", Data: typical.Data}.Append(b, moment) },
		"error":                      func() { frame.Error{Room: "r", Ref: "1", Code: frame.CodeBusy, Text: "busy"}.Append(b, moment) },
		"ping":                       func() { frame.AppendPing(b) },
		"answer to a ping":           func() { frame.AppendPong(b, f[:10]) },
		"close":                      func() { frame.AppendClose(b, 4000, "slow consumer") },
	} {
		if n := testing.AllocsPerRun(100, render); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	buf := make([]byte, 0, 1024)
	b.SetBytes(int64(len(frame.AppendMessage(nil, typical))))
	b.ReportAllocs()
	for b.Loop() {
		frame.AppendMessage(buf, typical)
	}
}

func BenchmarkAck(b *testing.B) {
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		frame.Ack{Room: "team-7.general", Ref: "17", ID: id1}.Append(buf, moment)
	}
}

func BenchmarkStamp(b *testing.B) {
	f := frame.AppendMessage(nil, typical)
	for b.Loop() {
		frame.Stamp(f, id2)
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, in := range map[string]string{
		"chat":      `{"type":"chat","room":"team-7.general","ref":"17","data":{"text":"Hello, are you coming to the meeting this afternoon?","thread":17}}`,
		"ping":      `{"type":"ping"}`,
		"deep":      `{"type":"chat","data":` + strings.Repeat("[", 60_000),
		"wide":      `{"type":"chat","data":[` + strings.Repeat("{},", 20_000) + `1]}`,
		"64K text":  `{"type":"chat","data":"` + strings.Repeat("x", 64_000) + `"}`,
		"3000 keys": `{"type":"chat"` + keys(3000) + `}`,
	} {
		b.Run(name, func(b *testing.B) {
			f := []byte(in)
			b.SetBytes(int64(len(f)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = frame.Decode(f)
			}
		})
	}
}

// keys are n members with different names.
func keys(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(`,"`)
		for ; i > 0; i /= 26 {
			s.WriteByte(byte('a' + i%26))
		}
		s.WriteString(`":1`)
	}
	return s.String()
}

func BenchmarkDecodeOut(b *testing.B) {
	f := frame.Payload(frame.AppendMessage(nil, typical))
	b.SetBytes(int64(len(f)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := frame.DecodeOut(f); err != nil {
			b.Fatal(err)
		}
	}
}
