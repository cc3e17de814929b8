package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestConfigPrintsWhatItReadsBack(t *testing.T) {
	t.Setenv("REALTIME_MAX_SESSIONS", "7")
	first, err := command(t, "config", "--dev", "--history-ttl=1m")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"dev: true  # flag", "max-sessions: 7  # environment, REALTIME_MAX_SESSIONS", "history-ttl: 1m0s  # flag", "# edge-addr: 127.0.0.1:8080  # default"} {
		if !strings.Contains("\n"+first, "\n"+line+"\n") {
			t.Errorf("%q is missing in:\n%s", line, first)
		}
	}
	t.Setenv("REALTIME_MAX_SESSIONS", "7")
	second, err := command(t, "config", "--config="+write(t, first))
	if want := strings.ReplaceAll(first, "# flag", "# file"); err != nil || second != want {
		t.Errorf("read back: %v\n%s\nwant\n%s", err, second, want)
	}
}

func TestConfigShowsWhereRedisWasSaidAndNotWhat(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://ann:hunter2@cache")
	out, err := command(t, "config", "--dev")
	if err != nil || strings.Contains(out, "hunter2") || !strings.Contains(out, "\n# redis-url: '[redacted]'  # environment, REDIS_URL; not shown\n") {
		t.Errorf("config: %v\n%s", err, out)
	}
	if out, err := command(t, "config", "--dev", "--redis-prefix={x}"); err == nil || strings.Contains(out+err.Error(), "hunter2") {
		t.Errorf("config with an error: %v\n%s", err, out)
	}
}

func TestConfigRefusesWhatServeRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"an option out of range": {"--dev", "--max-sessions=0"},
		"an unknown option":      {"--dev", "--edge-adr=x"},
		"an unknown key":         {"--dev", "--config=" + write(t, "edge-adr: x")},
		"nothing of it":          {},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := command(t, append([]string{"config"}, args...)...)
			_, want := command(t, append([]string{"serve"}, args...)...)
			if err == nil || want == nil || out != "" || strings.TrimPrefix(err.Error(), "config: ") != strings.TrimPrefix(want.Error(), "serve: ") {
				t.Errorf("config: %q, %v\nserve: %v", out, err, want)
			}
		})
	}
	t.Setenv("REALTIME_DEVV", "true")
	if _, err := command(t, "config", "--dev"); err == nil || !strings.Contains(err.Error(), "REALTIME_DEVV") {
		t.Errorf("a misspelt variable: %v", err)
	}
}

func TestTheVersionAsJSONTellsWhatItWasBuiltBy(t *testing.T) {
	plain, _ := command(t, "version")
	out, err := command(t, "version", "--json")
	var got map[string]string
	if parsed := json.Unmarshal([]byte(out), &got); err != nil || parsed != nil {
		t.Fatalf("%q: %v, %v", out, err, parsed)
	}
	if got["version"] != strings.TrimSpace(plain) || !strings.HasPrefix(got["go"], "go") || !strings.Contains(got["platform"], "/") || strings.Count(out, "\n") != 1 {
		t.Errorf("version --json = %s", out)
	}
}
