package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProcess makes the test's binary the command itself, for tests of signals and exit codes.
const asProcess = "BE_THE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		main()
		return
	}
	_ = os.Unsetenv("REDIS_URL") // the developer's own, which would be an option of every node here
	goleak.VerifyTestMain(m)
}

// patience is for what takes milliseconds.
const patience = 20 * time.Second

// text is written by a command and read by the test.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *text) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// command runs one and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errOut text
	err := run(t.Context(), args, &out, &errOut)
	return out.String(), err
}

// onFreePorts are the options of a node that tests start.
var onFreePorts = []string{"serve", "--dev", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--log-level=error"}

var grpcLine = regexp.MustCompile(`(?m)^gRPC +(\S+)$`)

// node runs `serve` until the test's end and returns its gRPC address.
func node(t *testing.T) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var out text
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, onFreePorts, &out, t.Output()) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	until(t, "serve says where gRPC is", func() bool { return grpcLine.MatchString(out.String()) })
	return grpcLine.FindStringSubmatch(out.String())[1]
}

func TestHelpIsAnAnswerAndNoError(t *testing.T) {
	commands := strings.Fields("serve publish notify broadcast subscribe history presence bench config healthcheck version")
	asked := [][]string{nil, {"--help"}, {"-h"}, {"publish", "--help"}}
	for _, name := range commands {
		asked = append(asked, []string{name, "-h"})
	}
	for _, args := range asked {
		out, err := command(t, args...)
		if err != nil || !strings.HasPrefix(out, "Usage: realtime") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	out, _ := command(t, "serve", "--help")
	for _, part := range []string{"--edge-addr", "$REALTIME_EDGE_ADDR", "127.0.0.1:8080"} {
		if !strings.Contains(out, part) {
			t.Errorf("help of serve lacks %s", part)
		}
	}
}

func TestWhatIsMistypedIsNamedWithTheNearest(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serv"}, `did you mean "serve"?`},
		{[]string{"serve", "--dev", "--edge-adr=x"}, `did you mean "--edge-addr"?`},
		{[]string{"publish", "a", "1", "--epemeral"}, `did you mean "--ephemeral"?`},
		{[]string{"notify", "a", "1", "--usr=x"}, `did you mean "--user"?`},
		{[]string{"subscribe", "a", "--form=x"}, `did you mean "--from"?`},
		{[]string{"history", "a", "--limt=1"}, `did you mean "--limit"?`},
		{[]string{"presence", "--wach"}, `did you mean "--watch"?`},
		{[]string{"healthcheck", "--ops-adr=x"}, `did you mean "--ops-addr"?`},
		{[]string{"healthchek"}, `did you mean "healthcheck"?`},
		{[]string{"serve", "--dev", "--max-sessions=many"}, "--max-sessions"},
		{[]string{"serve", "--dev", "--log-bytes=5x"}, "--log-bytes"},
		{[]string{"publish", "a"}, "<json>"},
	} {
		if _, err := command(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s in it", c.args, err, c.want)
		}
	}
}

func TestAMisspeltVariableIsToldBeforeWhatItLeadsTo(t *testing.T) {
	t.Setenv("REALTIME_DEVV", "true")
	if _, err := command(t, "serve"); err == nil || err.Error() != "environment: REALTIME_DEVV is no option, did you mean REALTIME_DEV?" {
		t.Errorf("serve: %v", err)
	}
	if _, err := command(t, "version"); err != nil {
		t.Errorf("it is no matter of other commands': %v", err)
	}
}

func TestTheVersionIsOneLine(t *testing.T) {
	if out, err := command(t, "version"); err != nil || len(strings.Fields(out)) != 1 || !strings.HasSuffix(out, "\n") {
		t.Errorf("version = %q, %v", out, err)
	}
}

var id = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestPublishPrintsTheIDOfWhatWasTaken(t *testing.T) {
	addr := "--addr=" + node(t)
	first, err := command(t, "publish", addr, "general", `{"n":1}`, "--idempotency-key=k1", "--type=order.paid", "--from=billing")
	if err != nil || !id.MatchString(strings.TrimSuffix(first, "\n")) {
		t.Fatalf("publish = %q, %v", first, err)
	}
	again, err := command(t, "publish", addr, "general", `{"n":2}`, "--idempotency-key=k1")
	if want := strings.TrimSuffix(first, "\n") + " (duplicate)\n"; err != nil || again != want {
		t.Errorf("with the same key: %q, %v, want %q", again, err, want)
	}
	out, err := command(t, "publish", addr, "--json", "--ephemeral", "general", "--", `-1`)
	if err != nil {
		t.Fatal(err)
	}
	var res struct{ Receipt struct{ ID, Room string } }
	if err := json.Unmarshal([]byte(out), &res); err != nil || res.Receipt.Room != "general" || !id.MatchString(res.Receipt.ID) {
		t.Errorf("as JSON: %s (%v)", out, err)
	}
}

func TestARefusedPublishTellsWhatWasWrong(t *testing.T) {
	addr := "--addr=" + node(t)
	for _, c := range []struct{ room, data, want string }{
		{"a b", "1", "a room name is"},
		{"general", "{", "valid JSON"},
	} {
		if out, err := command(t, "publish", addr, c.room, c.data); err == nil || !strings.Contains(err.Error(), c.want) || out != "" {
			t.Errorf("publish %q %q: %q, %v", c.room, c.data, out, err)
		}
	}
}

func TestAPublishWithoutANodeNamesItsAddress(t *testing.T) {
	if _, err := command(t, "publish", "--addr=127.0.0.1:1", "general", "1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("publish: %v", err)
	}
}

func TestAMessageDoesNotComeFromTheEnvironment(t *testing.T) {
	t.Setenv("REALTIME_ADDR", node(t)) // where to is another matter
	for _, name := range []string{"TYPE", "FROM", "IDEMPOTENCY_KEY", "EPHEMERAL", "JSON", "INSECURE"} {
		t.Setenv("REALTIME_"+name, "true")
	}
	first, err := command(t, "publish", "general", "1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := command(t, "publish", "general", "1")
	if err != nil || !id.MatchString(strings.TrimSuffix(second, "\n")) || first == second {
		t.Errorf("first %q, then %q, %v: want two ids", first, second, err)
	}
}
