// Command realtime is the service and its command-line client: `realtime serve` runs a node, the other commands talk to one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills at once
	if err := execute(os.Args[1:], &env{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, relax: relaxTimers}); err != nil {
		fmt.Fprintln(os.Stderr, "realtime:", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is 2 for a command line, an environment or a file that is wrong: nothing was begun then. All else is 1.
func exitCode(err error) int {
	if usage := (*kong.ParseError)(nil); errors.As(err, &usage) {
		return 2
	}
	return 1
}
