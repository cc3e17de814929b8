package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Node is a node that was started for a run.
type Node struct {
	WS, GRPC string       // HOST:PORT
	PID      int          // 0: no process of its own
	Stop     func() error // ends it and returns when it has ended; the error says that it had before
}

// lab is what a run starts for itself, so that it may break it: Redis, a relay before it for each node, the nodes. One
// goroutine at a time uses it.
type lab struct {
	dir     string
	primary *redisServer
	replica *redisServer // nil: nothing fails over
	relays  []*relay
	nodes   []*Node
}

// newLab starts all, and ends what it has started if it cannot.
func newLab(ctx context.Context, c *Command) (_ *lab, err error) {
	l := &lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir, err = os.MkdirTemp("", "realtime-bench"); err != nil {
		return nil, err
	}
	if l.primary, err = startRedis(ctx, c.RedisServer, l.dir); err != nil {
		return nil, fmt.Errorf("--redis-server: %w", err)
	}
	for _, f := range c.Fault {
		if f != "failover" || l.replica != nil {
			continue
		}
		if l.replica, err = startRedis(ctx, c.RedisServer, l.dir); err != nil {
			return nil, fmt.Errorf("--redis-server: %w", err)
		}
		if err = l.replica.follow(ctx, l.primary); err != nil {
			return nil, err
		}
	}
	start := c.StartNode
	if start == nil {
		start = func(ctx context.Context, redisURL string) (*Node, error) {
			return startSelf(ctx, filepath.Join(l.dir, "node-"+strconv.Itoa(len(l.nodes))), c, redisURL)
		}
	}
	for i := range c.Nodes {
		r, err := newRelay(ctx, l.primary.addr)
		if err != nil {
			return nil, err
		}
		l.relays = append(l.relays, r)
		n, err := start(ctx, "redis://"+r.addr)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
		l.nodes = append(l.nodes, n)
	}
	return l, nil
}

// close ends all, the nodes first. What a node said that ended by itself is kept.
func (l *lab) close() error {
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, n.Stop())
	}
	for _, r := range l.relays {
		r.close()
	}
	for _, s := range []*redisServer{l.replica, l.primary} {
		if s != nil && s.child != nil {
			s.end(os.Kill)
		}
	}
	if err := errors.Join(errs...); err != nil || l.dir == "" {
		return err
	}
	return os.RemoveAll(l.dir)
}

var (
	sessionsAt = regexp.MustCompile(`^sessions +ws://([^/]+)/`)
	callsAt    = regexp.MustCompile(`^gRPC +(\S+)`)
)

// startSelf runs this program as a node, with its own addresses and without the options of the environment. What it says
// goes to a file, the last line of which tells why it did not start.
func startSelf(ctx context.Context, log string, c *Command, redisURL string) (*Node, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	said, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd := exec.Command(self, append([]string{
		"serve", "--dev", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--handshakes=0",
		"--max-sessions=" + strconv.Itoa(c.Sessions+spareSessions), "--redis-wait=30s", "--redis-url=" + redisURL,
	}, c.NodeArg...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REALTIME_") && !strings.HasPrefix(v, "REDIS_URL=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = in, said
	p, err := startChild(cmd)
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	stop := func() error {
		defer out.Close()
		select {
		case <-p.gone:
			p.wg.Wait()
			return fmt.Errorf("a node ended by itself, %v: see what it said in %s", p.cmd.ProcessState, log)
		default:
		}
		p.end(syscall.SIGTERM)
		return nil
	}
	n := &Node{PID: cmd.Process.Pid, Stop: stop}
	if err := n.hear(ctx, out); err != nil {
		_ = stop()                 // err says more
		why, _ := os.ReadFile(log) // what there is
		return nil, fmt.Errorf("%w: %s", err, lastLine(string(why)))
	}
	return n, nil
}

// spareSessions is the room for connections that the node still has while their sessions are back already.
const spareSessions = 1000

// hear waits until the node tells where it serves.
func (n *Node) hear(ctx context.Context, out *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := sessionsAt.FindStringSubmatch(lines.Text()); m != nil {
			n.WS = m[1]
		}
		if m := callsAt.FindStringSubmatch(lines.Text()); m != nil {
			n.GRPC = m[1]
		}
		if n.WS != "" && n.GRPC != "" {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return fmt.Errorf("it does not serve: %w", io.ErrUnexpectedEOF)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
