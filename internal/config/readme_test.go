package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestREADMEListsEveryOptionWithItsDefault compares the table of README.md with the flags, both ways and in order.
func TestREADMEListsEveryOptionWithItsDefault(t *testing.T) {
	doc, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ Flag, Default string }
	var told []row
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "`--") {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		told = append(told, row{cells[1], cells[2]})
		if cells[3] == "" {
			t.Errorf("%s has no meaning", cells[1])
		}
	}
	var g grammar
	var want []row
	for _, f := range parser(t, &g).Model.Children[0].Flags {
		d := f.Default
		if f.IsBool() && d == "" {
			d = "off"
		}
		want = append(want, row{"--" + f.Name, d})
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("flags (-) and README.md (+) differ:\n%s", d)
	}
}

// What the least of good() does not show: the largest, and sums that do not fit into a Duration.
func TestOptionsAreBoundedAboveToo(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Serve)
		option string
	}{
		"the largest send buffer":      {func(c *Serve) { c.SndbufBytes = 1 << 30 }, ""},
		"a send buffer too large":      {func(c *Serve) { c.SndbufBytes = 1<<30 + 1 }, "--sndbuf-bytes"},
		"a drain as long as its bound": {func(c *Serve) { c.DrainDelay, c.DrainWindow = 0, c.DrainTimeout }, ""},
		"a drain beyond all time":      {func(c *Serve) { c.DrainDelay, c.DrainWindow = 1<<63-1, 1<<63-1 }, "--drain-delay"},
		"a negative drain window":      {func(c *Serve) { c.DrainWindow = -1 }, "--drain-window"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			c.change(cfg)
			err := cfg.Validate()
			if c.option == "" && err != nil || c.option != "" && (err == nil || !strings.Contains(err.Error(), c.option)) {
				t.Errorf("Validate() = %v, want it to name %q", err, c.option)
			}
		})
	}
}
