package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/bench"
)

// ordeal is two nodes under load while something befalls the Redis they share: sessions that stay, and some that go to and
// fro between the nodes.
type ordeal struct {
	fault        string
	flap         int
	every, lasts time.Duration
}

// judge runs it and returns what the sessions saw. Each message was acknowledged, some as degraded.
func (o ordeal) judge(t *testing.T) *bench.Report {
	t.Helper()
	c := &bench.Command{
		Nodes: 2, RedisServer: "redis-server", Fault: []string{o.fault}, FaultEvery: o.every, FaultFor: o.lasts,
		Sessions: 24, Rooms: 3, Publishers: 6, Rate: 300, Size: 128, Seed: 1, Flap: o.flap, FlapEvery: 200 * time.Millisecond,
		Warmup: 100 * time.Millisecond, Duration: 2 * time.Second, Settle: 1500 * time.Millisecond,
		StartNode: func(_ context.Context, url string) (*bench.Node, error) {
			r := StartServer(t, "--dev", "--drain-window=0s", "--handshakes=0", "--redis-url="+url)
			return &bench.Node{WS: strings.TrimPrefix(r.ws, "ws://"), GRPC: r.rpcAt, Stop: func() error {
				_, err := r.end()
				return err
			}}, nil
		},
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r, err := c.Judge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Sessions.Held != 24 || r.Messages.Published < 300 || r.Messages.Failed > 0 || len(r.Strikes) == 0 {
		t.Errorf("%+v, %+v, %d faults; want 24 held, all published and something wrong with Redis", r.Sessions, r.Messages, len(r.Strikes))
	}
	if o.flap > 0 && r.Reconnects < 10 {
		t.Errorf("%d reconnects: nobody went to and fro", r.Reconnects)
	}
	t.Logf("%d messages, %d deliveries, %d reconnects, %d faults: %d lost, %d duplicated, %d reordered, %d repeated, gaps %v",
		r.Messages.Published, r.Deliveries.Total, r.Reconnects, len(r.Strikes), r.Lost, r.Duplicated, r.Reordered, r.Repeated, r.Gaps)
	return r
}

// whole fails the test if any session missed, or saw twice or out of order, anything at all.
func whole(t *testing.T, r *bench.Report) {
	t.Helper()
	if !r.OK || r.Repeated > 0 || len(r.Gaps) > 0 {
		t.Errorf("%d lost, %d duplicated, %d reordered, %d repeated, %d astray, gaps %v; want none of them", r.Lost, r.Duplicated, r.Reordered, r.Repeated, r.Strays, r.Gaps)
	}
}

// kept is whole but for order: what is put back after a loss comes to members who had read on behind what followed it.
func kept(t *testing.T, r *bench.Report) {
	t.Helper()
	if r.Lost+r.Duplicated+r.Repeated+r.Strays > 0 || len(r.Gaps) > 0 {
		t.Errorf("%d lost, %d duplicated, %d repeated, %d astray, gaps %v; want none of them", r.Lost, r.Duplicated, r.Repeated, r.Strays, r.Gaps)
	}
}

const (
	often  = 150 * time.Millisecond
	seldom = time.Second
	away   = 700 * time.Millisecond // longer than publishes are tried again: they are degraded
)

func TestSubscriptionsThatBreakCostNobodyAMessage(t *testing.T) {
	whole(t, ordeal{fault: "kill-pubsub", flap: 8, every: often, lasts: time.Millisecond}.judge(t))
}

func TestConnectionsThatBreakWithMessagesUnderWayCostNobodyAMessage(t *testing.T) {
	whole(t, ordeal{fault: "kill-all", flap: 8, every: seldom, lasts: time.Millisecond}.judge(t))
}

func TestAResumeAtANodeThatIsBehindBringsEachMessageOnce(t *testing.T) {
	whole(t, ordeal{fault: "slow", flap: 12, every: seldom, lasts: away}.judge(t))
}

// Of what was acknowledged by the old primary alone, nothing is missing.
func TestAFailoverThatLosesATailCostsNobodyAMessage(t *testing.T) {
	kept(t, ordeal{fault: "failover", every: seldom, lasts: time.Millisecond}.judge(t))
}

// While Redis is away, sessions see what comes from their own node, and then all the rest; who stays where he is sees each
// message once.
func TestAnOutageCostsWhoStaysNothing(t *testing.T) {
	for _, fault := range []string{"restart", "restart-empty", "blackhole", "partition", "pause"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			whole(t, ordeal{fault: fault, every: seldom, lasts: away}.judge(t))
		})
	}
}

// Who goes to another node in an outage may be shown there what he has seen: under the same identity, so that he can tell.
func TestAnOutageCostsWhoReconnectsNothing(t *testing.T) {
	for _, fault := range []string{"restart", "restart-empty", "blackhole", "partition", "pause"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			r := ordeal{fault: fault, flap: 8, every: seldom, lasts: away}.judge(t)
			if r.Lost > 0 || r.Duplicated > 0 || r.Strays > 0 || r.Reordered > 0 {
				t.Errorf("%d lost, %d duplicated, %d reordered, %d astray; want none of them", r.Lost, r.Duplicated, r.Reordered, r.Strays)
			}
		})
	}
}
