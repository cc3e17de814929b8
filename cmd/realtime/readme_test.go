package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

func TestREADMEListsEveryCommand(t *testing.T) {
	doc, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var told, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `realtime (\\w+)` \\| ..+ \\|$").FindAllStringSubmatch(string(doc), -1) {
		told = append(told, row[1])
	}
	k, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range k.Model.Children {
		want = append(want, command.Name)
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("commands (-) and README.md (+) differ:\n%s", d)
	}
}
