package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// show parses args into g, which has a command `serve`, and returns what Show prints.
func show(t *testing.T, g any, args ...string) string {
	t.Helper()
	k, err := kong.New(g, kong.DefaultEnvars("REALTIME"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := k.Parse(append([]string{"serve"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Show(&out, ctx); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWhatIsShownTellsWhereItWasSaid(t *testing.T) {
	path := file(t, "history-ttl: 1m\nmax-sessions: 1\norigin: [https://a.example, \"https://b.example:8443\"]")
	t.Setenv("REALTIME_MAX_SESSIONS", "2")
	t.Setenv("REALTIME_LOG_LEVEL", "debug")
	var g grammar
	got := show(t, &g, "--dev", "--config", path, "--log-bytes=8MiB")
	for _, line := range []string{
		"dev: true  # flag",
		`# edge-addr: 127.0.0.1:8080  # default`,
		"origin: ['https://a.example', 'https://b.example:8443']  # file",
		"max-sessions: 2  # environment, REALTIME_MAX_SESSIONS",
		"log-bytes: 8MiB  # flag",
		"history-ttl: 1m0s  # file",
		"log-level: DEBUG  # environment, REALTIME_LOG_LEVEL",
		"# pprof: false  # default",
	} {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("%q is missing in:\n%s", line, got)
		}
	}
	if strings.Contains(got, "config:") || strings.Contains(got, "help:") {
		t.Errorf("what makes no sense in a file:\n%s", got)
	}
}

func TestWhatIsShownIsReadBackToTheSame(t *testing.T) {
	for name, args := range map[string][]string{
		"only what must be": {"--dev"},
		"all of it": {
			"--dev", "--edge-addr=[::]:1", "--grpc-addr=0.0.0.0:2", "--grpc-insecure", "--ops-addr=:3", "--origin=https://a.example,https://b.example:1",
			"--max-sessions=7", "--sndbuf-bytes=65537", "--log-bytes=1GiB", "--memory-bytes=3", "--history-size=1", "--history-ttl=1h1ms", "--idempotency-ttl=1ns",
			"--drain-timeout=9s", "--drain-delay=0s", "--drain-window=1s", "--log-level=warn+1", "--pprof",
			"--grant=team-*=rw", "--grant=news=", "--type=vote=stored", "--grpc-rate=5", "--no-presence", "--presence-away=0s", "--no-query-token",
			"--jwt-alg=HS256,HS512", "--jwt-key=env:X,env:Y", "--anonymous",
		},
		"a list that is empty": {"--dev", "--origin="},
	} {
		t.Run(name, func(t *testing.T) {
			var first, second grammar
			text := show(t, &first, args...)
			if _, err := parser(t, &second).Parse([]string{"serve", "--config", file(t, text)}); err != nil {
				t.Fatalf("%v, in:\n%s", err, text)
			}
			second.Serve.Config = ""
			if d := cmp.Diff(first.Serve, second.Serve, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("said (-), read back (+):\n%s\nfrom:\n%s", d, text)
			}
		})
	}
}

func TestWhatIsHardToWriteIsReadBackToo(t *testing.T) {
	type texts struct {
		Config File
		Text   string
		List   []string `sep:","`
	}
	for _, text := range []string{"", "8080", "0x10", "1e3", "yes", "null", "~", "2001-01-01", "a: b", "# no", "two\nlines\r\n", " blank ", "- a", "[a", "'\"", "*x", "\u2028é"} {
		var first, second struct {
			Serve texts `cmd:""`
		}
		shown := show(t, &first, "--text="+text, "--list=1,"+strings.ReplaceAll(text, ",", ""))
		k, err := kong.New(&second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Parse([]string{"serve", "--config", file(t, shown)}); err != nil {
			t.Fatalf("%q: %v, in:\n%s", text, err, shown)
		}
		if second.Serve.Text != text || !cmp.Equal(first.Serve.List, second.Serve.List) {
			t.Errorf("%q comes back as %q, %q as %q, from:\n%s", text, second.Serve.Text, first.Serve.List, second.Serve.List, shown)
		}
	}
}

func TestNoSecretIsShown(t *testing.T) {
	var g struct {
		Serve struct {
			Key  Secret
			Keys []Secret `sep:","`
			URL  string   `name:"url"`
			URLs []string `name:"urls" sep:","`
			Odd  string
			None Secret
			User string
		} `cmd:""`
	}
	got := show(t, &g, "--key=hunter2", "--keys=hunter2,hunter2", "--url=redis://u:hunter2@h:1/0", "--urls=redis://h:1,redis://:hunter2@h",
		"--odd=u:hunter2@h:1", "--none=", "--user=redis://u@h:1")
	if strings.Contains(got, "hunter2") {
		t.Errorf("shown:\n%s", got)
	}
	const want = `# key: '[redacted]'  # flag; not shown
# keys: ['[redacted]', '[redacted]']  # flag; not shown
# url: redis://u:xxxxx@h:1/0  # flag; not shown
# urls: ['redis://h:1', 'redis://:xxxxx@h']  # flag; not shown
# odd: '[redacted]'  # flag; not shown
none: ""  # flag
user: redis://u@h:1  # flag
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestLoopbackIsThisMachineAlone(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, ":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "node:1": false,
		"127.0.0.1": false, "dns:///127.0.0.1:1": false, "": false,
	} {
		if Loopback(addr) != want {
			t.Errorf("Loopback(%q) = %v", addr, !want)
		}
	}
}
