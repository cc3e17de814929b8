package frame_test

import (
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestPresenceDataIsAsTheProtocolSays(t *testing.T) {
	a := frame.PresenceChange{UserID: "a", Status: "online", Since: later, Info: []byte(`{ "name":"\u00c4" }`)}
	b := frame.PresenceChange{UserID: "ü\"", Status: "offline", Since: later}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"one change", frame.AppendPresence(nil, []frame.PresenceChange{a}), `{"status":"online","user_id":"a","since":` + inTime + `,"info":{ "name":"\u00c4" }}`},
		{"a change without info", frame.AppendPresence(nil, []frame.PresenceChange{b}), `{"status":"offline","user_id":"ü\"","since":` + inTime + `}`},
		{
			"several changes", frame.AppendPresence(nil, []frame.PresenceChange{a, b}),
			`{"changes":[{"status":"online","user_id":"a","since":` + inTime + `,"info":{ "name":"\u00c4" }},{"status":"offline","user_id":"ü\"","since":` + inTime + `}]}`,
		},
		{"counts", frame.AppendCounts(nil, 1200, 3400), `{"mode":"counts","users":1200,"sessions":3400}`},
		{"back at events", frame.AppendEvents(nil), `{"mode":"events"}`},
		{"behind what is there", frame.AppendEvents([]byte("x")), `x{"mode":"events"}`},
		{"behind what is there", frame.AppendCounts([]byte("{"), 1, 1), `{{"mode":"counts","users":1,"sessions":1}`},
		{"behind what is there", frame.AppendPresence([]byte("{"), []frame.PresenceChange{b}), `{{"status":"offline","user_id":"ü\"","since":` + inTime + `}`},
	} {
		if string(c.got) != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, c.got, c.want)
		}
	}
}

func TestPresenceDataIsDataOfAMessage(t *testing.T) {
	hostile := strings.Repeat(`"\`+"\x00\xff", 32)
	for _, n := range []int{1, 2, 128} {
		changes := make([]frame.PresenceChange, n)
		for i := range changes {
			changes[i] = frame.PresenceChange{UserID: hostile, Status: hostile, Since: -1, Info: []byte(`{"a":[1]}`)}
		}
		if err := message.CheckJSON(frame.AppendPresence(nil, changes)); err != nil {
			t.Errorf("%d changes: %v", n, err)
		}
	}
}
