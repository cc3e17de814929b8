package frame_test

import (
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/wire"
)

const (
	hole   = "00000000-0000-0000-0000-000000000000"
	moment = int64(1768473000123) // 2026-01-15T10:30:00.123Z
)

var (
	id1 = message.ID{Position: message.At(moment, 7), Low: 1<<63 | 0x2a<<48 | 1}
	id2 = message.ID{Position: message.At(moment+1, 0), Low: 1<<63 | 0x2a<<48 | 2}
)

// split checks that f is exactly one whole, unmasked frame with the shortest header, and takes it apart.
func split(t testing.TB, f []byte) (wire.Opcode, []byte) {
	t.Helper()
	if len(f) < 2 {
		t.Fatalf("frame of %d bytes", len(f))
	}
	if f[0]&0xF0 != 0x80 || f[1]&0x80 != 0 {
		t.Fatalf("header %x: want FIN alone, and no mask", f[:2])
	}
	head, n := 2, uint64(f[1])
	switch n {
	case 126:
		head, n = 4, uint64(binary.BigEndian.Uint16(f[2:]))
		if n < 126 {
			t.Fatalf("16 bits of length for %d bytes", n)
		}
	case 127:
		head, n = 10, binary.BigEndian.Uint64(f[2:])
		if n <= 0xFFFF {
			t.Fatalf("64 bits of length for %d bytes", n)
		}
	}
	if uint64(len(f)-head) != n {
		t.Fatalf("header says %d bytes, there are %d", n, len(f)-head)
	}
	return wire.Opcode(f[0] & 0x0F), f[head:]
}

// text is the JSON of a text frame.
func text(t testing.TB, f []byte) string {
	t.Helper()
	op, payload := split(t, f)
	if op != wire.OpText {
		t.Fatalf("opcode %d, want text", op)
	}
	if !json.Valid(payload) {
		t.Fatalf("invalid JSON: %q", payload)
	}
	return string(payload)
}

func TestMessageIsShownInTheProtocolsOrder(t *testing.T) {
	const head = `{"id":"019bc134-78bb-7007-802a-000000000001",`
	tests := []struct {
		name string
		m    message.Message
		want string
	}{
		{
			"all members",
			message.Message{ID: id1, Type: "chat", Room: "general", From: "u42", Data: []byte(`{"text":"Hello"}`), Timestamp: moment},
			head + `"type":"chat","room":"general","from":"u42","data":{"text":"Hello"},"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
		{
			"no from and no data",
			message.Message{ID: id1, Type: "order.paid", Room: "a/b", Timestamp: moment},
			head + `"type":"order.paid","room":"a/b","data":null,"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
		{
			"a user's room is called @me",
			message.Message{ID: id1, Type: "notification", Room: message.UserRoom("u42"), Data: []byte(`1`), Timestamp: moment},
			head + `"type":"notification","room":"@me","data":1,"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
		{
			"data byte for byte",
			message.Message{ID: id1, Type: "chat", Room: message.Global, Data: []byte("{ \"n\" : 9007199254740993.10e+400,\n\"s\":\"<\\u00e9\\/\u2028>\" }"), Timestamp: moment},
			head + `"type":"chat","room":"@global","data":` + "{ \"n\" : 9007199254740993.10e+400,\n\"s\":\"<\\u00e9\\/\u2028>\" }" + `,"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
		{
			"from escaped as far as JSON needs it",
			message.Message{ID: id1, Type: "chat", Room: "r", From: "\"\\\n\x00\x1f<é\u2028>\x7f", Data: []byte(`1`), Timestamp: moment},
			head + `"type":"chat","room":"r","from":"\"\\\u000a\u0000\u001f<é` + "\u2028>\x7f" + `","data":1,"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
		{
			"from that is no UTF-8",
			message.Message{ID: id1, Type: "chat", Room: "r", From: "a\xffb", Data: []byte(`1`), Timestamp: moment},
			head + `"type":"chat","room":"r","from":"a` + "\uFFFD" + `b","data":1,"timestamp":"2026-01-15T10:30:00.123Z"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := text(t, frame.AppendMessage(nil, &tt.m))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHeaderIsShortestWhateverTheSizeAndEscaping(t *testing.T) {
	for _, around := range []int{126, 1 << 16} {
		for _, from := range []string{"", "u", `"`, strings.Repeat("\n", 9), strings.Repeat("é\"", 60)} {
			base := message.Message{ID: id1, Type: "a", Room: "b", From: from, Data: []byte("1")}
			size := len(text(t, frame.AppendMessage(nil, &base)))
			for n := max(1, around-size-2); n < around-size+5; n++ {
				m := base
				m.Data = []byte(strings.Repeat("1", n))
				before := []byte("what came before")
				f := frame.AppendMessage(before, &m)
				got := text(t, f[len(before):])
				if want := string(m.Data); !strings.Contains(got, `"data":`+want+`,`) {
					t.Fatalf("data of %d bytes damaged", n)
				}
				if got := string(f[:len(before)]); got != "what came before" {
					t.Fatalf("the bytes in front are %q", got)
				}
				for _, spare := range []int{0, 2, 4, 6, 8, 10} { // also if the buffer ends where the payload would with another header
					tight := make([]byte, 0, len(got)+spare)
					if again := text(t, frame.AppendMessage(tight, &m)); again != got {
						t.Fatalf("into a buffer of %d bytes: %.200q", cap(tight), again)
					}
				}
				if id, ok := frame.ReadID(f[len(before):]); !ok || id != id1 {
					t.Fatalf("ReadID = %v, %v, want %v", id, ok, id1)
				}
			}
		}
	}
}

func TestTimesAreRFC3339InUTCWithMilliseconds(t *testing.T) {
	const last = 253402300799999
	shown := func(ms int64) string {
		return member(t, text(t, frame.AppendMessage(nil, &message.Message{Type: "a", Room: "b", Timestamp: ms})), "timestamp").(string)
	}
	times := []int64{0, 1, 999, 1000, moment, 951782400000, 1709164800000, last}
	for range 1000 {
		times = append(times, rand.Int64N(last))
	}
	for _, ms := range times {
		if got, want := shown(ms), time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z"); got != want {
			t.Errorf("time %d is shown as %q, want %q", ms, got, want)
		}
	}
	for ms, want := range map[int64]string{
		-1: "1970-01-01T00:00:00.000Z", -1 << 63: "1970-01-01T00:00:00.000Z",
		last + 1: "9999-12-31T23:59:59.999Z", 1<<63 - 1: "9999-12-31T23:59:59.999Z",
	} {
		if got := shown(ms); got != want {
			t.Errorf("time %d is shown as %q, want %q", ms, got, want)
		}
	}
}

// member is one member of a JSON object.
func member(t testing.TB, object, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(object), &m); err != nil {
		t.Fatal(err)
	}
	return m[name]
}

func TestStampFillsTheHoleOfAnOwnFrameAndNothingElse(t *testing.T) {
	for _, size := range []int{1, 200, 70_000} {
		f := frame.Pong{Data: []byte(strings.Repeat("1", size))}.Append(nil, moment)
		before := text(t, f)
		if id, ok := frame.ReadID(f); ok {
			t.Errorf("ReadID of an unstamped frame = %v, want none", id)
		}
		frame.Stamp(f, id1)
		if got, want := text(t, f), strings.Replace(before, hole, id1.String(), 1); got != want {
			t.Errorf("stamped:\n%.200s, want\n%.200s", got, want)
		}
		if id, ok := frame.ReadID(f); !ok || id != id1 {
			t.Errorf("ReadID = %v, %v, want %v", id, ok, id1)
		}
		frame.Stamp(f, id2)
		if id, ok := frame.ReadID(f); !ok || id != id2 {
			t.Errorf("ReadID after a second stamp = %v, %v, want %v", id, ok, id2)
		}
	}
}

func TestOnlyTextFramesHaveAnID(t *testing.T) {
	long := []byte(id1.String() + id1.String() + id1.String())
	frames := map[string][]byte{
		"ping":           frame.AppendPing(nil),
		"pong":           frame.AppendPong(nil, long),
		"pong like text": frame.AppendPong(nil, []byte(`{"id":"`+id1.String()+`"}`)),
		"close":          frame.AppendClose(nil, 1000, string(long)),
		"nothing":        nil,
		"half a header":  {0x81},
		"cut short":      frame.AppendMessage(nil, &message.Message{ID: id1, Type: "a", Room: "b"})[:44],
	}
	for name, f := range frames {
		if _, ok := frame.ReadID(f); ok {
			t.Errorf("%s: ReadID found an id", name)
		}
	}
	for _, name := range []string{"ping", "pong", "close", "nothing"} {
		if frame.IsText(frames[name]) {
			t.Errorf("%s: IsText = true", name)
		}
	}
	if !frame.IsText(frame.Ack{}.Append(nil, 0)) {
		t.Error("an own frame: IsText = false")
	}
}

func TestPayloadIsTheFrameWithoutItsHeader(t *testing.T) {
	for _, size := range []int{0, 1, 200, 70_000} {
		f := frame.Pong{Data: []byte(strings.Repeat("1", size))}.Append(nil, moment)
		if _, want := split(t, f); string(frame.Payload(f)) != string(want) {
			t.Errorf("Payload of a frame with %d bytes of data is not its JSON", size)
		}
	}
	if got := frame.Payload(frame.AppendPong(nil, []byte("x"))); string(got) != "x" {
		t.Errorf("Payload of a pong = %q, want %q", got, "x")
	}
	if got := frame.Payload(nil); len(got) != 0 {
		t.Errorf("Payload of nothing = %q", got)
	}
}
