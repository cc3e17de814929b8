package config

import (
	"strings"
	"testing"
)

func TestAMisspeltVariableNamesTheNearestAndNeverAValue(t *testing.T) {
	var g grammar
	err := CheckVariables(parser(t, &g).Model, []string{"PATH=/bin", "REALTIME_DEV=true", "REALTIME_EDGE_ADR=hunter2", "REALTIME_COMPLETELY_ELSE=hunter2", "REALTIME=x"})
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "REALTIME_EDGE_ADR is no option, did you mean REALTIME_EDGE_ADDR?") ||
		!strings.Contains(lines[1], "REALTIME_COMPLETELY_ELSE is no option") || strings.Contains(lines[1], "mean") {
		t.Errorf("got:\n%v", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a value is told:\n%v", err)
	}
}

func TestVariablesThatOthersSetDoNotMatter(t *testing.T) {
	var g grammar
	for _, name := range []string{
		"REALTIME_ARGS", "REALTIME_SERVICE_HOST", "REALTIME_SERVICE_PORT", "REALTIME_SERVICE_PORT_GRPC", "REALTIME_PORT",
		"REALTIME_PORT_8080_TCP", "REALTIME_PORT_8080_TCP_PROTO", "REALTIME_PORT_8080_TCP_PORT", "REALTIME_PORT_8080_TCP_ADDR",
		"REALTIME_HEADLESS_SERVICE_HOST", "REALTIME_HEADLESS_PORT_9090_UDP_ADDR",
	} {
		if err := CheckVariables(parser(t, &g).Model, []string{name + "=tcp://10.0.0.1:8080"}); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"REALTIME_PORTS", "REALTIME_PORT_TCP", "REALTIME_SERVICE", "REALTIME_ARGS_", "REALTIME_"} {
		if err := CheckVariables(parser(t, &g).Model, []string{name + "=x"}); err == nil {
			t.Errorf("%s is let through", name)
		}
	}
}

func TestDistanceCountsChanges(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"adr", "addr", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
