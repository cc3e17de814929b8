package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Sentinel is a primary with a replica, and a Sentinel over both that makes the replica the primary when the primary has
// been silent for half a second.
type Sentinel struct {
	*Server          // the Sentinel itself
	Name             string
	Primary, Replica *Server // as they began
}

// StartSentinel starts all three; they end with the test.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	k := &Sentinel{Name: "main", Primary: Start(t), Server: &Server{t: t}}
	host, port, _ := net.SplitHostPort(k.Primary.Addr)
	k.Replica = Start(t, "--replicaof", host+" "+port)
	until(t, "the replica follows", func() bool { return k.Replica.text("INFO", "replication").has("master_link_status:up") })
	t.Cleanup(k.cleanup)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	for range 5 { // another may take the port meanwhile
		k.Addr = freeAddr(t)
		_, own, _ := net.SplitHostPort(k.Addr)
		conf := fmt.Sprintf("bind 127.0.0.1\nport %[2]s\ndir %[3]s\nloglevel warning\nsentinel monitor %[1]s %[4]s %[5]s 1\n"+
			"sentinel down-after-milliseconds %[1]s 500\nsentinel failover-timeout %[1]s 3000\n", k.Name, own, filepath.Dir(file), host, port)
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		k.args = []string{file, "--sentinel"}
		if k.start() {
			until(t, "the Sentinel knows the replica", func() bool { return k.text("INFO", "sentinel").has("slaves=1") })
			return k
		}
	}
	t.Fatalf("a Sentinel did not start within %v", patience)
	return nil
}

// reply is the text that a command was answered with; empty if it failed.
type reply string

func (r reply) has(s string) bool { return strings.Contains(string(r), s) }

func (s *Server) text(args ...string) reply {
	m, err := s.do(args...)
	if err != nil {
		return ""
	}
	text, _ := m.ToString() // other kinds have none
	return reply(text)
}

// until waits for what servers need some time for.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
