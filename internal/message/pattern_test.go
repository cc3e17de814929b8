package message

import (
	"strings"
	"testing"
)

func TestTheLongestKeyThatMatchesDecidesAlone(t *testing.T) {
	p, err := NewPatterns(map[string]string{
		"*": "all", "team-*": "team", "team-7.*": "seven", "team-7.ops": "ops", "team-7.ops*": "ops and more", "deny": "",
	})
	if err != nil {
		t.Fatal(err)
	}
	for room, want := range map[Room]string{
		"general":       "all",
		"team-1":        "team",
		"team-":         "team", // the rest may be empty
		"team-7":        "team",
		"team-7.":       "seven",
		"team-7.a.b/c":  "seven", // dots and slashes included
		"team-7.op":     "seven",
		"team-7.ops":    "ops", // exact names first, though a longer key matches as well
		"team-7.ops.on": "ops and more",
		"deny":          "", // decided: an empty value is a value
	} {
		if got, ok := p.Lookup(room); got != want || !ok {
			t.Errorf("Lookup(%q) = %q, %v, want %q", room, got, ok, want)
		}
	}
}

func TestWithoutAKeyThatMatchesNothingIsFound(t *testing.T) {
	p, err := NewPatterns(map[string]int{"a": 1, "b*": 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []Room{"", "aa", "ab", "c"} {
		if v, ok := p.Lookup(room); ok || v != 0 {
			t.Errorf("Lookup(%q) = %d, %v, want nothing", room, v, ok)
		}
	}
	var zero Patterns[int]
	if _, ok := zero.Lookup("a"); ok {
		t.Error("the zero Patterns matches")
	}
}

func TestAStarStandsAtTheEndOnly(t *testing.T) {
	for _, key := range []string{"", "a*b", "*a", "**", "a**"} {
		_, err := NewPatterns(map[string]int{key: 1})
		if err == nil {
			t.Errorf("NewPatterns(%q): accepted", key)
		} else if !strings.Contains(err.Error(), `"`+key+`"`) {
			t.Errorf("NewPatterns(%q) = %v: which key?", key, err)
		}
	}
}
