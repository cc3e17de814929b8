package message

import (
	"errors"
	"hash/fnv"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestARoomNameFollowsTheRule(t *testing.T) {
	for name, s := range map[string]string{
		"one character":               "a",
		"every character that may be": "azAZ09_.:@/-",
		"128 bytes":                   strings.Repeat("a", 128),
		"dots inside a segment":       "a..b/.c/d.",
		"three dots as a segment":     "a/...",
		"an @ that is not the first":  "team/@all",
		"a dash first":                "-a",
		"segments":                    "a/b/c",
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := ParseRoom(s); err != nil || string(r) != s || !r.Ordinary() {
				t.Errorf("ParseRoom(%q) = %q, %v, want it accepted as an ordinary room", s, r, err)
			}
		})
	}
}

func TestAnyOtherRoomNameIsRefused(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                    "",
		"129 bytes":                strings.Repeat("a", 129),
		"a dot first":              ".a",
		"a slash first":            "/a",
		"the server's mark first":  "@a",
		"the room of everyone":     "@global",
		"a user's room":            "@user/u1",
		"a slash last":             "a/",
		"an empty segment":         "a//b",
		"a segment of one dot":     "a/./b",
		"a segment of two dots":    "a/../b",
		"a last segment of dots":   "a/..",
		"a blank":                  "a b",
		"a pattern's star":         "a*",
		"a hash tag":               "{a}",
		"an escaped slash":         "a%2fb",
		"a line end":               "a\n",
		"a NUL":                    "a\x00",
		"a letter beyond ASCII":    "é",
		"bytes that are no letter": "\xff",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRoom(s)
			var m *Error
			if r != "" || !errors.Is(err, ErrInvalidRoom) || !errors.As(err, &m) {
				t.Fatalf("ParseRoom(%q) = %q, %v, want an *Error around ErrInvalidRoom", s, r, err)
			}
			if m.Field != "room" || m.Limit != MaxRoomBytes || m.Size != len(s) {
				t.Errorf("field %q limit %d size %d, want room, %d, %d", m.Field, m.Limit, m.Size, MaxRoomBytes, len(s))
			}
			if len(s) > 3 && strings.Contains(m.Text, s) {
				t.Errorf("the text quotes the name: %s", m.Text)
			}
		})
	}
}

var roomChars = regexp.MustCompile(`^[A-Za-z0-9_.:@/-]{1,128}$`)

func FuzzParseRoom(f *testing.F) {
	for _, s := range []string{"a", "a/b", "a//b", "a/./b", "a/../b", "a/..", ".a", "@a", "/", "a/", "a\n", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := ParseRoom(s)
		// a path that cleaning leaves as it is has none of the forbidden segments
		want := roomChars.MatchString(s) && !strings.ContainsAny(s[:1], "./@") && path.Clean(s) == s
		if (err == nil) != want {
			t.Fatalf("ParseRoom(%q) = %v, want accepted %v", s, err, want)
		}
	})
}

func TestRoomsOfTheServerAreNotOrdinary(t *testing.T) {
	for _, c := range []struct {
		room     Room
		ordinary bool
		shown    Room
		user     string
		isUser   bool
	}{
		{"general", true, "general", "general", false},
		{Global, false, Global, "@global", false},
		{Me, false, Me, "@me", false},
		{"", false, "", "", false},
		{UserRoom("u1"), false, Me, "u1", true},
		{UserRoom("a/b"), false, Me, "a/b", true},
	} {
		user, isUser := c.room.User()
		if c.room.Ordinary() != c.ordinary || c.room.Shown() != c.shown || user != c.user || isUser != c.isUser {
			t.Errorf("%q: ordinary %v, shown %q, user %q %v", c.room, c.room.Ordinary(), c.room.Shown(), user, isUser)
		}
	}
}

func TestTheTagIsThirteenBitsOfTheNamesHash(t *testing.T) {
	for _, r := range []Room{"", "a", "general", Global, UserRoom("u1"), Room(strings.Repeat("x", 128))} {
		h := fnv.New32a()
		h.Write([]byte(r))
		if got, want := r.Tag(), uint16(h.Sum32()%8192); got != want {
			t.Errorf("tag of %q = %#x, want %#x", r, got, want)
		}
	}
}

func TestAUserIDIsPrintable(t *testing.T) {
	for _, s := range []string{"u", strings.Repeat("u", 128), "Zoë", "人", "a b", "\u00a0", "a/b", "*", strings.Repeat("é", 64)} {
		if err := CheckUser(s); err != nil {
			t.Errorf("CheckUser(%q) = %v, want it accepted", s, err)
		}
	}
	for name, s := range map[string]string{
		"empty":                       "",
		"129 bytes":                   strings.Repeat("u", 129),
		"65 characters of two bytes":  strings.Repeat("é", 65),
		"not UTF-8":                   "\xff",
		"half a surrogate pair":       "\xed\xa0\x80",
		"NUL":                         "a\x00",
		"a line end":                  "a\n",
		"the last control character":  "a\x1f",
		"DEL":                         "a\x7f",
		"the first of C1":             "a\u0080",
		"the last of C1":              "a\u009f",
		"a line separator":            "a\u2028",
		"a paragraph separator":       "a\u2029",
		"left-to-right embedding":     "a\u202a",
		"right-to-left override":      "a\u202e",
		"left-to-right mark":          "a\u200e",
		"right-to-left mark":          "a\u200f",
		"Arabic letter mark":          "a\u061c",
		"left-to-right isolate":       "a\u2066",
		"pop directional isolate":     "a\u2069",
		"a mark of the order of byte": "\ufeffa",
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckUser(s)
			if !errors.Is(err, ErrInvalidUser) {
				t.Errorf("CheckUser(%q) = %v, want ErrInvalidUser", s, err)
			}
		})
	}
}
