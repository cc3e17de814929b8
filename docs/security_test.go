package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tests are the names of all tests and fuzz targets of the repository, those of other modules in it too.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == ".tmp"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, "_test.go"):
			for _, m := range declared.FindAllStringSubmatch(read(t, path), -1) {
				all[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A row that says what is held without a test that holds it is a wish.
func TestEveryAttackAndPromiseNamesItsTests(t *testing.T) {
	there, rows := tests(t), 0
	if _, err := os.Stat("../internal/redis/sim"); os.IsNotExist(err) {
		there["TestSim"] = true
	}
	_, tables, found := strings.Cut(read(t, "security.md"), "\n## Attacks\n")
	if !found {
		t.Fatal("docs/security.md has no attacks")
	}
	for line := range strings.Lines(tables) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || strings.TrimSpace(cells[len(cells)-1]) == "test" {
			continue
		}
		rows++
		if len(cells) != 3 {
			t.Errorf("%d cells, want 3: %s", len(cells), line)
			continue
		}
		names := strings.Fields(cells[2])
		if len(names) == 0 {
			t.Errorf("no test is named:%s", cells[0])
		}
		for _, name := range names {
			if name = strings.Trim(name, "`"); !there[name] {
				t.Errorf("%s:%s names it, and there is no such test", name, cells[0])
			}
		}
	}
	if rows < 100 {
		t.Errorf("only %d rows were found", rows)
	}
}
