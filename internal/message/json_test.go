package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestAnyJSONValueIsData(t *testing.T) {
	for name, s := range map[string]string{
		"null":                       `null`,
		"an object":                  `{"a":1,"b":[true,false,null]}`,
		"blanks around":              " \t\r\n 1 \n",
		"a number beyond a double":   `[9007199254740993,1e400,-0,1.0000000000000000000001]`,
		"an escaped surrogate pair":  `"\ud83d\ude00"`,
		"keys that differ in case":   `{"a":1,"A":2}`,
		"a key twice, not in one":    `[{"a":1},{"a":1},{"b":{"a":1}}]`,
		"brackets in a string":       `"` + strings.Repeat("[", 100) + `\"` + strings.Repeat("{", 100) + `"`,
		"the deepest there may be":   nested(MaxDepth),
		"much, but next to it":       `[` + strings.Repeat("[[]],", 100) + `1]`,
		"an empty key":               `{"":1}`,
		"a NUL that is escaped":      `"\u0000"`,
		"letters of other alphabets": `{"Zoë":"人"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckJSON([]byte(s)); err != nil {
				t.Errorf("CheckJSON(%.80q) = %v", s, err)
			}
		})
	}
}

func TestWhatIsNotOneValueIsNoData(t *testing.T) {
	const secret = "hunter2"
	for name, c := range map[string]struct{ data, text string }{
		"nothing":                   {``, "not one valid"},
		"blanks":                    {` `, "not one valid"},
		"two values":                {`1 2`, "not one valid"},
		"a value and a comma":       {`1,`, "not one valid"},
		"half an object":            {`{"` + secret + `":1`, "not one valid"},
		"a comma too many":          {`[1,]`, "not one valid"},
		"single quotes":             {`'` + secret + `'`, "not one valid"},
		"NaN":                       {`NaN`, "not one valid"},
		"a leading zero":            {`01`, "not one valid"},
		"a comment":                 {`1 // ` + secret, "not one valid"},
		"a mark of the byte order":  {"\ufeff1", "not one valid"},
		"bytes that are not UTF-8":  {"\"\xff\"", "not one valid"},
		"half a surrogate pair":     {`"\ud83d"`, "not one valid"},
		"the pair the wrong way":    {`"\ude00\ud83d"`, "not one valid"},
		"a surrogate in UTF-8":      {"\"\xed\xa0\xbd\"", "not one valid"},
		"a raw line end":            {"\"a\nb\"", "not one valid"},
		"a raw NUL":                 {"\"\x00\"", "not one valid"},
		"a key twice":               {`{"` + secret + `":1,"` + secret + `":2}`, "duplicate key"},
		"a key twice, deep inside":  {`[[{"a":{"b":1,"c":2,"b":3}}]]`, "duplicate key"},
		"a key twice, once escaped": {`{"a":1,"\u0061":2}`, "duplicate key"},
		"one too deep":              {nested(MaxDepth + 1), "deeper than 32"},
		"one too deep, in objects":  {strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1), "deeper than 32"},
		"as deep as it goes":        {strings.Repeat("[", 60_000), "deeper than 32"},
		"deep behind a string":      {`["\\",` + nested(MaxDepth) + `]`, "deeper than 32"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckJSON([]byte(c.data))
			var m *Error
			if !errors.Is(err, ErrInvalidData) || !errors.As(err, &m) || m.Field != "data" {
				t.Fatalf("CheckJSON(%.80q) = %v, want an *Error around ErrInvalidData", c.data, err)
			}
			if !strings.Contains(m.Text, c.text) {
				t.Errorf("text %q, want %q", m.Text, c.text)
			}
			if strings.Contains(m.Text, secret) {
				t.Errorf("the text quotes the input: %s", m.Text)
			}
		})
	}
}

// independent judges the same rules by other means: the standard library's grammar, and the rest by hand.
func independent(data []byte) bool {
	if !json.Valid(data) || !utf8.Valid(data) || loneSurrogate(data) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	type level struct {
		keys map[string]bool // nil: an array
		key  bool            // an object's key is due
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return false
		}
		if top := len(stack) - 1; top >= 0 && stack[top].keys != nil {
			if name, ok := tok.(string); ok && stack[top].key {
				if stack[top].keys[name] {
					return false
				}
				stack[top].keys[name] = true
				stack[top].key = false
				continue
			}
			stack[top].key = true // what follows a value
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{keys: make(map[string]bool), key: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > MaxDepth {
			return false
		}
	}
}

// loneSurrogate looks at the escapes of valid JSON, where a backslash stands in strings only.
func loneSurrogate(data []byte) bool {
	pending := false // a high half waits for its low half
	for i := 0; i < len(data); i++ {
		unit := uint64(0)
		if data[i] == '\\' {
			if data[i+1] == 'u' {
				unit, _ = strconv.ParseUint(string(data[i+2:i+6]), 16, 16)
				i += 4
			}
			i++
		}
		low := unit >= 0xdc00 && unit <= 0xdfff
		if pending != low {
			return true
		}
		pending = unit >= 0xd800 && unit <= 0xdbff
	}
	return pending
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{
		`null`, `{"a":[1,2.5e-3,"\u00e9\n",true]}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1},"b":{"a":1}}`, `"\ud83d\ude00"`, `"\ud83d"`,
		`"\\ud83d"`, nested(32), nested(33), `[[{"a":1,"a":1}]]`, "\"\xff\"", ` 1 `, `1 2`, `{"":1,"":2}`, `"\"[[[["`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		err := CheckJSON(data)
		if want := independent(data); (err == nil) != want {
			t.Fatalf("CheckJSON(%q) = %v, an independent reading says %v", data, err, want)
		}
		if !bytes.Equal(data, before) {
			t.Fatalf("CheckJSON changed %q to %q", before, data)
		}
		if err == nil {
			var m map[string]json.RawMessage
			_ = json.Unmarshal(data, &m)
			if _, want := m["event"]; hasKey(data, "event") != want {
				t.Fatalf("hasKey(%q, event) = %v, want %v", data, !want, want)
			}
		}
	})
}

// A decoder is used again: what one input left behind, a failure above all, must not reach the next one.
func TestACheckKnowsNothingOfTheOneBefore(t *testing.T) {
	good, bad := []byte(`{"a":{"b":[1]}}`), []byte(`{"a":{"b":[1`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if err := CheckJSON(bad); err == nil {
					t.Error("half a value is accepted")
				}
				if err := CheckJSON(good); err != nil {
					t.Errorf("a value is refused: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCheckJSON(b *testing.B) {
	for _, c := range []struct{ name, data string }{
		{"small", `{"text":"Hello","at":{"x":1,"y":[1,2,3]}}`},
		{"64KiB string", `"` + strings.Repeat("a", DefaultMaxDataBytes-2) + `"`},
		{"5000 keys", manyKeys()},
		{"too deep", strings.Repeat("[", DefaultMaxDataBytes)},
	} {
		b.Run(c.name, func(b *testing.B) {
			data := []byte(c.data)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				_ = CheckJSON(data)
			}
		})
	}
}

func manyKeys() string {
	s := []byte(`{"":1`)
	for i := range 4999 {
		s = append(s, `,"`+strconv.Itoa(i)+`":1`...)
	}
	return string(append(s, '}'))
}
