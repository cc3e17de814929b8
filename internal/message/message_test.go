package message

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func good() *Message {
	return &Message{Type: TypeChat, Room: "general", Data: []byte(`{"text":"Hello"}`)}
}

func quoted(bytes int) []byte { return []byte(`"` + strings.Repeat("a", bytes-2) + `"`) }

func times(n int, s string) (out []string) {
	for range n {
		out = append(out, s)
	}
	return out
}

func TestAMessageWithinItsLimitsIsTaken(t *testing.T) {
	for name, change := range map[string]func(*Message){
		"an ordinary one":               func(*Message) {},
		"from of 128 bytes":             func(m *Message) { m.From = strings.Repeat("f", 128) },
		"no from":                       func(m *Message) { m.From = "" },
		"data at the limit":             func(m *Message) { m.Data = quoted(1000) },
		"100 exclusions together":       func(m *Message) { m.ExcludeSessions, m.ExcludeUsers = times(50, "s"), times(50, "u") },
		"an excluded id of 64 bytes":    func(m *Message) { m.ExcludeSessions = times(1, strings.Repeat("s", 64)) },
		"an excluded user of 128 bytes": func(m *Message) { m.ExcludeUsers = times(1, strings.Repeat("u", 128)) },
		"the first millisecond":         func(m *Message) { m.Timestamp = 0 },
		"the last millisecond of 9999": func(m *Message) {
			m.Timestamp = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() - 1
		},
		"system without a key event": func(m *Message) { m.Type, m.Data = TypeSystem, []byte(`{"events":[{"event":1}]}`) },
		"system with text":           func(m *Message) { m.Type, m.Data = TypeSystem, []byte(`"event"`) },
		"event, but not of system":   func(m *Message) { m.Data = []byte(`{"event":"welcome"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			change(m)
			if err := m.Check(1000); err != nil {
				t.Errorf("Check = %v", err)
			}
		})
	}
}

func TestWhatIsBeyondALimitIsNamedWithItsFieldAndNumbers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Message)
		want   Error
	}{
		"no type":           {func(m *Message) { m.Type = "" }, Error{Err: ErrForbiddenType, Field: "type", Limit: 64}},
		"from of 129 bytes": {func(m *Message) { m.From = strings.Repeat("f", 129) }, Error{Err: ErrInvalid, Field: "from", Limit: 128, Size: 129}},
		"from that is not printable": {
			func(m *Message) { m.From = "a\u202eb" }, Error{Err: ErrInvalid, Field: "from", Limit: 128, Size: 5},
		},
		"data one above": {func(m *Message) { m.Data = quoted(1001) }, Error{Err: ErrTooLarge, Field: "data", Limit: 1000, Size: 1001}},
		"large and no JSON either": {
			func(m *Message) { m.Data = []byte(strings.Repeat("[", 1001)) }, Error{Err: ErrTooLarge, Field: "data", Limit: 1000, Size: 1001},
		},
		"no data": {func(m *Message) { m.Data = nil }, Error{Err: ErrInvalidData, Field: "data"}},
		"system with a key event": {
			func(m *Message) { m.Type, m.Data = TypeSystem, []byte(`{"a":{},"event":1}`) }, Error{Err: ErrInvalidData, Field: "data"},
		},
		"system with a key event, escaped": {
			func(m *Message) { m.Type, m.Data = TypeSystem, []byte(`{"\u0065vent":1}`) }, Error{Err: ErrInvalidData, Field: "data"},
		},
		"101 exclusions together": {
			func(m *Message) { m.ExcludeSessions, m.ExcludeUsers = times(50, "s"), times(51, "u") },
			Error{Err: ErrInvalid, Field: "exclude_session_ids", Limit: 100, Size: 101},
		},
		"an excluded id of 65 bytes": {
			func(m *Message) { m.ExcludeSessions = []string{"s", strings.Repeat("s", 65)} }, Error{Err: ErrInvalidUser, Field: "exclude_session_ids"},
		},
		"an empty excluded id": {func(m *Message) { m.ExcludeSessions = []string{""} }, Error{Err: ErrInvalidUser, Field: "exclude_session_ids"}},
		"an excluded user of 129 bytes": {
			func(m *Message) { m.ExcludeUsers = times(1, strings.Repeat("u", 129)) }, Error{Err: ErrInvalidUser, Field: "exclude_user_ids"},
		},
		"before 1970": {func(m *Message) { m.Timestamp = -1 }, Error{Err: ErrInvalid, Field: "timestamp"}},
		"after 9999": {
			func(m *Message) { m.Timestamp = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli() }, Error{Err: ErrInvalid, Field: "timestamp"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := good()
			c.change(m)
			err := m.Check(1000)
			var got *Error
			if !errors.As(err, &got) || !errors.Is(err, c.want.Err) {
				t.Fatalf("Check = %v, want an *Error around %q", err, c.want.Err)
			}
			if got.Field != c.want.Field || got.Limit != c.want.Limit || got.Size != c.want.Size || got.Text == "" || err.Error() != got.Text {
				t.Errorf("Check = %+v, want %+v with a text", *got, c.want)
			}
		})
	}
}

func TestATypeHasItsForm(t *testing.T) {
	for _, s := range []Type{"a", "chat", "a0_.-z", "order.created", Type(strings.Repeat("t", 64))} {
		if err := s.Check(); err != nil {
			t.Errorf("Check(%q) = %v", s, err)
		}
	}
	for _, s := range []Type{"", "A", "0a", "_a", ".a", "-a", "aB", "a b", "a/b", "a:b", "é", "a\x00", Type(strings.Repeat("t", 65))} {
		err := s.Check()
		if !errors.Is(err, ErrForbiddenType) {
			t.Errorf("Check(%q) = %v, want ErrForbiddenType", s, err)
		} else if s == "aB" && strings.Contains(err.Error(), string(s)) {
			t.Errorf("the text quotes the type: %v", err)
		}
	}
}

func TestTheServersOwnTypesAreKnown(t *testing.T) {
	own := strings.Fields("presence error ack ping pong subscribe unsubscribe who history auth")
	backends := []string{"notification", "system"}
	for _, s := range append(own, "chat", "notification", "system", "order.created", "acks", "") {
		typ := Type(s)
		if got, want := typ.Reserved(), slices.Contains(own, s); got != want {
			t.Errorf("%q reserved = %v, want %v", s, got, want)
		}
		if got, want := typ.BackendOnly(), slices.Contains(own, s) || slices.Contains(backends, s); got != want {
			t.Errorf("%q for backends only = %v, want %v", s, got, want)
		}
	}
}

func TestAnExclusionHoldsForTheSessionOrAllOfTheUsers(t *testing.T) {
	m := good()
	if m.HasExclusions() || m.Excludes("s1", "u1") || m.Excludes("", "") {
		t.Error("a message without exclusions excludes somebody")
	}
	m.ExcludeSessions, m.ExcludeUsers = []string{"s1"}, []string{"u1", ""}
	if !m.HasExclusions() {
		t.Error("exclusions are not seen")
	}
	for _, c := range []struct {
		session, user string
		want          bool
	}{
		{"s1", "u2", true},
		{"s2", "u1", true},
		{"s2", "u2", false},
		{"u1", "s1", false},
		{"s2", "", false}, // a session without a user is never meant by one
	} {
		if got := m.Excludes(c.session, c.user); got != c.want {
			t.Errorf("Excludes(%q, %q) = %v, want %v", c.session, c.user, got, c.want)
		}
	}
	if (&Message{ExcludeUsers: []string{"u"}}).HasExclusions() == false {
		t.Error("users alone are exclusions too")
	}
}

func TestATimestampIsShownInUTC(t *testing.T) {
	m := &Message{Timestamp: 1_700_000_000_123}
	if got, want := m.Time().Format(time.RFC3339Nano), "2023-11-14T22:13:20.123Z"; got != want {
		t.Errorf("Time = %s, want %s", got, want)
	}
}

func ExampleError() {
	err := (&Message{Type: TypeChat, Data: []byte(`"0123456789"`)}).Check(8)
	if m, ok := errors.AsType[*Error](err); ok {
		fmt.Println(m.Field, m.Size, m.Limit, errors.Is(err, ErrTooLarge))
	}
	// Output: data 12 8 true
}
