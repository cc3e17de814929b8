package main

import (
	"log/slog"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/telemetry"
)

func TestTheMemoryLimitOfTheEnvironmentGoesBeforeTheContainers(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 40)
	defer debug.SetMemoryLimit(before)
	t.Setenv("GOMEMLIMIT", "1TiB")
	var out text
	limitMemory(telemetry.NewLogger(&out, slog.LevelInfo))
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("the limit is now %d", got)
	}
	if got := out.String(); !strings.Contains(got, `"memory limit","bytes":1099511627776`) {
		t.Errorf("logged %q", got)
	}
}

func TestAMemoryRatioThatIsNoneIsTold(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Setenv("AUTOMEMLIMIT", "lots")
	var out text
	limitMemory(telemetry.NewLogger(&out, slog.LevelInfo))
	if got := debug.SetMemoryLimit(-1); got != before || !strings.Contains(out.String(), `"level":"WARN"`) {
		t.Errorf("the limit is %d, logged %q", got, out.String())
	}
}
