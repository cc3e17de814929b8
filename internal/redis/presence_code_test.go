package redis

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/presence"
)

func TestWhatIsNoStateOfAUserIsRefused(t *testing.T) {
	for _, v := range []string{
		"", "2", "2,1,1,1", "0,1,1,1,1", "3,1,1,1,1", "2,-1,1,1,1", "2,1,1,1,zzzzzzzzz", "2,1,1,1,1,", "2,1,1,1,1,{", "2,1,1,1,1,1 2",
		"2,1,,1,1", "2,1,1,1,1,\"" + string(bytes.Repeat([]byte("x"), 1024)) + `"`, "{}", "2,zzzzzzzzzzzzzzzz,1,1,1",
	} {
		if s, ok := parseState(v); ok {
			t.Errorf("parseState(%q) = %+v", v, s)
		}
	}
	for _, v := range []string{"", "1,2", "1,2,3,4", "-1,0,0", "a,b,!", "1,2,zzzzzzzzzz"} {
		if s, ok := parseTotals(v); ok {
			t.Errorf("parseTotals(%q) = %+v", v, s)
		}
	}
	for _, v := range []string{"", "u", ":u", "n:", "n:a b", "n:%", "n:%41", "n:%0A"} {
		if inc, user, ok := parseField(v); ok {
			t.Errorf("parseField(%q) = %q, %q", v, inc, user)
		}
	}
}

func TestAFrameBringsWhatWasPutIntoIt(t *testing.T) {
	want := []presence.Field{
		{Node: "n.1.x", User: "a|b é", State: presence.State{Status: presence.Online, Since: 1, Active: 2, Newest: 3, Sessions: 4, Info: []byte(`{"a":"|,"}`)}},
		{Node: "n.1.x", User: "gone"},
		{Node: "n.1.x", User: "c", State: presence.State{Status: presence.Away, Since: 1 << 45}},
	}
	frame := "|1764000000000-0|1|" + presenceFrameOf("n.1.x", want)
	payload, mine := presenceOf(frame)
	got, inc, ok := parseChanges(payload)
	if !mine || !ok || inc != "n.1.x" {
		t.Fatalf("mine %v, ok %v, inc %q", mine, ok, inc)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("put (-), brought (+):\n%s", diff)
	}
	if push, err := parsePush(frame, "r"); err != nil || len(push.items) > 0 || push.prev == 0 {
		t.Errorf("for who reads messages it is %+v, %v, want nothing behind the room's tip", push, err)
	}
	for n := range len(frame) { // torn ones
		if payload, mine := presenceOf(frame[:n]); mine {
			_, _, _ = parseChanges(payload)
		}
	}
	for _, other := range []string{"", `{"type":"chat"}`, "a|b", "1-0|0-0|1|" + string(make([]byte, 40)), frame[:31] + "\xcc" + frame[32:]} {
		if _, mine := presenceOf(other); mine {
			t.Errorf("presenceOf(%q) takes it for one of presence", other)
		}
	}
}

func FuzzWhatPresenceReadsNeverPanics(f *testing.F) {
	s := presence.State{Status: presence.Online, Since: 1, Active: 2, Newest: 3, Sessions: 4, Info: []byte(`{}`)}
	f.Add(string(appendState(nil, &s)))
	f.Add("1,2,3")
	f.Add("n:a%20b")
	f.Add("||1|" + presenceFrameOf("n", []presence.Field{{User: "u", State: s}, {User: "v"}}))
	f.Fuzz(func(t *testing.T, v string) {
		if s, ok := parseState(v); ok {
			again, ok := parseState(string(appendState(nil, &s)))
			if diff := cmp.Diff(s, again); !ok || diff != "" {
				t.Errorf("parseState(%q), written and parsed again: %s", v, diff)
			}
		}
		if n, ok := parseTotals(v); ok {
			if again, ok := parseTotals(formatTotals(n)); again != n || !ok && n != (presence.Totals{}) {
				t.Errorf("parseTotals(%q) = %v, written and parsed again %v", v, n, again)
			}
		}
		if inc, user, ok := parseField(v); ok && fieldName(inc, user) != v {
			t.Errorf("parseField(%q) = %q, %q", v, inc, user)
		}
		if payload, mine := presenceOf(v); mine {
			v = payload
		}
		if fields, inc, ok := parseChanges(v); ok && len(inc) < 128 && len(fields) > 0 {
			payload, _ := presenceOf("||1|" + presenceFrameOf(inc, fields))
			again, _, _ := parseChanges(payload)
			if diff := cmp.Diff(fields, again); diff != "" {
				t.Errorf("changes of %q, written and parsed again: %s", v, diff)
			}
		}
	})
}
