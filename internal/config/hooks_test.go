package config

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatIsSaidOfHooksIsChecked(t *testing.T) {
	t.Setenv("SHORT", "too short")
	for name, c := range map[string]struct {
		args string
		want string // of the error; "": it is good
	}{
		"an address alone":                   {"--hooks-addr=127.0.0.1:1", ""},
		"everything":                         {"--hooks-addr=hooks.example:1 --hook=connect,message --hooks-fail=message=open --hooks-timeout=connect=2s --hooks-concurrency=message=7 --hooks-header=cookie", ""},
		"a time for disconnect":              {"--hooks-addr=:1 --hooks-timeout=disconnect=5s", "--hooks-addr"},
		"an address without a port":          {"--hooks-addr=127.0.0.1", "--hooks-addr"},
		"hooks without an address":           {"--hook=connect", "--hooks-addr"},
		"rules without an address":           {"--hooks-fail=connect=open", "--hooks-addr"},
		"a key without an address":           {"--hooks-key=env:X", "--hooks-addr"},
		"a key that is too short":            {"--hooks-addr=127.0.0.1:1 --hooks-key=env:SHORT", "--hooks-key"},
		"an unknown hook":                    {"--hooks-addr=127.0.0.1:1 --hook=connect,publish", "--hook: \"publish\""},
		"a rule for an unknown hook":         {"--hooks-addr=127.0.0.1:1 --hooks-timeout=publish=1s", "--hooks-timeout: \"publish\""},
		"a rule for a hook that is off":      {"--hooks-addr=127.0.0.1:1 --hook=connect --hooks-fail=message=open", "--hooks-fail: message is not on"},
		"neither open nor closed":            {"--hooks-addr=127.0.0.1:1 --hooks-fail=message=ajar", "--hooks-fail"},
		"disconnect open":                    {"--hooks-addr=127.0.0.1:1 --hooks-fail=disconnect=open", "--hooks-fail says nothing for disconnect"},
		"disconnects at once":                {"--hooks-addr=127.0.0.1:1 --hooks-concurrency=disconnect=2", "--hooks-concurrency says nothing for disconnect"},
		"no time":                            {"--hooks-addr=127.0.0.1:1 --hooks-timeout=connect=0s", "--hooks-timeout"},
		"nobody at once":                     {"--hooks-addr=127.0.0.1:1 --hooks-concurrency=connect=0", "--hooks-concurrency"},
		"rooms of frames but not of the URL": {"--hooks-addr=127.0.0.1:1 --hook=subscribe", "subscribe needs connect"},
		"TLS and none":                       {"--hooks-addr=127.0.0.1:1 --hooks-insecure --hooks-tls-ca=x", "--hooks-insecure"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, append(strings.Fields(c.args), "--dev")...)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("parse(%s) = %v, want one line with %q", c.args, err, c.want)
			}
		})
	}
}

func TestRulesOfHooksAreReadByHook(t *testing.T) {
	t.Setenv("REALTIME_HOOKS_TIMEOUT", "connect=2s;message=500ms")
	got, err := parse(t, "--dev", "--hooks-addr=127.0.0.1:1", "--hooks-concurrency=connect=5", "--hooks-concurrency=subscribe=6")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]time.Duration{"connect": 2 * time.Second, "message": 500 * time.Millisecond}; !maps.Equal(got.HooksTimeout, want) {
		t.Errorf("HooksTimeout = %v, want %v", got.HooksTimeout, want)
	}
	if want := map[string]int{"connect": 5, "subscribe": 6}; !maps.Equal(got.HooksConcurrency, want) {
		t.Errorf("HooksConcurrency = %v, want %v", got.HooksConcurrency, want)
	}
	if on := got.HooksOn(); !slices.Equal(on, []string{"connect", "subscribe", "message", "disconnect"}) {
		t.Errorf("HooksOn() = %q, want all", on)
	}
}

func TestAHookThatFailsClosedCountsAsAuthentication(t *testing.T) {
	for args, good := range map[string]bool{
		"--hooks-addr=127.0.0.1:1":                             true,
		"--hooks-addr=127.0.0.1:1 --hooks-fail=connect=closed": true,
		"--hooks-addr=127.0.0.1:1 --hooks-fail=connect=open":   false,
		"--hooks-addr=127.0.0.1:1 --hook=message":              false,
	} {
		if _, err := parse(t, strings.Fields(args)...); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "--jwt-key") {
			t.Errorf("parse(%s) = %v, good: %t", args, err, good)
		}
	}
}

func TestHooksAreAskedOverTLSBeyondLoopback(t *testing.T) {
	for _, c := range []struct {
		addr, ca string
		insecure bool
		want     bool
	}{
		{"127.0.0.1:1", "", false, false},
		{"localhost:1", "", false, false},
		{"[::1]:1", "", false, false},
		{"127.0.0.1:1", "ca.pem", false, true},
		{"10.0.0.1:1", "", false, true},
		{"hooks.example:1", "", false, true},
		{"hooks.example:1", "ca.pem", false, true},
		{"hooks.example:1", "", true, false},
	} {
		if got := (&Serve{HooksAddr: c.addr, HooksTLSCA: c.ca, HooksInsecure: c.insecure}).HooksTLS(); got != c.want {
			t.Errorf("%+v: TLS %t", c, got)
		}
	}
}
