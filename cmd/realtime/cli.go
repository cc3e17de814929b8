package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/bench"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/server"
	"github.com/slack5/realtime/internal/telemetry"
)

// cli are the commands; each is a struct that says its own options.
type cli struct {
	Serve       serve       `cmd:"" help:"Run a node."`
	Publish     publish     `cmd:"" help:"Publish a message to a room, or one per line of standard input."`
	Notify      notify      `cmd:"" help:"Publish a message to all sessions of a user."`
	Broadcast   broadcast   `cmd:"" help:"Publish a message to everyone, or to many rooms."`
	Subscribe   subscribe   `cmd:"" help:"Print what is published to rooms, as it comes."`
	History     history     `cmd:"" help:"Print what a room keeps, oldest first."`
	Presence    presence    `cmd:"" help:"Print who is in a room, how users are, or which rooms there are."`
	Sessions    sessions    `cmd:"" help:"Print who is connected, in which rooms, and how far behind."`
	Disconnect  disconnect  `cmd:"" help:"Close sessions."`
	Join        join        `cmd:"" help:"Put a user's sessions into rooms."`
	Leave       leave       `cmd:"" help:"Take a user's sessions out of rooms."`
	Revoke      revoke      `cmd:"" help:"Make tokens invalid and end their sessions; print what is revoked."`
	Nodes       nodes       `cmd:"" help:"Print the nodes that are alive."`
	Trace       trace       `cmd:"" help:"Print what became of a message: who has been handed it."`
	Token       token       `cmd:"" help:"Make a token for a user's session."`
	Bench       benchCmd    `cmd:"" help:"Hold many sessions, publish, and judge what they get: speed, loss, repetition, order."`
	Config      showConfig  `cmd:"" help:"Check the options of serve and print them as a file for --config."`
	Healthcheck healthcheck `cmd:"" help:"Ask a node whether it is ready: exit code 0, else 1."`
	Version     version     `cmd:"" help:"Print the version."`
}

const description = "Realtime fan-out: gRPC in, WebSocket out. Exit codes: 0 done, 1 refused or failed, 2 wrong options or arguments."

// env is what a command works with.
type env struct {
	ctx      context.Context //nolint:containedctx // it lives as long as the command
	in       io.Reader
	out, err io.Writer
	relax    func(time.Duration) error // see relaxTimers; nil: this process is not ours alone
}

// run is one command. Only data goes to out, all else to errOut.
func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	return execute(args, &env{ctx: ctx, in: os.Stdin, out: out, err: errOut})
}

func execute(args []string, e *env) error {
	var c cli
	helped := false // --help has been answered: there is nothing left to do
	k, err := kong.New(&c, kong.Name("realtime"), kong.Description(description),
		kong.DefaultEnvars("REALTIME"), kong.Writers(e.out, e.err), kong.Exit(func(int) { helped = true }),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := k.Parse(args)
	if helped {
		return nil
	}
	if err != nil {
		return err
	}
	return parsed.Run(e)
}

type serve struct {
	config.Serve
}

// BeforeApply comes before the options are judged: a misspelt variable is often what is wrong with them.
func (s *serve) BeforeApply(k *kong.Kong) error { return config.CheckVariables(k.Model, os.Environ()) }

func (s *serve) Run(e *env) error {
	log := telemetry.NewLogger(e.err, s.LogLevel)
	telemetry.LogErrors(log)
	if e.relax != nil && s.TimerSlack > 0 && e.ctx.Err() == nil {
		if err := e.relax(s.TimerSlack); err != nil {
			log.Warn("timer slack not set: the process takes more CPU than it need", "err", err)
		}
	}
	limitMemory(log)
	srv, err := server.New(e.ctx, &s.Serve, e.out, log)
	if err != nil {
		return err
	}
	return srv.Run(e.ctx)
}

// showConfig takes what serve takes and is judged as serve is.
type showConfig struct {
	serve
}

func (*showConfig) Help() string {
	return `Takes flags, environment and --config as serve does. Options that nobody gave are comments.

Example:
  REALTIME_MAX_SESSIONS=500 realtime config --dev > realtime.yaml`
}

func (*showConfig) Run(e *env, parsed *kong.Context) error { return config.Show(e.out, parsed) }

type benchCmd struct {
	bench.Command
}

func (b *benchCmd) Run(e *env) error { return b.Command.Run(e.ctx, e.out) }

type version struct {
	JSON bool `name:"json" env:"-" help:"Print it as JSON, with what it was built by and for."`
}

func (v *version) Run(e *env) error {
	if !v.JSON {
		_, err := fmt.Fprintln(e.out, server.Version())
		return err
	}
	b, err := json.Marshal(struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{server.Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "%s\n", b)
	return err
}
