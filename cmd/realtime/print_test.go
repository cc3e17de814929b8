package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

func TestAWordIsOneWord(t *testing.T) {
	for s, want := range map[string]string{
		"": "-", "-": `"-"`, "alice": "alice", "a b": `"a b"`, "a\nb": `"a\nb"`, `a"b`: `"a\"b"`, "\x1b[2J": `"\x1b[2J"`, "é": "é",
		"\u202eevil": `"\u202eevil"`, "@user/a": "@user/a",
	} {
		if got := word(s); got != want {
			t.Errorf("word(%q) = %s, want %s", s, got, want)
		}
	}
}

func TestDataIsOneLineAndTheSameValue(t *testing.T) {
	for data, want := range map[string]string{
		"": "null", `{"a": [1,` + "\n" + ` "x y"]}`: `{"a":[1,"x y"]}`, `"\u0041\n"`: `"\u0041\n"`, "\"\u009b\u202e\U000e0001\"": `"\u009b\u202e\udb40\udc01"`,
		"9007199254740993": "9007199254740993", `{"a":1,"a":2}`: `{"a":1,"a":2}`, "{\n": `"{\n"`, "\"é世\"": "\"é世\"",
	} {
		if got := oneLine(data); got != want {
			t.Errorf("oneLine(%q) = %s, want %s", data, got, want)
		}
	}
}

func FuzzDataIsPrintedOnOneLineWithoutChange(f *testing.F) {
	for _, s := range []string{"null", "{\n\"a\" : [1, 2]}", "\"\u009b\"", "\"\\ud800\"", "[", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		got := oneLine(data)
		for _, r := range got {
			if !unicode.IsGraphic(r) {
				t.Fatalf("oneLine(%q) = %q has %U", data, got, r)
			}
		}
		var before, after any
		if json.Unmarshal([]byte(data), &before) != nil || strings.ToValidUTF8(data, "") != data {
			return
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Fatalf("oneLine(%q) = %q is another value (%v)", data, got, err)
		}
	})
}
