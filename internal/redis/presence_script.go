package redis

import (
	"context"
	"crypto/sha1" // Redis names scripts by it
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is a script that many calls of go out at once.
type pipedScript struct{ text, sha string }

func newPipedScript(text string) *pipedScript {
	sum := sha1.Sum([]byte(text))
	return &pipedScript{text, hex.EncodeToString(sum[:])}
}

// call is a call of a script, or a command: its name, key and arguments.
type pipedCall struct {
	script     *pipedScript
	keys, args []string
	cmd        []string
}

func (c *pipedCall) build(client rueidis.Client, whole bool) rueidis.Completed {
	b := client.B()
	switch {
	case c.script == nil:
		return b.Arbitrary(c.cmd[0]).Keys(c.cmd[1]).Args(c.cmd[2:]...).Build()
	case whole:
		return b.Eval().Script(c.script.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
	}
	return b.Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

// run makes the calls in one go and returns the error of each. Scripts that Redis does not have are sent whole.
func runPiped(ctx context.Context, client rueidis.Client, calls []pipedCall) []error {
	errs := make([]error, len(calls))
	at := make([]int, len(calls))
	for i := range at {
		at[i] = i
	}
	for _, whole := range []bool{false, true} {
		cmds := make([]rueidis.Completed, len(at))
		for i, n := range at {
			cmds[i] = calls[n].build(client, whole)
		}
		var missing []int
		for i, r := range client.DoMulti(ctx, cmds...) {
			errs[at[i]] = r.Error()
			if errorCode(errs[at[i]]) == "NOSCRIPT" {
				missing = append(missing, at[i])
			}
		}
		if at = missing; len(at) == 0 {
			break
		}
	}
	return errs
}
