package check

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// startRedis starts the Redis of Compose as Compose would, with the password "secret" and on a free port, which it returns.
func startRedis(t *testing.T) string {
	t.Helper()
	args := slices.Clone([]string(compose(t, "REDIS_PASSWORD=secret").Services["redis"].Command))
	conf, err := filepath.Abs(filepath.Join(root, "deploy/redis.conf"))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.Index(args, "/etc/redis.conf")
	if i < 0 {
		t.Fatalf("redis does not read its configuration: %q", args)
	}
	args[i] = conf
	port := freePort(t)
	start(t, nil, args[0], append(args[1:], "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir())...)
	for end := time.Now().Add(10 * time.Second); ; {
		out, err := ask(t, port, "realtime", "PING")
		if err == nil && out == "PONG\n" {
			return port
		}
		if time.Now().After(end) {
			t.Fatalf("redis does not start: %v %s", err, out)
		}
	}
}

// ask puts a command to Redis as this user, or as nobody.
func ask(t *testing.T, port, user string, command ...string) (string, error) {
	t.Helper()
	args, password := []string{"-p", port, "-e"}, ""
	if user != "" {
		args, password = append(args, "--user", user), "secret"
	}
	return run(t.Context(), []string{"REDISCLI_AUTH=" + password}, "redis-cli", append(args, command...)...)
}

func TestRedisLetsNodesInAndNobodyElse(t *testing.T) {
	port := startRedis(t)
	for _, c := range []struct {
		name, user string
		command    []string
		refused    string
	}{
		{"a stream", "realtime", []string{"XADD", "rt:s:{a}", "MINID", "~", "1", "*", "p", "", "d", ""}, ""},
		{"a message", "realtime", []string{"PUBLISH", "realtime:room:a", "x"}, ""},
		{"a script", "realtime", []string{"EVAL", "return redis.call('TIME')", "0"}, ""},
		{"what it is", "realtime", []string{"INFO", "server"}, ""},
		{"tracking", "realtime", []string{"CLIENT", "TRACKING", "OFF"}, ""},
		{"another key", "realtime", []string{"GET", "session:1"}, "NOPERM"},
		{"another channel", "realtime", []string{"PUBLISH", "orders", "x"}, "NOPERM"},
		{"all keys", "realtime", []string{"KEYS", "*"}, "NOPERM"},
		{"emptying it", "realtime", []string{"FLUSHALL"}, "NOPERM"},
		{"its settings", "realtime", []string{"CONFIG", "GET", "*"}, "NOPERM"},
		{"nobody's question", "", []string{"GET", "rt:s:{a}"}, "NOAUTH"},
	} {
		out, err := ask(t, port, c.user, c.command...)
		if c.refused == "" && err != nil || c.refused != "" && !strings.Contains(out, c.refused) {
			t.Errorf("%s: %v %s", c.name, err, out)
		}
	}
}

// Two nodes as Compose sets them up, but for their addresses, with its Redis: what one takes the other has.
func TestTwoNodesShareARoomThroughTheRedisOfCompose(t *testing.T) {
	port, program := startRedis(t), binary(t)
	var grpc [2]string
	var env []string
	for i := range grpc {
		grpc[i] = "127.0.0.1:" + freePort(t)
		ops := "127.0.0.1:" + freePort(t)
		env = nil
		for k, v := range compose(t, "REDIS_PASSWORD=secret").Services["realtime"].Environment {
			value := *v
			switch k {
			case "REALTIME_EDGE_ADDR":
				value = "127.0.0.1:0"
			case "REALTIME_GRPC_ADDR":
				value = grpc[i]
			case "REALTIME_OPS_ADDR":
				value = ops
			case "REALTIME_REDIS_URL":
				value = strings.Replace(value, "@redis:6379", "@127.0.0.1:"+port, 1)
			}
			env = append(env, k+"="+value)
		}
		start(t, env, program, "serve")
		for end := time.Now().Add(20 * time.Second); ; {
			out, err := run(t.Context(), nil, program, "healthcheck", "--ops-addr", ops)
			if err == nil && out == "ready\n" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the node is not ready: %v %s", err, out)
			}
		}
	}
	if out, err := run(t.Context(), env, program, "publish", "general", `{"n":1}`, "--addr", grpc[0], "--key", "env:GRPC_KEY"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := run(t.Context(), env, program, "history", "general", "--addr", grpc[1], "--key", "env:GRPC_KEY"); err != nil || !strings.Contains(out, `{"n":1}`) {
		t.Errorf("the other node has %v: %s", err, out)
	}
	if out, err := run(t.Context(), env, program, "nodes", "--addr", grpc[1], "--key", "env:GRPC_KEY", "--json"); err != nil || strings.Count(out, `"version"`) != 2 {
		t.Errorf("nodes do not see each other: %v: %s", err, out)
	}
}

// The line that operations.md gives to copy is the one that is tried above.
func TestTheOperatorsPageHasTheRightsOfRedis(t *testing.T) {
	args := []string(compose(t, "REDIS_PASSWORD=PASSWORD").Services["redis"].Command)
	line := strings.Join(args[slices.Index(args, "--user")+1:], " ")
	if !strings.Contains(string(read(t, "docs/operations.md")), "\nuser "+line+"\n") {
		t.Errorf("docs/operations.md does not have: user %s", line)
	}
	page := string(read(t, "docs/operations.md"))
	for line := range strings.Lines(string(read(t, "deploy/redis.conf"))) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" && name != "user" && !strings.Contains(page, "`"+name) {
			t.Errorf("docs/operations.md does not tell why %s", name)
		}
	}
}
