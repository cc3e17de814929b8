package frame_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// strictJSON is the rule of frames told another way, token by token: one object of valid UTF-8 without duplicate keys,
// no member deeper than given.
func strictJSON(b []byte, deepest int) bool {
	d := jsontext.NewDecoder(bytes.NewReader(b))
	if d.PeekKind() != '{' {
		return false
	}
	for n := 0; ; n++ {
		_, err := d.ReadToken()
		if err != nil {
			return n > 0 && errors.Is(err, io.EOF)
		}
		if d.StackDepth() > 1+deepest {
			return false
		}
		if d.StackDepth() == 0 && n > 0 && d.PeekKind() != 0 {
			return false
		}
	}
}

// wanted is what encoding/json makes of a frame that strictJSON accepts; false: a member is not as it should be.
func wanted(t *testing.T, b []byte) (in frame.In, ok bool) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatalf("encoding/json refuses it: %v", err)
	}
	ok = true
	str := func(name string) string {
		var s *string
		if raw, there := all[name]; there && json.Unmarshal(raw, &s) != nil {
			ok = false
		}
		if s == nil {
			return ""
		}
		return *s
	}
	in = frame.In{Type: message.Type(str("type")), Room: str("room"), Ref: str("ref"), Key: str("key"), Data: jsontext.Value(all["data"])}
	ok = ok && in.Type != "" && len(in.Type) <= 64 && utf8.RuneCountInString(in.Ref) <= 64 && utf8.RuneCountInString(in.Key) <= 64
	return in, ok
}

func FuzzDecode(f *testing.F) {
	add := func(json string) {
		if len(json) < 2048 { // the fuzzer makes no headway with long ones
			f.Add([]byte(json))
		}
	}
	for _, g := range goodFrames {
		add(g.json)
	}
	for _, b := range badFrames {
		add(b.json)
	}
	f.Add([]byte(`{"type":"subscribe","data":{"rooms":{"a":"` + id1.String() + `","b":null}}}`))
	f.Add([]byte(`{"type":"unsubscribe","ref":"1","data":{"rooms":["a","b"]}}`))
	f.Add([]byte(`{"type":"history","room":"a","data":{"before":"` + id1.String() + `","limit":3}}`))
	f.Add([]byte(`{"type":"who","data":{"after":"x","limit":300}}`))
	f.Add([]byte(`{"type":"presence","data":{"status":"away"}}`))
	f.Add([]byte(`{"type":"auth","data":{"token":"a.b.c"}}`))
	for _, o := range ownFrames {
		f.Add(frame.Payload(o.frame.Append(nil, moment)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := string(b)
		in, err := frame.Decode(b)
		if string(b) != before {
			t.Fatal("Decode changed its input")
		}
		if out, outErr := frame.DecodeOut(b); outErr == nil && !strictJSON(b, 10_000) {
			t.Errorf("DecodeOut = %+v of what is no strict JSON", out)
		}
		if err != nil {
			if bad, ok := errors.AsType[*frame.DecodeError](err); !ok || bad.Code != frame.CodeBadFrame || bad.Text == "" {
				t.Fatalf("error %#v, want a DecodeError with bad_frame", err)
			}
			if strictJSON(b, message.MaxDepth) {
				if want, ok := wanted(t, b); ok {
					t.Errorf("refused (%v) although it is %+v", err, want)
				}
			}
			return
		}
		if !strictJSON(b, message.MaxDepth) {
			t.Fatal("accepted, but it is no strict JSON")
		}
		want, ok := wanted(t, b)
		if diff := cmp.Diff(want, in); diff != "" || !ok {
			t.Errorf("encoding/json reads it otherwise (good: %v):\n%s", ok, diff)
		}
		if in.Data != nil && message.CheckJSON(in.Data) != nil {
			t.Error("message.CheckJSON refuses the data")
		}
		bodies(t, in)
	})
}

// bodies reads every body from in: none panics, and what one accepts keeps the bounds.
func bodies(t *testing.T, in frame.In) {
	var errs []error
	wants, err := in.Subscribe(8)
	if errs = append(errs, err); err == nil && (len(wants) == 0 || len(wants) > 8) {
		t.Errorf("Subscribe = %d rooms", len(wants))
	}
	rooms, err := in.Unsubscribe(8)
	if errs = append(errs, err); err == nil && (len(rooms) == 0 || len(rooms) > 8) {
		t.Errorf("Unsubscribe = %d rooms", len(rooms))
	}
	status, err := in.Status()
	if errs = append(errs, err); err == nil && status != "online" && status != "away" {
		t.Errorf("Status = %q", status)
	}
	_, limit, err := in.Who()
	if errs = append(errs, err); err == nil && (limit < 1 || limit > 200) {
		t.Errorf("Who: limit %d", limit)
	}
	w, err := in.History()
	if errs = append(errs, err); err == nil && (w.Limit < 1 || w.Limit > 100 || !w.Before.IsZero() && !w.After.IsZero()) {
		t.Errorf("History = %+v", w)
	}
	token, err := in.Token()
	if errs = append(errs, err); err == nil && token == "" {
		t.Error("Token is empty")
	}
	for _, err := range errs {
		if bad, ok := errors.AsType[*frame.DecodeError](err); err != nil && (!ok || bad.Ref != in.Ref) {
			t.Errorf("error %#v, want a DecodeError with ref %q", err, in.Ref)
		}
	}
}

// shown is what a session reads of s.
func shown(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// read is a text frame as encoding/json reads it.
type read struct {
	ID, Type, Room, From, Ref, Timestamp string
	Data                                 json.RawMessage
}

func parse(t *testing.T, f []byte) (r read) {
	t.Helper()
	if err := json.Unmarshal([]byte(text(t, f)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func FuzzRender(f *testing.F) {
	f.Add("chat", "general", "u42", []byte(`{"text":"Hello"}`), moment, uint64(id1.Position), uint64(id1.Low), "ref")
	f.Add("notification", "@user/u", "a\"\\\n\x00\u2028<", []byte(`[1e400,"\u2028"]`), int64(-1), uint64(0), uint64(1)<<63, "")
	f.Add("", "", "\xff\xfe", []byte(``), int64(1)<<62, uint64(1)<<63, uint64(3), "\xff")
	f.Add("a", "b", strings.Repeat("\"", 40), []byte(`"`+strings.Repeat("x", 200)+`"`), int64(0), uint64(5), uint64(1)<<63|7, "😀")
	f.Add("a", "b", "", []byte(" \t1\n"), int64(0), uint64(5), uint64(9), "\x7f\u2029")
	f.Fuzz(func(t *testing.T, typ, room, from string, data []byte, ts int64, position, low uint64, ref string) {
		if len(data) > 0 && message.CheckJSON(data) != nil {
			return // no message has such data
		}
		// Any position and identity an id can hold.
		id := message.ID{Position: message.Position(position &^ (0xF << 60)), Low: message.Low(low&^(1<<62) | 1<<63)}
		m := &message.Message{ID: id, Type: message.Type(typ), Room: message.Room(room), From: from, Data: data, Timestamp: ts}
		b := frame.AppendMessage(nil, m)
		want := read{ID: id.String(), Type: shown(typ), Room: shown(string(m.Room.Shown())), From: shown(from), Data: bytes.TrimSpace(data)}
		if len(data) == 0 {
			want.Data = []byte("null")
		}
		got := parse(t, b)
		want.Timestamp = got.Timestamp // TestTimesAreRFC3339InUTCWithMilliseconds
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("message:\n%s", diff)
		}
		if again, ok := frame.ReadID(b); !ok || again != id {
			t.Errorf("ReadID = %v, %v, want %v", again, ok, id)
		}
		if typ != "" && len(typ) <= 64 && utf8.ValidString(typ) {
			out, err := frame.DecodeOut(frame.Payload(b))
			asRead := read{out.ID.String(), string(out.Type), out.Room, out.From, out.Ref, out.Timestamp.Format("2006-01-02T15:04:05.000Z07:00"), json.RawMessage(out.Data)}
			if diff := cmp.Diff(want, asRead); diff != "" || err != nil {
				t.Errorf("DecodeOut: %v\n%s", err, diff)
			}
		}
		ownFrame(t, m, ref)
	})
}

// ownFrame renders own frames with the texts of m.
func ownFrame(t *testing.T, m *message.Message, ref string) {
	frames := []own{
		frame.Error{Room: m.Room, Ref: ref, Code: frame.Code(m.Type), Text: m.From, TraceID: ref},
		frame.Pong{Ref: ref, Data: m.Data},
		frame.Renewed{Ref: ref, Expires: m.Timestamp},
		frame.Ack{Room: m.Room, Ref: ref, ID: m.ID},
		frame.Who{Room: m.Room, Ref: ref, Members: []frame.Member{{UserID: m.From, Status: ref, Since: m.Timestamp, Info: m.Data}, {}}},
		frame.History{Room: m.Room, Ref: ref, Messages: []*message.Message{m, m}, Next: ref},
	}
	for _, o := range frames {
		b := o.Append(nil, m.Timestamp)
		if got := parse(t, b); got.ID != hole || got.Ref != shown(ref) {
			t.Errorf("%T: id %q, ref %q, want a hole and %q", o, got.ID, got.Ref, shown(ref))
		}
		frame.Stamp(b, m.ID)
		if got := parse(t, b); got.ID != m.ID.String() {
			t.Errorf("%T stamped: id %q, want %q", o, got.ID, m.ID)
		}
		if id, ok := frame.ReadID(b); !ok || id != m.ID {
			t.Errorf("%T: ReadID = %v, %v, want %v", o, id, ok, m.ID)
		}
	}
	var e struct{ Code, Error string }
	if err := json.Unmarshal(parse(t, frames[0].Append(nil, 0)).Data, &e); err != nil || e.Error != shown(m.From) || e.Code != shown(string(m.Type)) {
		t.Errorf("error's data is %+v (%v), want %q and %q", e, err, m.Type, m.From)
	}
}
