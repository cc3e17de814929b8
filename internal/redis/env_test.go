package redis

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/message"
)

func sample() *message.Message {
	return &message.Message{
		ID: message.ID{Low: message.NewMinter(7).Low(3, false)}, Room: "general", Type: "chat", From: `a "b" é`,
		Data: []byte(` {"a": [1,2.50 , "\u00e9"]} `), Timestamp: 1_500_000_000_123,
		ExcludeSessions: []string{"s1"}, ExcludeUsers: []string{"u|1", "é"},
		Trace: &message.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1},
	}
}

func TestAnEnvelopeCarriesEverythingButRoomAndPosition(t *testing.T) {
	plain := &message.Message{ID: message.ID{Low: 1 << 63}, Room: "general", Type: "x", Data: []byte("1")}
	hint := &message.Message{ID: message.ID{Low: message.NewMinter(7).Low(3, true)}, Room: "general", Type: "x", Data: []byte("1"), Ephemeral: true}
	for _, original := range []message.Position{0, message.At(1_700_000_000_000, 4095)} {
		for _, m := range []*message.Message{sample(), plain, hint} {
			got, err := parseEnv(string(appendEnv(nil, m, original)), "general")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got.m); diff != "" || got.original != original {
				t.Errorf("original %d, want %d; message (-want +got):\n%s", got.original, original, diff)
			}
		}
	}
}

func TestAStreamIDIsAPosition(t *testing.T) {
	for _, p := range []message.Position{0, 1, message.At(1_700_000_000_000, 0), message.At(1_700_000_000_000, 4095)} {
		if got, ok := parseStreamID(streamID(p)); !ok || got != p {
			t.Errorf("parseStreamID(%q) = %d, %v, want %d", streamID(p), got, ok, p)
		}
	}
	for _, s := range []string{"-", "1", "1-", "-1", "0-0", "1-4096", "281474976710656-0", "1-1-1", "+1-1", "x-1"} {
		if p, ok := parseStreamID(s); ok {
			t.Errorf("parseStreamID(%q) = %d", s, p)
		}
	}
}

func TestAForeignPublishIsAnEphemeralMessage(t *testing.T) {
	now := time.UnixMilli(5000)
	for in, want := range map[string]*message.Message{
		`{"type":"chat","data":{"a":1}}`: {Type: "chat", Data: []byte(`{"a":1}`), Timestamp: 5000},
		` {"data": [1, 2], "x":{"y":1}, "from":"billing", "timestamp":"1970-01-01T00:00:01Z", "type":"system" } `: {
			Type: "system", Data: []byte(`[1, 2]`), From: "billing", Timestamp: 1000,
		},
		`{"type":"ping"}`: {Type: "ping", Data: []byte("null"), Timestamp: 5000},
	} {
		got, err := parseForeign(in, "general", now)
		if err != nil {
			t.Errorf("parseForeign(%s) = %v", in, err)
			continue
		}
		want.Room, want.Ephemeral = "general", true
		if diff := cmp.Diff(want, got.m); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	for _, in := range []string{
		``, `{`, `{}`, `{"type":1,"data":1}`, `{"type":"A B","data":1}`, `{"type":"chat","type":"chat"}`, `{"type":"chat"}{}`,
		`{"type":"chat","data":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, `{"type":"chat","timestamp":5}`,
		`{"type":"chat","data":"` + strings.Repeat("x", message.DefaultMaxDataBytes) + `"}`,
	} {
		if got, err := parseForeign(in, "general", now); err == nil {
			t.Errorf("parseForeign(%.40s) = %+v, want an error", in, got.m)
		}
	}
}

// frameOf is a frame as the script makes it.
func frameOf(head string, envs ...[]byte) string {
	b := []byte(head)
	for _, e := range envs {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return string(b)
}

func TestAFrameKeepsThePlaceOfWhatIsNotUnderstood(t *testing.T) {
	known, other := appendEnv(nil, sample(), 0), appendEnv(nil, sample(), 0)
	other[8] |= 1 << 6
	change := appendEnv(nil, sample(), 0)
	change[8] |= envChange | envEphemeral
	p, err := parsePush(frameOf("1700000000000-1|1700000000000-0|3|", other, change, known), "general")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.items) != 2 || p.items[0].m != nil || p.items[1].m == nil || p.first.Seq() != 1 || p.prev.Seq() != 0 {
		t.Errorf("push = %+v, want a place and a message", p)
	}
}

func FuzzWhatChannelsBringNeverPanics(f *testing.F) {
	env := appendEnv(nil, sample(), 5)
	f.Add(frameOf("1700000000000-1||1|", env))
	f.Add(frameOf("1700000000000-1|R|1|", env))
	f.Add("1700000000000-1|D|0|")
	f.Add("|1700000000000-1|0|")
	f.Add(`{"type":"chat","data":1}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePush(s, "general")
		for _, it := range p.items {
			if err == nil && it.m != nil && message.CheckJSON(it.m.Data) != nil {
				t.Errorf("data %q is delivered", it.m.Data)
			}
		}
		if it, err := parseForeign(s, "general", time.UnixMilli(0)); err == nil && it.m.Check(message.DefaultMaxDataBytes) != nil {
			t.Errorf("%q is delivered", s)
		}
	})
}
