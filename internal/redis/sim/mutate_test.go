package sim

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var mutations = flag.Bool("mutations", false, "run the simulation on code with faults, each of which it must find")

// mutant is a fault put into files of ours.
type mutant struct {
	what  string
	edits []edit
}

type edit struct{ file, from, to string }

func one(what, file, from, to string) mutant { return mutant{what, []edit{{file, from, to}}} }

var mutants = []mutant{
	one("a publish is tried again without looking for the first try", "../publish.go", "floors.retry, floors.guard = known, b", "_, floors.guard = known, b"),
	one("what precedes a push is not looked at", "../room.go", "return p.kind == published && p.first > r.last && p.prev > r.last", "return false"),
	one("what was delivered is not remembered", "../recent.go", "return ok\n", "return ok && false\n"),
	{"a room whose subscription is made anew is not healed, nor is it swept", []edit{
		{"../room.go", "default:\n\t\tr.compare(tip, cut)", "default:\n\t\t_ = cut"},
		{"../worker.go", "case t.tip > r.last:\n\t\tr.missing(t.tip, true)", "case t.tip > r.last:"},
	}},
	one("the outbox is stored from its end", "../outage.go", "o.rooms[name] = append(o.rooms[name], p)", "o.rooms[name] = append([]*parked{p}, o.rooms[name]...)"),
	one("an outage ends before its rooms are read", "../outage.go", "if back && !b.settle(ctx, p) {", "if false {"),
	one("an error from behind the writes counts as not executed", "../port.go", "says nothing in its first word\n\t\t\treturn unknown", "\n\t\t\treturn notExecuted"),
	one("a silent connection is kept", "../conn.go", "return now-p.sent < c.b.cfg.ProbeAfter", "return true"),
	one("time goes on while nobody answers", "../clock.go", "c.n = 0\n", "_ = c.n\n"),
	one("what was deleted comes late", "../room.go", " || at <= r.cut {", " {"),
	one("what waits when Redis goes away is not shown", "../outage.go", "if w.own && it.m != nil {", "if false {"),
	one("a member that is ahead of the log gets it all again", "../../hub/join.go", "m.lag |= lagAhead", ""),
	one("a place that fell off is taken for another", "../../hub/index.go", "return n >= x.front && (n >= x.fallen || falls == x.falls)", "return n >= x.front"),
	one("what was lost is not put back", "../reconcile.go", "if len(names) == 0 {", "if len(names) >= 0 {"),
	one("what was put back before where a room begins is not for it", "../room.go", "case m == nil || p.first <= r.cut || r", "case m == nil || p.first <= r.base || r"),
	one("what was put back unseen is not read", "../room.go", "if r.last > r.loss.pushed {", "if false {"),
	one("what was known before a loss is vouched for", "../history.go", "if b.doubts.Load() != b.sure.Load() {", "if false {"),
	one("what came late and fell off is not told", "../../hub/resume.go", "if m.pos < l.strayEnd && ", "if false && "),
	one("a degraded time may be torn", "../../hub/resume.go", "if l.torn(n) {", "if false {"),
}

// Each fault is found within so many schedules.
const mutantSchedules = "10000"

// The simulation would be worth nothing if it did not find such things.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.what, func(t *testing.T) {
			dir, files := t.TempDir(), make(map[string]string)
			for i, e := range m.edits {
				path, code := e.apply(t)
				file := filepath.Join(dir, strconv.Itoa(i)+".go")
				if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
					t.Fatal(err)
				}
				files[path] = file
			}
			if *mutations {
				find(t, dir, files)
			}
		})
	}
}

// apply returns the file with the fault.
func (e edit) apply(t *testing.T) (path, code string) {
	t.Helper()
	path, err := filepath.Abs(e.file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), e.from); n != 1 {
		t.Fatalf("%s has %d times %q, want once: the fault is to be put in elsewhere", e.file, n, e.from)
	}
	return path, strings.Replace(string(b), e.from, e.to, 1)
}

var foundBy = regexp.MustCompile(`seed (\d+): again`)

// find runs the simulation with some files in the place of others.
func find(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	overlay := filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-vet=off", "-run", "^TestSim$", "-timeout", "5m", "-schedules", mutantSchedules, ".").CombinedOutput()
	seed := foundBy.FindSubmatch(out)
	if err == nil || seed == nil {
		t.Errorf("not found: %v\n%.2000s", err, out)
		return
	}
	t.Logf("found by seed %s", seed[1])
}
