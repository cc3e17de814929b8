package check

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The Redis of Compose is started as Compose would, but for its address.
func TestRedisLetsNodesInAndNobodyElse(t *testing.T) {
	service := compose(t, "REDIS_PASSWORD=secret").Services["redis"]
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	conf, err := filepath.Abs(filepath.Join(root, "deploy/redis.conf"))
	if err != nil {
		t.Fatal(err)
	}
	args := slices.Clone([]string(service.Command))
	if i := slices.Index(args, "/etc/redis.conf"); i < 0 {
		t.Fatalf("redis does not read its configuration: %q", args)
	} else {
		args[i] = conf
	}
	ctx, stop := context.WithCancel(t.Context())
	server := exec.CommandContext(ctx, args[0], append(args[1:], "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir())...)
	if err := server.Start(); err != nil {
		t.Fatalf("%v: apt-get install redis-server", err)
	}
	t.Cleanup(func() {
		stop()
		_ = server.Wait()
	})
	ask := func(user string, command ...string) (string, error) {
		var who []string
		if user != "" {
			who = []string{"--user", user}
		}
		return run(t.Context(), []string{"REDISCLI_AUTH=" + map[string]string{"realtime": "secret"}[user]}, "redis-cli", slices.Concat([]string{"-p", port, "-e"}, who, command)...)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		if out, err := ask("realtime", "PING"); err == nil && out == "PONG\n" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("redis does not start: %v %s", err, out)
		}
	}
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
		out, err := ask(c.user, c.command...)
		if c.refused == "" && err != nil || c.refused != "" && !strings.Contains(out, c.refused) {
			t.Errorf("%s: %v %s", c.name, err, out)
		}
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
