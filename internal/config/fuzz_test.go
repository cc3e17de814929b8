package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever stands in a file of options: it says something for options that there are, or is refused, and says the same twice.
func FuzzReadFile(f *testing.F) {
	for _, text := range []string{
		"", "{}", "dev: true\nmax-sessions: 1\n", "origin: [a, \"b\"]", "grant:\n  team-*: rw\n  1: {}\n", "- dev", "{", "dev: &a [*a]", "a: &a {b: *a}",
		"? [dev]\n: 1", "dev: !!binary ''", "dev: 0x1p-2\norigin: .nan", "\"\\u0000\": 1", "dev:\n\t- 1", "<<: {dev: true}", "max-sessions: 2001-01-01", "\xff\xfe", "--- 1\n--- 2",
	} {
		f.Add([]byte(text))
	}
	known := map[string]bool{"dev": false, "origin": false, "max-sessions": false, "grant": true}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "realtime.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		values, err := readFile(path, known)
		for key := range values {
			if _, ok := known[key]; !ok {
				t.Errorf("%q is no option", key)
			}
		}
		again, errAgain := readFile(path, known)
		if d := cmp.Diff(values, again); d != "" || fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Errorf("read twice: %s\n%v\n%v", d, err, errAgain)
		}
	})
}

// A size is refused, or is what its own text says.
func FuzzBytes(f *testing.F) {
	for _, text := range []string{"0", "1", "64KiB", "8MiB", "1.5GiB", "65537", "-1", "9223372036854775807", "8EiB", "1kB", " 1", "", "NaN", "1e3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size, again Bytes
		if size.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(size.String())); err != nil || again != size {
			t.Errorf("%q is %d, shown as %s, read back as %d: %v", text, size, size, again, err)
		}
	})
}
