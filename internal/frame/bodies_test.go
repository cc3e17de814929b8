package frame_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
)

// body is a case of one kind of body: what comes out of data, or part of the error's text.
type body struct {
	room, data string
	want       any
	err        string
}

// run decodes whole frames, so that a body is read as it is in the server.
func run(t *testing.T, typ string, read func(frame.In) (any, error), tests []body) {
	t.Helper()
	for _, tt := range tests {
		f := fmt.Sprintf(`{"type":%q,"ref":"7","room":%q`, typ, tt.room)
		if tt.data != "" {
			f += `,"data":` + tt.data
		}
		in, err := frame.Decode([]byte(f + `}`))
		if err != nil {
			t.Fatalf("%s: %v", tt.data, err)
		}
		got, err := read(in)
		if tt.err == "" {
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%s of room %q, data %s: %v\n%s", typ, tt.room, tt.data, err, diff)
			}
			continue
		}
		bad, ok := errors.AsType[*frame.DecodeError](err)
		if !ok {
			t.Errorf("%s with data %s = %+v, %v, want a DecodeError", typ, tt.data, got, err)
			continue
		}
		code, text, found := strings.Cut(tt.err, ": ")
		if !found {
			code, text = string(frame.CodeBadFrame), tt.err
		}
		if string(bad.Code) != code || bad.Ref != "7" || !strings.Contains(bad.Text, text) || strings.Contains(bad.Text, mark) {
			t.Errorf("%s with data %s: error %+v, want ref 7, code %s, text with %q", typ, tt.data, *bad, code, text)
		}
	}
}

func TestSubscribeTakesOneRoomOrSeveralInOrder(t *testing.T) {
	id := id1.String()
	run(t, "subscribe", func(in frame.In) (any, error) { return in.Subscribe(3) }, []body{
		{room: "a", want: []frame.Want{{Room: "a"}}},
		{room: "", want: []frame.Want{{}}},
		{room: "a", data: `null`, want: []frame.Want{{Room: "a"}}},
		{room: "a", data: `{}`, want: []frame.Want{{Room: "a"}}},
		{room: "a", data: `{"last_id":"` + id + `","x":{"rooms":1}}`, want: []frame.Want{{Room: "a", LastID: id}}},
		{room: "a", data: `{"last_\u0069d":"` + id + `","rooms":null}`, want: []frame.Want{{Room: "a", LastID: id}}},
		{room: "a", data: `{"last_id":"undefined"}`, want: []frame.Want{{Room: "a", LastID: "undefined"}}},
		{room: "a", data: `{"last_id":null}`, want: []frame.Want{{Room: "a"}}},
		{room: "a", data: `{"last_id":[1]}`, want: []frame.Want{{Room: "a"}}},
		{room: "a", data: `{"LAST_ID":"x"}`, want: []frame.Want{{Room: "a"}}},
		{data: `{"rooms":{"z":"` + id + `","a":null,"m\u002f\"":""}}`, want: []frame.Want{{Room: "z", LastID: id}, {Room: "a"}, {Room: `m/"`}}},
		{data: `{"rooms":{"z":5}}`, want: []frame.Want{{Room: "z"}}},
		{data: `{"rooms":{"a":null,"b":null,"c":null,"sEcReT":null}}`, err: "room_limit: at most 3 rooms"},
		{data: `{"rooms":{}}`, err: "data.rooms is empty"},
		{data: `{"rooms":["a"]}`, err: "data.rooms must be an object"},
		{data: `{"rooms":"a"}`, err: "data.rooms must be an object"},
		{data: `{"rooms":{"a":null},"last_id":"` + id + `"}`, err: "each room has its own last id"},
		{room: "b", data: `{"rooms":{"a":null}}`, err: "not both"},
		{data: `"sEcReT"`, err: "data must be an object"},
		{data: `[]`, err: "data must be an object"},
	})
}

func TestUnsubscribeTakesOneRoomOrSeveral(t *testing.T) {
	run(t, "unsubscribe", func(in frame.In) (any, error) { return in.Unsubscribe(3) }, []body{
		{room: "a", want: []string{"a"}},
		{want: []string{""}},
		{room: "a", data: `{"rooms":null}`, want: []string{"a"}},
		{data: `{"rooms":["b" , "\u0061","b"],"x":1}`, want: []string{"b", "a", "b"}},
		{data: `{"rooms":["a","b","c","sEcReT"]}`, err: "room_limit: at most 3 rooms"},
		{data: `{"rooms":["a",1]}`, err: "must hold strings"},
		{data: `{"rooms":["a",null]}`, err: "must hold strings"},
		{data: `{"rooms":[]}`, err: "data.rooms is empty"},
		{data: `{"rooms":{"a":null}}`, err: "data.rooms must be an array"},
		{room: "b", data: `{"rooms":["a"]}`, err: "not both"},
		{data: `1`, err: "data must be an object"},
	})
}

func TestStatusIsOnlineOrAway(t *testing.T) {
	run(t, "presence", func(in frame.In) (any, error) { return in.Status() }, []body{
		{data: `{"status":"online"}`, want: "online"},
		{data: `{"x":[],"status":"away"}`, want: "away"},
		{data: `{"status":"offline"}`, err: "online or away"},
		{data: `{"status":"sEcReT"}`, err: "online or away"},
		{data: `{"status":"Away"}`, err: "online or away"},
		{data: `{"status":1}`, err: "data.status must be a string"},
		{data: `{}`, err: "online or away"},
		{data: ``, err: "online or away"},
		{data: `"away"`, err: "data must be an object"},
	})
}

func TestWhoAsksForAPageOfAtMost200(t *testing.T) {
	type page struct {
		After string
		Limit int
	}
	read := func(in frame.In) (any, error) {
		after, limit, err := in.Who()
		return page{after, limit}, err
	}
	run(t, "who", read, []body{
		{want: page{"", 100}},
		{data: `{"after":null,"limit":null}`, want: page{"", 100}},
		{data: `{"after":"n","limit":1}`, want: page{"n", 1}},
		{data: `{"limit":200}`, want: page{"", 200}},
		{data: `{"limit":201}`, want: page{"", 200}},
		{data: `{"limit":99999999999999999999999}`, want: page{"", 200}},
		{data: `{"limit":0}`, err: "whole number from 1"},
		{data: `{"limit":-1}`, err: "whole number from 1"},
		{data: `{"limit":1.5}`, err: "whole number from 1"},
		{data: `{"limit":1e2}`, err: "whole number from 1"},
		{data: `{"limit":"10"}`, err: "whole number from 1"},
		{data: `{"limit":[]}`, err: "whole number from 1"},
		{data: `{"after":5}`, err: "data.after must be a string"},
		{data: `[]`, err: "data must be an object"},
	})
}

func TestHistoryAsksForOnePageFromOnePlace(t *testing.T) {
	a, b := id1.String(), id2.String()
	run(t, "history", func(in frame.In) (any, error) { return in.History() }, []body{
		{want: frame.HistoryWant{Limit: 50}},
		{data: `{"before":"","after":null,"page":""}`, want: frame.HistoryWant{Limit: 50}},
		{data: `{"before":"` + a + `","limit":7}`, want: frame.HistoryWant{Before: id1, Limit: 7}},
		{data: `{"limit":500,"after":"` + strings.ToUpper(b) + `"}`, want: frame.HistoryWant{After: id2, Limit: 100}},
		{data: `{"page":"p q"}`, want: frame.HistoryWant{Page: "p q", Limit: 50}},
		{data: `{"before":"` + a + `","after":"` + b + `"}`, err: "at most one"},
		{data: `{"before":"` + a + `","page":"p"}`, err: "at most one"},
		{data: `{"after":"` + a + `","page":"p"}`, err: "at most one"},
		{data: `{"before":"sEcReT"}`, err: "data.before must be the id"},
		{data: `{"after":1}`, err: "data.after must be a string"},
		{data: `{"page":{}}`, err: "data.page must be a string"},
		{data: `{"limit":0}`, err: "whole number from 1"},
		{data: `true`, err: "data must be an object"},
	})
}

func TestTokenIsAText(t *testing.T) {
	run(t, "auth", func(in frame.In) (any, error) { return in.Token() }, []body{
		{data: `{"token":"a.b.c"}`, want: "a.b.c"},
		{data: `{"token":""}`, err: "data.token is missing"},
		{data: `{"token":null}`, err: "data.token is missing"},
		{data: `{}`, err: "data.token is missing"},
		{err: "data.token is missing"},
		{data: `{"token":["sEcReT"]}`, err: "data.token must be a string"},
		{data: `"sEcReT"`, err: "data must be an object"},
	})
}

func TestBodiesOfUncheckedDataAreRefusedNotTrusted(t *testing.T) {
	for _, data := range []string{`{"rooms":`, `{"rooms":{"a":1}`, `{"token":"a" "b"}`, `{"token":"a","token":"b"}`, `{]`} {
		in := frame.In{Ref: "7", Data: []byte(data)}
		_, subscribe := in.Subscribe(3)
		_, unsubscribe := in.Unsubscribe(3)
		_, status := in.Status()
		_, _, who := in.Who()
		_, history := in.History()
		_, token := in.Token()
		for i, err := range []error{subscribe, unsubscribe, status, who, history, token} {
			if bad, ok := errors.AsType[*frame.DecodeError](err); !ok || bad.Ref != "7" {
				t.Errorf("body %d of %s: error %v, want a DecodeError with the ref", i, data, err)
			}
		}
	}
}
