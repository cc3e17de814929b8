package frame_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// nest is a JSON value depth levels deep.
func nest(open, inner, shut string, depth int) string {
	return strings.Repeat(open, depth) + inner + strings.Repeat(shut, depth)
}

var goodFrames = []struct {
	name string
	json string
	want frame.In
}{
	{"only a type", `{"type":"chat"}`, frame.In{Type: "chat"}},
	{
		"everything a session may say", `{"type":"chat","room":"a/b","ref":"1","key":"k","data":{"text":"hi"}}`,
		frame.In{Type: "chat", Room: "a/b", Ref: "1", Key: "k", Data: []byte(`{"text":"hi"}`)},
	},
	{"in any order, with white space", "\r\n\t {\n \"data\" : [ 1 , 2 ] ,\"ref\": \"1\",\"type\"\t:\"ping\" } \n", frame.In{Type: "ping", Ref: "1", Data: []byte(`[ 1 , 2 ]`)}},
	{"null is absent, but for data", `{"type":"chat","room":null,"ref":null,"key":null,"data":null}`, frame.In{Type: "chat", Data: []byte(`null`)}},
	{"empty is absent", `{"type":"chat","room":"","ref":"","key":"","data":""}`, frame.In{Type: "chat", Data: []byte(`""`)}},
	{"what only the server sets", `{"id":[{}],"from":{"x":1},"timestamp":false,"type":"chat"}`, frame.In{Type: "chat"}},
	{"unknown members", `{"type":"chat","x":{"type":"system"},"":0,"__proto__":{"type":"system"},"constructor":1}`, frame.In{Type: "chat"}},
	{"keys of another case", `{"TYPE":"system","type":"chat","Room":"x","DATA":1,"Ref":2}`, frame.In{Type: "chat"}},
	{"keys that fold to known ones", "{\"\u212aey\":\"a\",\"\u017f\":1,\"type\":\"chat\",\"key\":\"b\"}", frame.In{Type: "chat", Key: "b"}},
	{"escaped keys and values", `{"\u0074ype":"\u0073ystem","ref":"\"\\\/\u00e9\ud83d\ude00","roo\u006d":"\n"}`, frame.In{Type: "system", Ref: `"\/é😀`, Room: "\n"}},
	{"a type nobody knows", `{"type":"no such type: €"}`, frame.In{Type: "no such type: €"}},
	{"the longest type", `{"type":"` + strings.Repeat("t", 64) + `"}`, frame.In{Type: message.Type(strings.Repeat("t", 64))}},
	{"64 characters of ref and key", `{"type":"chat","ref":"` + strings.Repeat("😀", 64) + `","key":"` + strings.Repeat(`\u00e9`, 64) + `"}`, frame.In{Type: "chat", Ref: strings.Repeat("😀", 64), Key: strings.Repeat("é", 64)}},
	{"a room against the rule", `{"type":"chat","room":"/../` + strings.Repeat("x", 500) + `"}`, frame.In{Type: "chat", Room: "/../" + strings.Repeat("x", 500)}},
	{"numbers that no machine holds", `{"type":"chat","data":[9007199254740993,1e400,-0.10,` + strings.Repeat("9", 10_000) + `]}`, frame.In{Type: "chat", Data: []byte(`[9007199254740993,1e400,-0.10,` + strings.Repeat("9", 10_000) + `]`)}},
	{"data as deep as may be", `{"type":"chat","data":` + nest("[", "", "]", 32) + `}`, frame.In{Type: "chat", Data: []byte(nest("[", "", "]", 32))}},
	{"objects as deep as may be", `{"x":` + nest(`{"a":`, "1", "}", 32) + `,"type":"chat"}`, frame.In{Type: "chat"}},
	{"brackets in strings", `{"type":"chat","data":["` + strings.Repeat(`[\"{`, 100) + `"],"ref":"[[[[","x":"` + strings.Repeat("{", 100) + `"}`, frame.In{Type: "chat", Ref: "[[[[", Data: []byte(`["` + strings.Repeat(`[\"{`, 100) + `"]`)}},
	{"many brackets side by side", `{"type":"chat","data":[` + strings.Repeat("[],", 100) + `{}]}`, frame.In{Type: "chat", Data: []byte(`[` + strings.Repeat("[],", 100) + `{}]`)}},
	{"the same key in two objects", `{"type":"chat","data":[{"a":1},{"a":1,"b":{"a":1,"type":2}}]}`, frame.In{Type: "chat", Data: []byte(`[{"a":1},{"a":1,"b":{"a":1,"type":2}}]`)}},
}

func TestDecodeReadsWhatSessionsMaySay(t *testing.T) {
	for _, tt := range goodFrames {
		t.Run(tt.name, func(t *testing.T) {
			got, err := frame.Decode([]byte(tt.json))
			if err != nil {
				t.Fatalf("Decode = %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// mark stands in bad frames where an error could quote it.
const mark = "sEcReT"

var badFrames = []struct {
	name string
	json string
	ref  string
	text string // part of the error's
}{
	{"nothing", "", "", "one JSON object"},
	{"white space", " \n", "", "one JSON object"},
	{"a string", `"sEcReT"`, "", "one JSON object"},
	{"a number", `1`, "", "one JSON object"},
	{"null", `null`, "", "one JSON object"},
	{"an array", `[{"type":"chat"}]`, "", "one JSON object"},
	{"no JSON", `sEcReT`, "", "one JSON object"},
	{"a byte order mark", "\uFEFF" + `{"type":"chat"}`, "", "one JSON object"},
	{"two objects", `{"ref":"1","type":"chat"}{"type":"sEcReT"}`, "1", "one JSON object"},
	{"something behind the object", `{"ref":"1","type":"chat"} sEcReT`, "1", "one JSON object"},
	{"a stray bracket behind the object", `{"ref":"1","type":"chat"}}`, "1", "one JSON object"},
	{"an open object", `{"ref":"1","type":"chat"`, "1", "valid JSON"},
	{"an open string", `{"ref":"1","type":"sEcReT`, "1", "valid JSON"},
	{"an open value", `{"ref":"1","type":"chat","data":[1,`, "1", "valid JSON"},
	{"30000 open brackets", `{"ref":"1","x":` + strings.Repeat("[", 30_000), "1", "deeper than 32"},
	{"a comma too many", `{"ref":"1","type":"chat",}`, "1", "valid JSON"},
	{"no colon", `{"ref":"1","type" "sEcReT"}`, "1", "valid JSON"},
	{"no comma", `{"ref":"1" "type":"sEcReT"}`, "1", "valid JSON"},
	{"the wrong bracket", `{"ref":"1","type":"chat"]`, "1", "valid JSON"},
	{"a key that is no string", `{"ref":"1",sEcReT:1,"type":"chat"}`, "1", "valid JSON"},
	{"a comment", `{"ref":"1",/* sEcReT */"type":"chat"}`, "1", "valid JSON"},
	{"NaN", `{"ref":"1","type":"chat","data":NaN}`, "1", "valid JSON"},
	{"a number with leading zeros", `{"ref":"1","type":"chat","data":01}`, "1", "valid JSON"},
	{"bad UTF-8", "{\"ref\":\"1\",\"type\":\"chat\",\"x\":\"\xff\"}", "1", "valid JSON"},
	{"bad UTF-8 in a key", "{\"ref\":\"1\",\"\xed\xa0\x80\":1,\"type\":\"chat\"}", "1", "valid JSON"},
	{"half a surrogate pair", `{"ref":"1","type":"chat","data":"\ud800"}`, "1", "valid JSON"},
	{"a control character in a string", "{\"ref\":\"1\",\"type\":\"chat\",\"data\":\"\n\"}", "1", "valid JSON"},
	{"a type twice", `{"ref":"1","type":"chat","type":"sEcReT"}`, "1", "duplicate key"},
	{"a type twice, once escaped", `{"ref":"1","type":"chat","\u0074ype":"sEcReT"}`, "1", "duplicate key"},
	{"a ref twice", `{"ref":"1","type":"chat","ref":"2"}`, "1", "duplicate key"},
	{"an unknown key twice", `{"ref":"1","sEcReT":1,"type":"chat","sEcReT":1}`, "1", "duplicate key"},
	{"a key twice in data", `{"ref":"1","type":"chat","data":[{"a":[{"sEcReT":1,"sEcReT":1}]}]}`, "1", "duplicate key"},
	{"a key twice in an unknown member", `{"ref":"1","type":"chat","x":{"a":1,"\u0061":2}}`, "1", "duplicate key"},
	{"a key twice in what is ignored", `{"ref":"1","type":"chat","id":{"a":1,"a":2}}`, "1", "duplicate key"},
	{"data too deep", `{"ref":"1","type":"chat","data":` + nest("[", "", "]", 33) + `}`, "1", "deeper than 32"},
	{"mixed too deep", `{"ref":"1","type":"chat","data":[1,"]]]\"]",` + nest(`{"a":[`, "1", "]}", 16) + `]}`, "1", "deeper than 32"},
	{"an unknown member too deep", `{"type":"chat","ref":"1","x" : ` + nest(`{"a":`, "1", "}", 33) + `}`, "1", "deeper than 32"},
	{"what is ignored too deep", `{"ref":"1","type":"chat","timestamp":` + nest("[", "", "]", 1000) + `}`, "1", "deeper than 32"},
	{"15000 levels", `{"ref":"1","type":"chat","data":` + nest("[", "", "]", 15_000) + `}`, "1", "deeper than 32"},
	{"no type", `{"ref":"1","room":"sEcReT"}`, "1", "type is missing"},
	{"an empty object", `{}`, "", "type is missing"},
	{"type null", `{"ref":"1","type":null}`, "1", "type is missing"},
	{"type empty", `{"ref":"1","type":""}`, "1", "type is missing"},
	{"type of another case", `{"ref":"1","Type":"chat"}`, "1", "type is missing"},
	{"type a number", `{"type":1,"ref":"1"}`, "1", "type must be a string"},
	{"type too long", `{"type":"` + strings.Repeat("t", 65) + `","ref":"1"}`, "1", "type must be at most 64 bytes"},
	{"room a number", `{"room":1,"type":"chat","ref":"1"}`, "1", "room must be a string"},
	{"room an array", `{"room":["sEcReT"],"type":"chat","ref":"1"}`, "1", "room must be a string"},
	{"key an object", `{"key":{},"type":"chat","ref":"1"}`, "1", "key must be a string"},
	{"key too long", `{"key":"` + strings.Repeat("k", 65) + `","type":"chat","ref":"1"}`, "1", "key must be at most 64 characters"},
	{"ref true", `{"ref":true,"type":"chat"}`, "", "ref must be a string"},
	{"ref too long", `{"ref":"` + strings.Repeat("é", 65) + `","type":"chat"}`, "", "ref must be at most 64 characters"},
	{"ref behind the fault", `{"type":"chat",]"ref":"1"}`, "", "valid JSON"},
}

func TestDecodeRefusesTheRestWithoutQuotingIt(t *testing.T) {
	for _, tt := range badFrames {
		t.Run(tt.name, func(t *testing.T) {
			in, err := frame.Decode([]byte(tt.json))
			var bad *frame.DecodeError
			if !errors.As(err, &bad) {
				t.Fatalf("Decode = %+v, %v, want a DecodeError", in, err)
			}
			if bad.Code != frame.CodeBadFrame || bad.Ref != tt.ref || !strings.Contains(bad.Text, tt.text) {
				t.Errorf("error %+v, want code bad_frame, ref %q, text with %q", *bad, tt.ref, tt.text)
			}
			if strings.Contains(bad.Text, mark) {
				t.Errorf("the text quotes the frame: %q", bad.Text)
			}
			if diff := cmp.Diff(frame.In{}, in); diff != "" {
				t.Errorf("with an error the frame is not empty:\n%s", diff)
			}
		})
	}
}

func TestDecodeIsNotTroubledByAnEarlierFrame(t *testing.T) {
	for _, bad := range badFrames {
		if _, err := frame.Decode([]byte(bad.json)); err == nil {
			t.Fatalf("%s: accepted", bad.name)
		}
		in, err := frame.Decode([]byte(`{"type":"chat","ref":"2"}`))
		if err != nil || in.Type != "chat" || in.Ref != "2" {
			t.Fatalf("after %s: Decode = %+v, %v", bad.name, in, err)
		}
	}
}

func TestDecodedDataAliasesTheFrameAndStopsAtItsEnd(t *testing.T) {
	b := []byte(`{"type":"chat","data":{"a":1},"ref":"1"}`)
	in, err := frame.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Data) == 0 || &in.Data[0] != &b[strings.Index(string(b), `{"a"`)] {
		t.Error("data is a copy")
	}
	if _ = append(in.Data, "xxxx"...); string(b) != `{"type":"chat","data":{"a":1},"ref":"1"}` {
		t.Errorf("appending to data changed the frame: %s", b)
	}
}

func TestDecodeOutReadsEveryFrameTheServerSends(t *testing.T) {
	for _, tt := range ownFrames {
		f := tt.frame.Append(nil, moment)
		frame.Stamp(f, id1)
		out, err := frame.DecodeOut(frame.Payload(f))
		if err != nil {
			t.Errorf("%s: DecodeOut = %v", tt.name, err)
			continue
		}
		all := text(t, f)
		if out.ID != id1 || out.Timestamp.UnixMilli() != moment || !strings.Contains(all, `"data":`+string(out.Data)+`,"timestamp"`) {
			t.Errorf("%s: DecodeOut = %+v of %s", tt.name, out, all)
		}
		if ref, _ := member(t, all, "ref").(string); out.Ref != ref {
			t.Errorf("%s: ref %q, want %q", tt.name, out.Ref, ref)
		}
	}
	f := frame.AppendMessage(nil, &message.Message{ID: id2, Type: "x.y", Room: message.UserRoom("u"), From: `a"b`, Data: []byte(`{"n": 1}`), Timestamp: moment})
	out, err := frame.DecodeOut(frame.Payload(f))
	want := frame.Out{ID: id2, Type: "x.y", Room: "@me", From: `a"b`, Data: []byte(`{"n": 1}`), Timestamp: time.UnixMilli(moment).UTC()}
	if diff := cmp.Diff(want, out); diff != "" || err != nil {
		t.Errorf("DecodeOut: %v\n%s", err, diff)
	}
}

func TestDecodeOutSkipsWhatItDoesNotKnow(t *testing.T) {
	out, err := frame.DecodeOut([]byte(`{"id":"later ids may look different","type":"chat","new":{"x":[1]},"key":7,"timestamp":"later times too"}`))
	if diff := cmp.Diff(frame.Out{Type: "chat"}, out); diff != "" || err != nil {
		t.Errorf("DecodeOut: %v\n%s", err, diff)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"type":1}`, `{"type":"a","from":1}`, `{"type":"a","id":1}`, `{"type":"a","timestamp":1}`, `{"type":"a"`, `{"type":"a","type":"b"}`} {
		if out, err := frame.DecodeOut([]byte(bad)); err == nil {
			t.Errorf("DecodeOut(%s) = %+v, want an error", bad, out)
		}
	}
}

func TestDecodeOutReadsHistoryOfTheDeepestData(t *testing.T) {
	m := &message.Message{ID: id1, Type: "chat", Room: "r", Data: []byte(nest(`[`, "", "]", message.MaxDepth))}
	f := frame.History{Room: "r", Messages: []*message.Message{m, m}}.Append(nil, moment)
	if out, err := frame.DecodeOut(frame.Payload(f)); err != nil || out.Type != "history" {
		t.Errorf("DecodeOut = %+v, %v", out, err)
	}
}

func TestAnEventIsReadFromTheServersOwnFramesOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		frame own
		want  frame.Event
	}{
		"subscribed":              {frame.Subscribed{Room: "r", LastID: id2}, frame.Event{Name: "subscribed", LastID: id2}},
		"subscribed, recovered":   {frame.Subscribed{Room: "r", LastID: id2, Resumed: true, Recovered: true}, frame.Event{Name: "subscribed", LastID: id2}},
		"subscribed with a gap":   {frame.Subscribed{Room: "r", Resumed: true, Reason: message.GapLimit}, frame.Event{Name: "subscribed", Reason: message.GapLimit, Incomplete: true}},
		"gap":                     {frame.Gap{Room: "r", After: id1, Before: id2, Reason: message.GapLost}, frame.Event{Name: "gap", After: id1, Before: id2, Reason: message.GapLost}},
		"gap that nothing ends":   {frame.Gap{Room: "r", Reason: message.GapDeleted}, frame.Event{Name: "gap", Reason: message.GapDeleted}},
		"outage":                  {frame.Outage{Room: "r"}, frame.Event{Name: "degraded"}},
		"what is about no room":   {frame.Reconnect{InMS: 5}, frame.Event{Name: "reconnect"}},
		"another of the server's": {frame.Ack{Room: "r", ID: id1}, frame.Event{}},
	} {
		out, err := frame.DecodeOut(frame.Payload(tt.frame.Append(nil, moment)))
		e, ok := out.Event()
		if diff := cmp.Diff(tt.want, e); diff != "" || err != nil || ok != (tt.want.Name != "") {
			t.Errorf("%s: %v, %v\n%s", name, ok, err, diff)
		}
	}
	for _, data := range []string{`null`, `"gap"`, `["event"]`, `{"event":5}`, `{"event":null}`, `{"events":"gap"}`, `{"text":{"event":"gap"}}`, `{"event":"gap"`} {
		if e, ok := (frame.Out{Type: message.TypeSystem, Data: []byte(data)}).Event(); ok {
			t.Errorf("%s is taken for %+v", data, e)
		}
	}
	if e, ok := (frame.Out{Type: message.TypeChat, Data: []byte(`{"event":"gap"}`)}).Event(); ok {
		t.Errorf("a chat message is taken for %+v", e)
	}
}
