package frame_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// own is what every own frame does.
type own interface {
	Append(b []byte, now int64) []byte
}

const (
	later  = moment + 60_000 // 2026-01-15T10:31:00.123Z
	text1  = `"019bc134-78bb-7007-802a-000000000001"`
	text2  = `"019bc134-78bc-7000-802a-000000000002"`
	now    = `"timestamp":"2026-01-15T10:30:00.123Z"`
	inTime = `"2026-01-15T10:31:00.123Z"`
)

// ownFrames are own frames with their JSON behind the id.
var ownFrames = []struct {
	name  string
	frame own
	want  string
}{
	{
		"welcome",
		frame.Welcome{Session: "abc", User: "ü\"", Node: "n1", Time: later, Expires: later, PingMS: 25000, MaxFrame: 65536, MaxRooms: 128},
		`"type":"system","data":{"event":"welcome","session":"abc","user":"ü\"","node":"n1","time":` + inTime + `,"expires":` + inTime + `,"ping_ms":25000,"max_frame":65536,"max_rooms":128,"protocol":1},` + now,
	},
	{
		"welcome with a token that does not expire",
		frame.Welcome{Session: "abc", Time: later},
		`"type":"system","data":{"event":"welcome","session":"abc","user":"","node":"","time":` + inTime + `,"ping_ms":0,"max_frame":0,"max_rooms":0,"protocol":1},` + now,
	},
	{
		"subscribed with nothing to resume",
		frame.Subscribed{Room: "r", Presence: "off", Grants: "rw"},
		`"type":"system","room":"r","data":{"event":"subscribed","replayed":0,"presence":"off","grants":"rw"},` + now,
	},
	{
		"subscribed and recovered",
		frame.Subscribed{Room: "r", Ref: "7", Resumed: true, Recovered: true, Replayed: 12, LastID: id2, Counts: true, Users: 2, Presence: "events", Grants: "rwph"},
		`"type":"system","room":"r","data":{"event":"subscribed","recovered":true,"replayed":12,"last_id":` + text2 + `,"users":2,"sessions":0,"presence":"events","grants":"rwph"},` + now + `,"ref":"7"`,
	},
	{
		"subscribed and not recovered",
		frame.Subscribed{Room: "r", Resumed: true, Replayed: 3, LastID: id2, Reason: message.GapExpired, OldestID: id1, Users: 5, Sessions: 6, Presence: "counts", Grants: "r", ByServer: true},
		`"type":"system","room":"r","data":{"event":"subscribed","recovered":false,"replayed":3,"last_id":` + text2 + `,"reason":"expired","oldest_id":` + text1 + `,"presence":"counts","grants":"r","by":"server"},` + now,
	},
	{
		"unsubscribed",
		frame.Unsubscribed{Room: "r", Ref: "x", Reason: "requested"},
		`"type":"system","room":"r","data":{"event":"unsubscribed","reason":"requested"},` + now + `,"ref":"x"`,
	},
	{
		"gap",
		frame.Gap{Room: message.UserRoom("u"), After: id1, Before: id2, Reason: message.GapLimit},
		`"type":"system","room":"@me","data":{"event":"gap","after":` + text1 + `,"before":` + text2 + `,"reason":"limit"},` + now,
	},
	{
		"gap with unknown ends",
		frame.Gap{Room: message.Global, Reason: message.GapLost},
		`"type":"system","room":"@global","data":{"event":"gap","reason":"lost"},` + now,
	},
	{"expiring", frame.Expiring{InMS: 60000}, `"type":"system","data":{"event":"expiring","in_ms":60000},` + now},
	{
		"renewed",
		frame.Renewed{Ref: "a", Expires: later},
		`"type":"system","data":{"event":"renewed","expires":` + inTime + `},` + now + `,"ref":"a"`,
	},
	{"renewed for ever", frame.Renewed{}, `"type":"system","data":{"event":"renewed"},` + now},
	{"reconnect", frame.Reconnect{InMS: 1500}, `"type":"system","data":{"event":"reconnect","in_ms":1500},` + now},
	{"degraded", frame.Outage{Room: "r"}, `"type":"system","room":"r","data":{"event":"degraded","room":"r"},` + now},
	{"all degraded", frame.Outage{}, `"type":"system","data":{"event":"degraded"},` + now},
	{"restored", frame.Outage{Room: message.UserRoom("u"), Restored: true}, `"type":"system","room":"@me","data":{"event":"restored","room":"@me"},` + now},
	{"ack", frame.Ack{Room: "r", Ref: "1", ID: id1}, `"type":"ack","room":"r","data":{"id":` + text1 + `},` + now + `,"ref":"1"`},
	{
		"ack of a repeated message while degraded",
		frame.Ack{Room: "r", Ref: "1", ID: id1, Degraded: true, Duplicate: true},
		`"type":"ack","room":"r","data":{"id":` + text1 + `,"degraded":true,"duplicate":true},` + now + `,"ref":"1"`,
	},
	{"ack of a swallowed message", frame.Ack{Ref: "é\n"}, `"type":"ack","data":{},` + now + `,"ref":"é\u000a"`},
	{"ack without id", frame.Ack{Duplicate: true}, `"type":"ack","data":{"duplicate":true},` + now},
	{"pong", frame.Pong{Ref: "p", Data: []byte(`{ "a":[1] }`)}, `"type":"pong","data":{ "a":[1] },` + now + `,"ref":"p"`},
	{"pong without data", frame.Pong{}, `"type":"pong","data":null,` + now},
	{
		"error",
		frame.Error{Room: "r", Ref: "9", Code: frame.CodeBadFrame, Text: `no "x"`, TraceID: "4bf9"},
		`"type":"error","room":"r","data":{"code":"bad_frame","error":"no \"x\"","trace_id":"4bf9"},` + now + `,"ref":"9"`,
	},
	{
		"error with a time to wait",
		frame.Error{Code: frame.CodeSessionLimit, Text: "t", RetryAfterMS: 250},
		`"type":"error","data":{"code":"session_limit","error":"t","retry_after_ms":250},` + now,
	},
	{
		"error to retry at once",
		frame.Error{Code: frame.CodeBusy, Text: "t"},
		`"type":"error","data":{"code":"busy","error":"t","retry_after_ms":0},` + now,
	},
	{
		"who",
		frame.Who{Room: "r", Ref: "w", Users: 3, Sessions: 4, Next: "n", Members: []frame.Member{
			{UserID: "a", Status: "online", Since: later, Sessions: 2, Info: []byte(`{"name":"A"}`)},
			{UserID: "b", Status: "away", Since: later, Sessions: 1},
		}},
		`"type":"presence","room":"r","data":{"members":[{"user_id":"a","status":"online","since":` + inTime + `,"sessions":2,"info":{"name":"A"}},` +
			`{"user_id":"b","status":"away","since":` + inTime + `,"sessions":1}],"users":3,"sessions":4,"next":"n"},` + now + `,"ref":"w"`,
	},
	{"who of an empty room", frame.Who{Room: "r"}, `"type":"presence","room":"r","data":{"members":[],"users":0,"sessions":0},` + now},
	{
		"history",
		frame.History{Room: "r", Ref: "h", Next: "n", Truncated: true, Messages: []*message.Message{
			{ID: id1, Type: "chat", Room: "r", From: "u", Data: []byte(`1`), Timestamp: later},
			{ID: id2, Type: "chat", Room: "r", Timestamp: later},
		}},
		`"type":"history","room":"r","data":{"messages":[{"id":` + text1 + `,"type":"chat","room":"r","from":"u","data":1,"timestamp":` + inTime + `},` +
			`{"id":` + text2 + `,"type":"chat","room":"r","data":null,"timestamp":` + inTime + `}],"next":"n","truncated":true},` + now + `,"ref":"h"`,
	},
	{"empty history", frame.History{Room: message.UserRoom("u")}, `"type":"history","room":"@me","data":{"messages":[]},` + now},
}

func TestOwnFramesAreThoseOfTheProtocol(t *testing.T) {
	for _, tt := range ownFrames {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.frame.Append([]byte("before"), moment)
			got := text(t, f[len("before"):])
			if diff := cmp.Diff(`{"id":"`+hole+`",`+tt.want+`}`, got); diff != "" {
				t.Error(diff)
			}
			if string(f[:6]) != "before" {
				t.Errorf("the bytes in front are %q", f[:6])
			}
		})
	}
}

func TestHistoryHoldsTheFramesThatWereSent(t *testing.T) {
	m := &message.Message{ID: id1, Type: "chat", Room: message.UserRoom("u"), From: "a\"b", Data: []byte(`{"x": "` + strings.Repeat("y", 70_000) + `"}`), Timestamp: moment}
	sent := frame.Payload(frame.AppendMessage(nil, m))
	got := text(t, frame.History{Room: m.Room, Messages: []*message.Message{m, m}}.Append(nil, moment))
	if want := `"messages":[` + string(sent) + `,` + string(sent) + `]`; !strings.Contains(got, want) {
		t.Errorf("history is %.300s, without the frame as it was sent", got)
	}
}

func TestCodesAreTheProtocols(t *testing.T) {
	want := strings.Fields(`bad_frame unknown_type forbidden_type bad_room not_permitted not_joined too_large room_limit
		session_limit rate_limited* busy* overloaded* hook_denied hook_unavailable* broker_unavailable* bad_token internal
		bad_request bad_origin at_capacity draining`)
	var got []string
	for _, c := range frame.Codes() {
		s := string(c)
		if c.Retryable() {
			s += "*"
		}
		got = append(got, s)
		shown := text(t, frame.Error{Code: c}.Append(nil, 0))
		if !strings.Contains(shown, `"code":"`+string(c)+`"`) || strings.Contains(shown, "retry_after_ms") != c.Retryable() {
			t.Errorf("error frame of %s: %s", c, shown)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAFrameOfOneSessionIsWhatWasGiven(t *testing.T) {
	got := string(frame.Payload(frame.Own{Type: "hello", Room: "a", From: "me", Data: []byte(`[1]`)}.Append(nil, 1768473000123)))
	if want := `{"id":"00000000-0000-0000-0000-000000000000","type":"hello","room":"a","from":"me","data":[1],"timestamp":"2026-01-15T10:30:00.123Z"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
