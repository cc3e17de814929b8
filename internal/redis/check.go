package redis

import (
	"context"
	_ "embed" // the script
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
)

//go:embed check.lua
var checkLua string

var checkScript = rueidis.NewLuaScript(checkLua)

// Report is what a Redis is, and what it lacks that can be done without.
type Report struct {
	Version string // empty: it does not say
	Lacks   []string
}

// UnfitError says why a Redis will never do: it refuses us, or is none that we can use.
type UnfitError struct {
	Addrs []string // that were asked
	Text  string
	Err   error // what it answered; nil: nothing is wrong with the answers
}

// Error does not name the password: Redis never answers with it.
func (e *UnfitError) Error() string {
	text := "redis at " + strings.Join(e.Addrs, ", ") + ": " + e.Text
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *UnfitError) Unwrap() error { return e.Err }

// Check dials a Redis, and tries what a node asks of one. The error is an *UnfitError, or tells that it cannot be reached now.
func Check(ctx context.Context, o Options) (r Report, err error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return r, err
	}
	unfit := func(text string, err error) error {
		return &UnfitError{Addrs: o.Client.InitAddress, Text: text, Err: err}
	}
	client, err := rueidis.NewClient(o.command(nil))
	if err != nil {
		return r, explain(err, unfit, "it refuses us: check user and password, and that of several addresses all are a Cluster's, or Sentinels, with master_set")
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, o.ReadTimeout)
	defer cancel()
	k, verb, clustered := keys(o.Prefix), "PUBLISH", client.Mode() == rueidis.ClientModeCluster
	rights := strings.ReplaceAll("~@rt:* &@rt:* &@realtime:*", "@", o.Prefix)
	probe := k.shardProbe("check", slotOf(k.control()))
	switch {
	case clustered:
		verb, err = "SPUBLISH", sharded(ctx, client, probe)
	case hidden(ctx, client):
		err = errHidden
	}
	if err != nil {
		return r, unfit(strings.TrimPrefix(err.Error(), "redis: "), nil)
	}
	if err := checkScript.Exec(ctx, client, []string{k.shared("check")}, []string{verb, probe}).Error(); err != nil {
		return r, explain(err, unfit, "it cannot do what is needed: streams and scripts of Redis 6.2, and rights to "+rights)
	}
	for _, ch := range []string{k.control(), probe, k.channel(message.Global)} { // in a Cluster each has a slot of its own
		err := client.Dedicated(func(c rueidis.DedicatedClient) error {
			if clustered {
				return c.Do(ctx, c.B().Ssubscribe().Channel(ch).Build()).Error()
			}
			return c.Do(ctx, c.B().Subscribe().Channel(ch).Build()).Error()
		})
		if err != nil {
			return r, explain(err, unfit, "its channels may not be subscribed: it takes rights to "+rights)
		}
	}
	tracks := func(c rueidis.DedicatedClient) error {
		return c.Do(ctx, c.B().ClientTracking().On().Optin().Build()).Error()
	}
	if client.Dedicated(tracks) != nil {
		r.Lacks = append(r.Lacks, "tracking: who is where is read again instead of remembered")
	}
	r.ask(ctx, client)
	return r, nil
}

// explain tells what Redis will answer again from what may pass.
func explain(err error, unfit func(string, error) error, text string) error {
	e, answered := rueidis.IsRedisErr(err)
	if !answered || e.IsNil() {
		return err
	}
	for _, passing := range []string{"max number of clients", "LOADING", "READONLY", "MASTERDOWN", "OOM", "MISCONF", "BUSY", "NOREPLICAS", "TRYAGAIN"} {
		if strings.Contains(e.Error(), passing) {
			return err
		}
	}
	return unfit(text, e)
}

// ask adds what the server tells of itself.
func (r *Report) ask(ctx context.Context, c rueidis.Client) {
	if hello, err := c.Do(ctx, c.B().Hello().Build()).AsMap(); err != nil || !isThree(hello["proto"]) {
		r.Lacks = append(r.Lacks, "RESP3: subscriptions take connections of their own")
	}
	info := make(map[string]string)
	for _, section := range []string{"server", "memory"} {
		text, err := c.Do(ctx, c.B().Info().Section(section).Build()).ToString()
		if err != nil {
			r.Lacks = append(r.Lacks, "INFO: its version and what it evicts are not known")
			return
		}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			info[name] = value
		}
	}
	r.Version = info["redis_version"]
	if policy := info["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		r.Lacks = append(r.Lacks, fmt.Sprintf("maxmemory-policy noeviction: with %s it drops history, which is told as gaps", policy))
	}
}

func isThree(m rueidis.RedisMessage) bool {
	n, err := m.AsInt64()
	return err == nil && n == 3
}
