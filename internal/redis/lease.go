package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
)

// draining marks the name of a node that has left: what it has written stands, but it answers no more.
const draining = "~"

// newIncarnation is the name of this run of a node in all it writes. What stands before the first dot is its NodeID.
func newIncarnation(nodeID string, now time.Time) string {
	return nodeID + "." + strconv.FormatInt(now.UnixMilli(), 36) + "." + strings.ToLower(rand.Text()[:4])
}

// nodeOf is the NodeID in an incarnation.
func nodeOf(inc string) string {
	name, _, _ := strings.Cut(inc, ".")
	return name
}

// numberName is the NodeID of the node with a number.
func numberName(number uint16) string { return strconv.FormatUint(uint64(number), 36) }

func randomNumber() uint16 { return 1 + uint16(mathrand.Uint32N(1<<16-1)) }

// Number draws the number of a node that is to start: one that no node has that is there, or was a minute ago, so that
// nobody's identities are repeated. A NodeID is that number in base 36. With an error, as when Redis is away, the number is
// random. Nodes that start in the same moment may draw the same one, as seldom as that is.
func Number(ctx context.Context, opts Options) (uint16, error) {
	opts.setDefaults()
	if err := opts.check(); err != nil {
		return randomNumber(), err
	}
	ctx, cancel := context.WithTimeout(ctx, opts.ReadTimeout)
	defer cancel()
	c, err := rueidis.NewClient(opts.command(nil))
	if err != nil {
		return randomNumber(), fmt.Errorf("redis: node number: %w", fromServer(err))
	}
	defer c.Close()
	incs, err := c.Do(ctx, c.B().Zrange().Key(keys(opts.Prefix).shared("nodes")).Min("0").Max("-1").Build()).AsStrSlice()
	if err != nil {
		return randomNumber(), fmt.Errorf("redis: node number: %w", fromServer(err))
	}
	taken := make(map[string]bool, len(incs))
	for _, inc := range incs {
		taken[nodeOf(inc)] = true
	}
	for range 1000 { // of 65,535 those of some hundred nodes are taken
		if n := randomNumber(); !taken[numberName(n)] {
			return n, nil
		}
	}
	return randomNumber(), errors.New("redis: no free node number was found: are there tens of thousands of nodes in rt:nodes?")
}

// sign is what a node learns when it gives a sign of life.
type sign struct {
	lapsed  bool             // the lease was over or not there: what the node has written may be gone, or was dropped by others
	now     int64            // Redis' clock, Unix ms
	born    int64            // since when its data exists, Unix ms; 0: nobody has said
	revoked uint64           // the version of the revocations
	live    map[string]int64 // all nodes with a lease, the own one included → its end, Unix ms; who has left bears "~"
}

// lease is a node's word that it lives, which everything it writes stands under.
type lease struct {
	wire  *wire
	inc   string
	lasts time.Duration

	mu    sync.Mutex // held while Redis is asked: a renewal that is under way must not undo an end
	held  bool       // it was taken once
	ended bool
}

// renew takes or renews the lease. After end it only looks.
func (l *lease) renew(ctx context.Context) (sign, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	inc := l.inc
	if l.ended {
		inc = ""
	}
	s, err := l.ask(ctx, inc)
	if err == nil {
		s.lapsed = s.lapsed && l.held
		l.held = true
	}
	return s, err
}

// look learns the same without renewing it.
func (l *lease) look(ctx context.Context) (sign, error) { return l.ask(ctx, "") }

// born is since when Redis' data exists; 0: nobody has said.
func (l *lease) born(ctx context.Context) (message.Position, error) {
	var values []string
	err := l.wire.do(ctx, l.wire.reads, func(ctx context.Context) (err error) {
		values, err = l.wire.port.Values(ctx, []string{l.wire.keys.shared("born")})
		return err
	})
	if err != nil || len(values) == 0 || values[0] == "" {
		return 0, err
	}
	ms, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return 0, errJunk
	}
	return message.At(ms, 0), nil
}

func (l *lease) ask(ctx context.Context, inc string) (sign, error) {
	k := l.wire.keys
	reply, err := l.wire.script(ctx, ScriptLease, []string{k.shared("nodes"), k.shared("born"), k.shared("rev") + ":v"},
		[]string{inc, millis(l.lasts), millis(10 * l.lasts)})
	if err != nil {
		return sign{}, fmt.Errorf("lease: %w", err)
	}
	s, ok := parseSign(reply)
	if !ok {
		return sign{}, fmt.Errorf("lease: a reply of %d parts: %w", len(reply), errJunk)
	}
	return s, nil
}

// end gives the lease up, once: what the node has written stands for the grace, but nobody waits for its answers.
func (l *lease) end(ctx context.Context, grace time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || !l.held {
		return nil
	}
	if err := l.wire.run(ctx, ScriptLeaseEnd, []string{l.wire.keys.shared("nodes")}, []string{l.inc, millis(grace)}); err != nil {
		return fmt.Errorf("end of the lease: %w", err)
	}
	l.ended = true
	return nil
}

// over tells whether it was given up.
func (l *lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

func parseSign(reply []string) (s sign, ok bool) {
	if len(reply) < 4 || len(reply)%2 != 0 {
		return s, false
	}
	number := func(text string) (n int64) {
		if text == "" {
			return 0
		}
		n, err := strconv.ParseInt(text, 10, 64)
		ok = ok && err == nil && n >= 0
		return n
	}
	ok = reply[1] != ""
	s = sign{lapsed: reply[0] == "1", now: number(reply[1]), born: number(reply[2]), revoked: uint64(number(reply[3])), live: make(map[string]int64)}
	for i := 4; i < len(reply); i += 2 {
		s.live[reply[i]] = number(reply[i+1])
	}
	return s, ok
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
