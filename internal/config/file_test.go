package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// file writes a file of options and returns its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "realtime.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFlagBeatsTheEnvironmentTheEnvironmentTheFileAndTheFileTheDefault(t *testing.T) {
	path := file(t, `
dev: true
max-sessions: 1
history-size: 1
history-ttl: 1m
log-bytes: 8MiB
sndbuf-bytes: 65537
origin: [https://a.example, "https://b.example:8443"]
pprof:
`)
	t.Setenv("REALTIME_MAX_SESSIONS", "2")
	t.Setenv("REALTIME_HISTORY_SIZE", "2")
	got, err := parse(t, "--config", path, "--max-sessions=3")
	if err != nil {
		t.Fatal(err)
	}
	if got.MaxSessions != 3 || got.HistorySize != 2 || got.HistoryTTL != time.Minute || got.IdempotencyTTL != 5*time.Minute {
		t.Errorf("max-sessions %d, history-size %d, history-ttl %v, idempotency-ttl %v: want the flag's 3, the variable's 2, the file's 1m, the default 5m",
			got.MaxSessions, got.HistorySize, got.HistoryTTL, got.IdempotencyTTL)
	}
	if !got.Dev || got.Pprof || got.LogBytes != 8<<20 || got.SndbufBytes != 65537 {
		t.Errorf("got %+v", got)
	}
	if want := []string{"https://a.example", "https://b.example:8443"}; !slices.Equal(got.Origin, want) {
		t.Errorf("origin %q, want %q", got.Origin, want)
	}
	got, err = parse(t, "--config", path, "--origin=https://c.example")
	if want := []string{"https://c.example"}; err != nil || !slices.Equal(got.Origin, want) {
		t.Errorf("origin %q, %v: want the flag's alone", got.Origin, err)
	}
}

func TestTheFileMayBeNamedByItsVariable(t *testing.T) {
	t.Setenv("REALTIME_CONFIG", file(t, "dev: true\nmax-sessions: 7"))
	if got, err := parse(t); err != nil || got.MaxSessions != 7 {
		t.Errorf("max-sessions %d, %v, want 7", got.MaxSessions, err)
	}
	t.Setenv("REALTIME_CONFIG", "")
	if _, err := parse(t, "--dev"); err != nil {
		t.Errorf("an empty variable: %v", err)
	}
}

func TestAnEmptyFileSaysNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "{}\n"} {
		if got, err := parse(t, "--dev", "--config", file(t, text)); err != nil || got.MaxSessions != 10_000 {
			t.Errorf("%q: max-sessions %d, %v", text, got.MaxSessions, err)
		}
	}
}

func TestWhatIsWrongInAFileIsNamedByItsKey(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a key that is no option":  {"edge-adr: 127.0.0.1:1", []string{"edge-adr is no option, did you mean edge-addr?", "realtime.yaml"}},
		"two of them":              {"a-b: 1\nmax-session: 2", []string{"a-b is no option", "did you mean max-sessions?"}},
		"the file itself":          {"config: other.yaml", []string{"config is no option"}},
		"another spelling":         {"edge_addr: 127.0.0.1:1", []string{"did you mean edge-addr?"}},
		"a key twice":              {"dev: true\ndev: false", []string{"dev", "already defined"}},
		"a map":                    {"origin:\n  a: b", []string{"origin takes a value"}},
		"a value of another kind":  {"max-sessions: many", []string{"--max-sessions"}},
		"a value out of its range": {"max-sessions: 0", []string{"--max-sessions must be above 0"}},
		"no map at all":            {"- dev", []string{"--config"}},
		"no YAML":                  {"{", []string{"--config"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "--dev", "--config", file(t, c.text))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: want %q in it", err, want)
				}
			}
		})
	}
	if _, err := parse(t, "--dev", "--config", "/does/not/exist.yaml"); err == nil || !strings.Contains(err.Error(), "/does/not/exist.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}
