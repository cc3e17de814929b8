package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/slack5/realtime/internal/bench"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/server"
	"github.com/slack5/realtime/internal/telemetry"
)

// cli are the commands; each is a struct that says its own options.
type cli struct {
	Serve   serve    `cmd:"" help:"Run a node."`
	Publish publish  `cmd:"" help:"Publish a message to a room."`
	Bench   benchCmd `cmd:"" help:"Hold many sessions, publish, and judge what they get: speed, loss, repetition, order."`
	Version version  `cmd:"" help:"Print the version."`
}

// env is what a command works with.
type env struct {
	ctx      context.Context //nolint:containedctx // it lives as long as the command
	out, err io.Writer
}

// errUsage ends the parse after --help.
var errUsage = errors.New("help was asked for")

func run(ctx context.Context, args []string, out, errOut io.Writer) (err error) {
	var c cli
	k, err := kong.New(&c, kong.Name("realtime"), kong.Description("Realtime fan-out: gRPC in, WebSocket out."),
		kong.DefaultEnvars("REALTIME"), kong.Writers(out, errOut), kong.Exit(func(int) { panic(errUsage) }),
		kong.UsageOnError(), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			if r != any(errUsage) {
				panic(r)
			}
			err = nil
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := k.Parse(args)
	if err != nil {
		return err
	}
	return parsed.Run(&env{ctx: ctx, out: out, err: errOut})
}

type serve struct {
	config.Serve
}

func (s *serve) Run(e *env) error {
	log := telemetry.NewLogger(e.err, s.LogLevel)
	srv, err := server.New(&s.Serve, e.out, log)
	if err != nil {
		return err
	}
	return srv.Run(e.ctx)
}

type benchCmd struct {
	bench.Command
}

func (b *benchCmd) Run(e *env) error { return b.Command.Run(e.ctx, e.out) }

type version struct{}

func (version) Run(e *env) error {
	_, err := fmt.Fprintln(e.out, server.Version())
	return err
}
