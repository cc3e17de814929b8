package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// patience is how long a process may take to start, to end, or to do what it is told.
const patience = 30 * time.Second

// child is a process that the run started; no other is ever signalled. Its methods are for one goroutine at a time.
type child struct {
	cmd  *exec.Cmd
	wg   sync.WaitGroup
	gone chan struct{} // closed when it has ended
}

func startChild(cmd *exec.Cmd) (*child, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &child{cmd: cmd, gone: make(chan struct{})}
	p.wg.Go(func() {
		defer close(p.gone)
		_ = cmd.Wait() // most are killed
	})
	return p, nil
}

func (p *child) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// end signals it and waits for its end; if that does not come, it is killed.
func (p *child) end(s os.Signal) {
	_ = p.signal(s) // it may have ended by itself
	kill := time.AfterFunc(patience, func() { _ = p.signal(os.Kill) })
	defer kill.Stop()
	p.wg.Wait()
}

// redisServer is a redis-server of ours. Nothing is saved but on demand.
type redisServer struct {
	*child
	path, addr, dir string
	args            []string
}

// startRedis starts a server in a directory of its own below dir, on a free port.
func startRedis(ctx context.Context, path, dir string, args ...string) (*redisServer, error) {
	own, err := os.MkdirTemp(dir, "redis")
	if err != nil {
		return nil, err
	}
	var failed error
	for range 5 { // another may take the port meanwhile
		addr, err := freeAddr(ctx)
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(addr) // it is one
		s := &redisServer{path: path, addr: addr, dir: own}
		s.args = append([]string{
			"--bind", "127.0.0.1", "--port", port, "--dir", own, "--save", "", "--appendonly", "no", "--loglevel", "warning",
			"--logfile", filepath.Join(own, "log"), "--stream-node-max-bytes", "1024", "--repl-diskless-sync-delay", "0",
		}, args...)
		if failed = s.start(ctx); failed == nil {
			return s, nil
		}
	}
	return nil, failed
}

func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts it, also again, and returns when it answers.
func (s *redisServer) start(ctx context.Context) error {
	p, err := startChild(exec.Command(s.path, s.args...))
	if err != nil {
		return err
	}
	s.child = p
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err = s.ask(ctx, "PING"); err == nil {
			return nil
		}
		select {
		case <-p.gone:
			return fmt.Errorf("%s ended at once: see what it says with %s", s.path, strings.Join(s.args[:4], " "))
		default:
		}
		if ctx.Err() != nil {
			s.end(os.Kill)
			return fmt.Errorf("%s does not answer within %v: %w", s.path, patience, err)
		}
		wait(ctx, look)
	}
}

var errRedis = errors.New("redis-server")

// ask sends a command over a connection of its own, words without spaces, and returns the answer's text.
func (s *redisServer) ask(ctx context.Context, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := io.WriteString(conn, strings.Join(words, " ")+"\r\n"); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	switch {
	case line == "" || line[0] == '-':
		return "", fmt.Errorf("%w: %s: %s", errRedis, words[0], line)
	case line[0] != '$':
		return line[1:], nil
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil || n < 0 || n > maxFrame {
		return "", fmt.Errorf("%w: %s: %s", errRedis, words[0], line)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

// follow makes it a copy of another and returns when it is.
func (s *redisServer) follow(ctx context.Context, primary *redisServer) error {
	host, port, _ := net.SplitHostPort(primary.addr) // it is one
	if _, err := s.ask(ctx, "REPLICAOF", host, port); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		info, err := s.ask(ctx, "INFO", "replication")
		switch {
		case err != nil:
			return err
		case strings.Contains(info, "master_link_status:up"):
			return nil
		}
		wait(ctx, look)
	}
}
