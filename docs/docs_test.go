// Package docs compares what the documents say with what they speak of.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The codes are those of the contract: each reason's comment begins with its own.
func TestTheAPIPageHasEveryReasonWithItsCode(t *testing.T) {
	want := make(map[string]string)
	proto := read(t, "../proto/realtime/v1/types.proto")
	for _, m := range regexp.MustCompile(`(?m)(?:^  //.*\n)*^  // ([A-Z_]+)[: ].*\n(?:^  //.*\n)*?^  ERROR_REASON_(\w+) = \d+;`).FindAllStringSubmatch(proto, -1) {
		want[m[2]] = m[1]
	}
	named := make(map[string]string)
	for n, name := range realtimev1.ErrorReason_name {
		if n != 0 {
			reason := strings.TrimPrefix(name, "ERROR_REASON_")
			named[reason] = want[reason]
		}
	}
	if d := cmp.Diff(named, want); d != "" {
		t.Fatalf("the enum (-) and its comments (+) differ:\n%s", d)
	}
	told := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([A-Z_]+) \\| ..+ \\|$").FindAllStringSubmatch(read(t, "api.md"), -1) {
		if _, twice := told[m[1]]; twice {
			t.Errorf("%s is told twice", m[1])
		}
		told[m[1]] = m[2]
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("the contract (-) and docs/api.md (+) differ:\n%s", d)
	}
}

// documents are all pages, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"../README.md": read(t, "../README.md"), "../CONTRIBUTING.md": read(t, "../CONTRIBUTING.md")}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.Name() == "node_modules" {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			all[path] = read(t, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// anchors are where a page's headings can be linked to.
func anchors(page string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		all[regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(anchor, "")] = true
	}
	return all
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	pages, links := documents(t), 0
	for path, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`).FindAllStringSubmatch(page, -1) {
			links++
			target := filepath.Join(filepath.Dir(path), m[1])
			if m[1] == "" {
				target = path
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s", path, err)
			} else if m[2] != "" && !anchors(pages[target])[m[2]] {
				t.Errorf("%s: %s has no heading for #%s", path, target, m[2])
			}
		}
	}
	if links < 40 {
		t.Errorf("only %d links were found", links)
	}
}

func TestEveryDecisionIsNumberedAndNamed(t *testing.T) {
	for path, page := range documents(t) {
		if filepath.Dir(path) != "decisions" {
			continue
		}
		number := strings.TrimLeft(filepath.Base(path)[:4], "0")
		if !strings.HasPrefix(page, "# "+number+". ") || !strings.Contains(page, "\n**Decided.** ") || !strings.Contains(page, "\n**What it costs.**") {
			t.Errorf("%s does not begin with its number, or does not say what was decided and what it costs", path)
		}
	}
}
