// Package bench is the judge: it holds many sessions, publishes to their rooms, and tells how fast a server delivers and
// whether it lost, repeated or reordered anything.
//
// It owns the load (sessions over raw sockets on one reader goroutine, publishers over gRPC), the record of what each
// session saw, and the verdict over it. It never asks the server how it did: a message is owed to a session because its
// publisher has a receipt, and paid when its frame was read from a socket. It must be able to fail a server, and never
// fails one for what the protocol allows: a replay after an inexact id may repeat, a gap frame may excuse.
//
// Command is one subcommand of the binary; its Run is all there is to call.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// Command are the options of `realtime bench`.
type Command struct {
	WS       []string `name:"ws" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where sessions connect; also ws://HOST:PORT/PATH. Repeatable: sessions are spread over all."`
	Addr     []string `default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"gRPC address of a node. Repeatable: publishers are spread over all."`
	Token    string   `help:"Token of all sessions."`
	Sessions int      `default:"1000" help:"Sessions to hold, each in one room."`
	Rooms    int      `default:"1" help:"Rooms they are spread over."`

	Publishers int           `default:"4" help:"Publishers, each with one message under way."`
	Stream     bool          `help:"Publish over a stream of each publisher instead of by single calls."`
	Rate       float64       `default:"100" help:"Messages a second over all rooms; 0: as fast as they are acknowledged."`
	Size       int           `default:"128" help:"Bytes of a message's data."`
	Warmup     time.Duration `default:"1s" help:"Publishing before measuring; judged all the same."`
	Duration   time.Duration `default:"10s" help:"Publishing while measuring."`
	Settle     time.Duration `default:"10s" help:"Silence after which what is missing is lost."`

	Churn       time.Duration `help:"Each session drops its connection at random, this long after the last on average, and resumes; 0: never."`
	Flap        int           `help:"Sessions that drop theirs every --flap-every, and resume at once at the next --ws."`
	FlapEvery   time.Duration `default:"250ms" help:"From half of it to half as long again."`
	SlowReaders int           `help:"Sessions that read 2 KiB a second while there is publishing."`
	Seed        uint64        `default:"1" help:"Of the drops and back-offs."`

	Nodes       int           `help:"Start that many nodes, with a Redis of their own, instead of --ws and --addr; they end with the run."`
	NodeArg     []string      `sep:"none" placeholder:"OPTION" help:"An option of serve for these nodes. Repeatable."`
	RedisServer string        `default:"redis-server" placeholder:"PATH" help:"The program that --nodes starts."`
	Fault       []string      `sep:"," placeholder:"FAULT" help:"What happens to that Redis: kill-pubsub, kill-all, restart, restart-empty, failover, blackhole, partition, slow, pause. Repeatable: by turns."`
	FaultEvery  time.Duration `default:"10s" help:"From the beginning of one to that of the next; the first comes when measuring begins."`
	FaultFor    time.Duration `default:"1s" help:"How long Redis is away or slow, where that is what happens."`

	PID  []int `name:"pid" placeholder:"PID" help:"Server processes, for CPU and memory; else those on this machine that listen on the ports of --ws."`
	JSON bool  `name:"json" help:"Print the result as JSON."`

	// StartNode starts one of --nodes. Nil: this program as `serve`.
	StartNode func(ctx context.Context, redisURL string) (*Node, error) `kong:"-"`

	progress io.Writer // nil: standard error, if it is a terminal
}

// ErrFaults is what Run's error wraps when the server did not keep its promises.
var ErrFaults = errors.New("the server did not keep its promises")

// Validate returns all that is wrong with the options, joined.
func (c *Command) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(c.WS) > 0 || c.Nodes > 0, "--ws is missing")
	check(len(c.Addr) > 0 || c.Nodes > 0, "--addr is missing")
	check(c.Sessions > 0, "--sessions must be above 0")
	check(c.Sessions <= maxSessions, "--sessions: at most %d from one process", maxSessions)
	check(c.Rooms > 0 && c.Rooms <= c.Sessions, "--rooms must be between 1 and the number of sessions (%d)", c.Sessions)
	check(c.Publishers > 0 && c.Publishers <= maxPublishers, "--publishers must be between 1 and %d", maxPublishers)
	check(c.Rate >= 0, "--rate must not be below 0")
	check(c.Size >= minSize, "--size must be at least %d: publisher, number and time are in there", minSize)
	check(c.Warmup >= 0, "--warmup must not be below 0")
	check(c.Duration > 0, "--duration must be above 0")
	check(c.Settle > 0, "--settle must be above 0")
	check(c.Churn >= 0, "--churn must not be below 0")
	check(c.Flap >= 0 && c.Flap+c.SlowReaders <= c.Sessions, "--flap: with --slow-readers it must be between 0 and the number of sessions (%d)", c.Sessions)
	check(c.Flap == 0 || c.FlapEvery > 0, "--flap-every must be above 0")
	check(c.Nodes >= 0 && c.Nodes <= maxNodes, "--nodes must be between 0 and %d", maxNodes)
	check(len(c.NodeArg) == 0 || c.Nodes > 0, "--node-arg is for --nodes")
	for _, f := range c.Fault {
		check(slices.Contains(faultNames(), f), "--fault: %q is none of %s", f, strings.Join(faultNames(), ", "))
	}
	check(len(c.Fault) == 0 || c.Nodes > 0, "--fault needs --nodes: only a Redis that was started for the run is harmed")
	check(len(c.Fault) == 0 || c.FaultFor > 0 && c.FaultEvery > c.FaultFor, "--fault-every must be longer than --fault-for, and that above 0")
	check(c.SlowReaders >= 0 && c.SlowReaders <= c.Sessions, "--slow-readers must be between 0 and the number of sessions (%d)", c.Sessions)
	return errors.Join(errs...)
}

const (
	maxPublishers = 1 << 10
	// maxSessions: 250 loopback addresses would carry more, but the places of a session are found by descriptor.
	maxSessions = 1_000_000
	maxNodes    = 64
)

// Run benches, and prints the result to out. It blocks until all is delivered, or is known to be missing, and ends every
// connection before it returns. If ctx ends while there is publishing, that ends early and what was published is judged.
// The error wraps ErrFaults when the result is bad; it is printed all the same.
func (c *Command) Run(ctx context.Context, out io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	r, err := c.Judge(ctx)
	if err != nil {
		return err
	}
	if err := r.print(out, c.JSON); err != nil {
		return err
	}
	return r.verdict()
}

// Judge does what Run does, and returns the result instead of printing it. The options must be valid. The error says why
// there is no result; what the server did wrong is in the report.
func (c *Command) Judge(ctx context.Context) (_ *Report, err error) {
	if c.Nodes == 0 {
		b, err := c.prepare()
		if err != nil {
			return nil, err
		}
		return b.run(ctx)
	}
	l, err := newLab(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	own := *c
	own.WS, own.Addr, own.PID = nil, nil, nil
	for _, n := range l.nodes {
		own.WS, own.Addr = append(own.WS, n.WS), append(own.Addr, n.GRPC)
		if n.PID != 0 {
			own.PID = append(own.PID, n.PID)
		}
	}
	b, err := own.prepare()
	if err != nil {
		return nil, err
	}
	b.lab = l
	return b.run(ctx)
}

// prepare makes rooms, sessions and their watchers; nothing is opened yet.
func (c *Command) prepare() (*bench, error) {
	b := &bench{c: c, clock: newClock()}
	for _, s := range c.WS {
		t, err := parseTarget(s)
		if err != nil {
			return nil, err
		}
		b.targets = append(b.targets, t)
	}
	// Rooms that nobody else uses, and no run before this one: their history is ours.
	run := message.ID{Position: message.At(time.Now().UnixMilli(), 0), Low: message.Low(rand.Uint64())}.String()
	for i := range c.Rooms {
		b.rooms = append(b.rooms, newRoom("bench."+run[:13]+run[27:]+"."+strconv.Itoa(i), i))
	}
	b.swarm = &swarm{clock: b.clock, targets: b.targets, churn: c.Churn, flapEvery: c.FlapEvery, seed: c.Seed, token: c.Token, jobs: make(chan job, c.Sessions)}
	b.swarm.spread = c.Sessions > portsPerAddress
	for _, t := range b.targets {
		b.swarm.spread = b.swarm.spread && t.addr.IP.IsLoopback() && t.addr.IP.To4() != nil
	}
	// Half of the processors read; the server may need the others.
	for range max(1, min(c.Rooms, runtime.GOMAXPROCS(0)/2)) {
		b.swarm.watchers = append(b.swarm.watchers, newWatcher())
	}
	most := maxRuns
	if len(c.Fault) > 0 {
		most = maxRunsFault
	}
	for i := range c.Sessions {
		// Every room gets sessions of every target, and slow ones as many as the others.
		s := &session{room: b.rooms[i%c.Rooms], number: i, target: i / c.Rooms % len(b.targets), slow: i < c.SlowReaders, flaps: i >= c.Sessions-c.Flap, fd: -1, record: newRecord(most)}
		b.swarm.sessions = append(b.swarm.sessions, s)
	}
	if b.pids = c.PID; len(b.pids) == 0 {
		b.pids = servers(b.targets)
	} else if _, ok := usageOf(b.pids); !ok {
		return nil, fmt.Errorf("--pid: cannot read CPU and memory of %v", b.pids)
	}
	w := c.progress
	if w == nil {
		w = os.Stderr
	}
	b.progress = newProgress(w)
	return b, nil
}
