package main

import (
	"context"
	"fmt"
	"io"
	"os"

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
	Token   token    `cmd:"" help:"Make a token for a user's session."`
	Bench   benchCmd `cmd:"" help:"Hold many sessions, publish, and judge what they get: speed, loss, repetition, order."`
	Version version  `cmd:"" help:"Print the version."`
}

// env is what a command works with.
type env struct {
	ctx      context.Context //nolint:containedctx // it lives as long as the command
	out, err io.Writer
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	var c cli
	helped := false // --help has been answered: there is nothing left to do
	k, err := kong.New(&c, kong.Name("realtime"), kong.Description("Realtime fan-out: gRPC in, WebSocket out."),
		kong.DefaultEnvars("REALTIME"), kong.Writers(out, errOut), kong.Exit(func(int) { helped = true }),
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
	return parsed.Run(&env{ctx: ctx, out: out, err: errOut})
}

type serve struct {
	config.Serve
}

// BeforeApply comes before the options are judged: a misspelt variable is often what is wrong with them.
func (s *serve) BeforeApply(k *kong.Kong) error { return config.CheckVariables(k.Model, os.Environ()) }

func (s *serve) Run(e *env) error {
	log := telemetry.NewLogger(e.err, s.LogLevel)
	telemetry.LogErrors(log)
	limitMemory(log)
	srv, err := server.New(e.ctx, &s.Serve, e.out, log)
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
