package frame_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/frame"
)

func TestControlFramesAreShortAndWhole(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"ping", frame.AppendPing(nil), "\x89\x00"},
		{"pong", frame.AppendPong(nil, []byte("ab")), "\x8a\x02ab"},
		{"pong without payload", frame.AppendPong(nil, nil), "\x8a\x00"},
		{"pong of the longest ping", frame.AppendPong(nil, bytes.Repeat([]byte("x"), 125)), "\x8a\x7d" + strings.Repeat("x", 125)},
		{"pong is never too long", frame.AppendPong(nil, bytes.Repeat([]byte("x"), 126)), "\x8a\x7d" + strings.Repeat("x", 125)},
		{"close", frame.AppendClose(nil, 4000, "slow consumer"), "\x88\x0f\x0f\xa0slow consumer"},
		{"close without reason", frame.AppendClose(nil, 1000, ""), "\x88\x02\x03\xe8"},
		{"close without code", frame.AppendClose(nil, 1005, "not shown"), "\x88\x00"},
		{"code of a lost connection", frame.AppendClose(nil, 1006, "not shown"), "\x88\x00"},
		{"code of a failed TLS handshake", frame.AppendClose(nil, 1015, "not shown"), "\x88\x00"},
		{"longest reason", frame.AppendClose(nil, 1000, strings.Repeat("r", 123)), "\x88\x7d\x03\xe8" + strings.Repeat("r", 123)},
		{"reason cut", frame.AppendClose(nil, 1000, strings.Repeat("r", 124)), "\x88\x7d\x03\xe8" + strings.Repeat("r", 123)},
		{"reason cut between characters", frame.AppendClose(nil, 1000, strings.Repeat("r", 121)+"é€"), "\x88\x7d\x03\xe8" + strings.Repeat("r", 121) + "é"},
		{"reason cut in front of a character", frame.AppendClose(nil, 1000, strings.Repeat("r", 120)+"😀"), "\x88\x7a\x03\xe8" + strings.Repeat("r", 120)},
		{"reason that is no UTF-8", frame.AppendClose(nil, 1000, "a\xff"), "\x88\x06\x03\xe8a\uFFFD"},
	}
	for _, tt := range tests {
		split(t, tt.got)
		if string(tt.got) != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestControlFramesLeaveWhatIsInFront(t *testing.T) {
	b := frame.AppendClose(frame.AppendPong(frame.AppendPing([]byte("a")), []byte("p")), 1000, "")
	if want := "a\x89\x00\x8a\x01p\x88\x02\x03\xe8"; string(b) != want {
		t.Errorf("appended %q, want %q", b, want)
	}
}
