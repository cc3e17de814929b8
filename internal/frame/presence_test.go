package frame

import "testing"

func TestPresenceDataIsWhatTheProtocolSays(t *testing.T) {
	ada := PresenceChange{UserID: "ada", Status: "online", Since: 1768473000123, Info: []byte(`{"n":1.0}`)}
	bob := PresenceChange{UserID: `b"b`, Status: "offline", Since: 1768473000000}
	const adas = `{"status":"online","user_id":"ada","since":"2026-01-15T10:30:00.123Z","info":{"n":1.0}}`
	for want, got := range map[string][]byte{
		adas: AppendPresenceChanges(nil, []PresenceChange{ada}),
		`{"changes":[` + adas + `,{"status":"offline","user_id":"b\"b","since":"2026-01-15T10:30:00.000Z"}]}`: AppendPresenceChanges(nil, []PresenceChange{ada, bob}),
		`{"mode":"counts","users":1001,"sessions":1200}`:                                                      AppendPresenceCounts(nil, 1001, 1200),
		`{"mode":"events"}`: AppendPresenceEvents(nil),
	} {
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAFrameOfOneSessionIsWhatWasGiven(t *testing.T) {
	got := string(Payload(Own{Type: "hello", Room: "a", From: "me", Data: []byte(`[1]`)}.Append(nil, 1768473000123)))
	if want := `{"id":"` + hole + `","type":"hello","room":"a","from":"me","data":[1],"timestamp":"2026-01-15T10:30:00.123Z"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
