// Package redistest runs real Redis servers for tests: each on a free port of 127.0.0.1, with a directory of its own and
// nothing saved, so that a restart loses everything.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// patience is how long a server may take to start or to stop.
const patience = 20 * time.Second

// Server is a redis-server. Its methods are called by one goroutine at a time and fail the test if they fail.
type Server struct {
	Addr     string // host:port, the same after a Restart
	Password string // what Do says, if the server was told to ask for one

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	wait sync.WaitGroup
	gone chan struct{} // closed when the process has ended
}

// Start starts a server that ends with the test. args are further arguments of redis-server.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed: apt-get install -y redis-server")
	}
	s := &Server{t: t}
	t.Cleanup(s.cleanup)
	dir := t.TempDir()
	for range 5 { // another may take the port meanwhile
		s.Addr = freeAddr(t)
		_, port, _ := net.SplitHostPort(s.Addr)
		s.args = append([]string{
			"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "no",
			"--loglevel", "warning", "--stream-node-max-bytes", "1024",
		}, args...)
		if s.start() {
			return s
		}
	}
	t.Fatalf("redis-server %s did not start within %v", strings.Join(s.args, " "), patience)
	return nil
}

func (s *Server) cleanup() {
	if s.cmd != nil {
		s.Kill()
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the server and returns when it answers; false: it ended instead, or is silent.
func (s *Server) start() bool {
	s.t.Helper()
	cmd, gone := exec.Command("redis-server", s.args...), make(chan struct{})
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("redis-server: %v", err)
	}
	s.cmd, s.gone = cmd, gone
	s.wait.Go(func() {
		_ = cmd.Wait() // it is killed more often than not
		close(gone)
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-gone:
			s.cmd = nil
			return false
		case <-tick.C:
		}
		if _, err := s.do("PING"); err == nil || isAnswer(err) {
			return true
		}
	}
	s.Kill()
	return false
}

// Replica starts a server that copies this one, and returns when it does. It ends with the test.
func (s *Server) Replica(args ...string) *Server {
	s.t.Helper()
	s.Do("CONFIG", "SET", "repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(s.Addr)
	r := Start(s.t, append([]string{"--replicaof", host, port}, args...)...)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		m := r.Do("INFO", "replication")
		if text, err := m.ToString(); err == nil && strings.Contains(text, "master_link_status:up") {
			return r
		}
	}
	s.t.Fatalf("%s does not copy %s within %v", r.Addr, s.Addr, patience)
	return nil
}

// Promote makes a replica a server of its own, with what it has by now.
func (s *Server) Promote() { s.t.Helper(); s.Do("REPLICAOF", "NO", "ONE") }

// isAnswer tells that the server is there, and asks for a password.
func isAnswer(err error) bool {
	_, ok := rueidis.IsRedisErr(err)
	return ok
}

// Kill ends the server at once; its clients' connections break.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

// Stop ends the server as an administrator would. Nothing is saved.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

func (s *Server) end(sig syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatal("the server does not run")
	}
	_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case <-s.gone:
	case <-time.After(patience):
		s.t.Fatalf("redis-server has not ended within %v of %v", patience, sig)
	}
	s.wait.Wait()
	s.cmd = nil
}

// Restart starts a server that was stopped or killed again, at the same address and empty.
func (s *Server) Restart() {
	s.t.Helper()
	if s.cmd != nil {
		s.Stop()
	}
	if !s.start() {
		s.t.Fatalf("redis-server does not start again at %s", s.Addr)
	}
}

// Pause makes the server silent: connections stay, nothing is answered. Resume ends that.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redis-server: %v: %v", sig, err)
	}
}

// FlushAll deletes everything.
func (s *Server) FlushAll() { s.t.Helper(); s.Do("FLUSHALL") }

// KillConns closes all connections of a type: pubsub, normal.
func (s *Server) KillConns(kind string) { s.t.Helper(); s.Do("CLIENT", "KILL", "TYPE", kind) }

// Do sends a command over a connection of its own.
func (s *Server) Do(args ...string) rueidis.RedisMessage {
	s.t.Helper()
	m, err := s.do(args...)
	if err != nil && !rueidis.IsRedisNil(err) {
		s.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return m
}

func (s *Server) do(args ...string) (rueidis.RedisMessage, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, Password: s.Password, DisableCache: true, DisableRetry: true, ForceSingleClient: true,
		Dialer: net.Dialer{Timeout: time.Second},
	})
	if err != nil {
		return rueidis.RedisMessage{}, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 5*time.Second)
	defer cancel()
	return c.Do(ctx, c.B().Arbitrary(args[0]).Args(args[1:]...).Build()).ToMessage()
}

// Info is a number of the server's INFO.
func (s *Server) Info(field string) int64 {
	s.t.Helper()
	m := s.Do("INFO", "everything")
	text, err := m.ToString()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				s.t.Fatalf("INFO has %s: %v", line, err)
			}
			return n
		}
	}
	s.t.Fatal(fmt.Errorf("INFO has no %s", field))
	return 0
}
