package sim

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var mutations = flag.Bool("mutations", false, "run the simulation on code with faults, each of which it must find")

// mutant is a fault put into a file of ours.
type mutant struct {
	what, file, from, to string
}

var mutants = []mutant{
	{"a publish is tried again without looking for the first try", "../publish.go", "floors.retry = known", "_ = known"},
	{"what precedes a push is not looked at", "../room.go", "return p.kind == published && p.first > r.last && p.prev > r.last", "return false"},
	{"what was delivered is not remembered", "../recent.go", "return ok\n", "return ok && false\n"},
	{
		"a room whose subscription is made anew is not healed", "../room.go",
		"default:\n\t\tr.compare(tip, cut)", "default:\n\t\t_ = cut",
	},
	{"a hole is not healed", "../room.go", "case !own || !r.b.place(r.ch).up.Load():\n\t\tr.b.heal(r)", "case !own:"},
	{
		"the outbox is stored from its end", "../outage.go",
		"o.rooms[name] = append(o.rooms[name], p)", "o.rooms[name] = append([]*parked{p}, o.rooms[name]...)",
	},
	{
		"an outage ends before its rooms are read", "../outage.go",
		"if !b.settle(ctx) {\n\t\t\t\treturn false\n\t\t\t}", "",
	},
	{"an error from behind the writes counts as not executed", "../port.go", "says nothing in its first word\n\t\t\treturn unknown", "\n\t\t\treturn notExecuted"},
	{"a silent connection is kept", "../conn.go", "return now-p.sent < c.b.cfg.ProbeAfter", "return true"},
	{"a member that is ahead of the log gets it all again", "../../hub/join.go", "m.lag |= lagAhead", ""},
	{"a degraded time may be torn", "../../hub/resume.go", "if l.torn(n) {", "if false {"},
}

// Each fault is found within so many schedules.
const mutantSchedules = "10000"

// The simulation would be worth nothing if it did not find such things.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.what, func(t *testing.T) {
			path, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			code, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(code), m.from); n != 1 {
				t.Fatalf("%s has %d times %q, want once: the fault is to be put in elsewhere", m.file, n, m.from)
			}
			if *mutations {
				m.run(t, path, string(code))
			}
		})
	}
}

var foundBy = regexp.MustCompile(`seed (\d+): again`)

// run runs the simulation with the fault.
func (m mutant) run(t *testing.T, path, code string) {
	t.Helper()
	dir := t.TempDir()
	file, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{file: []byte(strings.Replace(code, m.from, m.to, 1)), overlay: list} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-overlay", overlay, "-vet=off", "-run", "^TestSim$", "-timeout", "5m", "-schedules", mutantSchedules, ".").CombinedOutput()
	seed := foundBy.FindSubmatch(out)
	if err == nil || seed == nil {
		t.Errorf("not found: %v\n%.2000s", err, out)
		return
	}
	t.Logf("found by seed %s", seed[1])
}
