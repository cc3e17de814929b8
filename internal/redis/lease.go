package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

var leaseScript, leaseEndScript = scripts[ScriptLease], scripts[ScriptLeaseEnd]

// draining marks the name of a node that has left: what it has written stands, but it answers no more.
const draining = "~"

// leaseBeat is what a node learns when it renews its lease.
type leaseBeat struct {
	lapsed bool             // the lease was over or not there: what the node has written may be gone, or was dropped by others
	now    int64            // Redis' clock, Unix ms
	live   map[string]int64 // all nodes with a lease, the own one included → its end, Unix ms; who has left bears "~"
}

// nodeLease is a node's word that it lives, which everything it writes stands under. Its name is the node's incarnation: node
// number, time of boot and four random characters. Its methods may be called concurrently.
type nodeLease struct {
	keys  keys
	lasts time.Duration

	inc   atomic.Pointer[string]
	ended atomic.Bool

	mu    sync.Mutex // held while Redis is asked: a renewal that is under way must not undo an end
	fixed bool       // the name was given
	held  bool       // it has been taken
}

func newNodeLease(k keys, inc string, lasts time.Duration) *nodeLease {
	l := &nodeLease{keys: k, lasts: lasts, fixed: inc != ""}
	if !l.fixed {
		inc = newIncarnation()
	}
	l.inc.Store(&inc)
	return l
}

// newIncarnation has a random number; that no other lease has it is seen to when the lease is taken.
func newIncarnation() string {
	var b [2]byte
	_, _ = rand.Read(b[:]) // it never fails
	number := strconv.FormatUint(uint64(binary.BigEndian.Uint16(b[:])), 36)
	boot := strconv.FormatInt(time.Now().UnixMilli(), 36)
	return number + "." + boot + "." + strings.ToLower(rand.Text()[:4])
}

// name is the incarnation. It changes only before the lease is first taken.
func (l *nodeLease) name() string { return *l.inc.Load() }

// beat takes or renews the lease. After end it only looks.
func (l *nodeLease) beat(ctx context.Context, c rueidis.Client) (leaseBeat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 16 { // of 65,536 numbers those of some hundred leases are taken
		inc, claim := l.name(), "0"
		switch {
		case l.ended.Load():
			inc = ""
		case !l.held && !l.fixed:
			claim = "1"
		}
		reply, err := leaseScript.Exec(ctx, c,
			[]string{l.keys.shared("nodes")},
			[]string{inc, millis(l.lasts), millis(10 * l.lasts), claim},
		).ToArray()
		if err != nil {
			return leaseBeat{}, fmt.Errorf("lease: %w", err)
		}
		b, taken, err := parseBeat(reply)
		if err != nil {
			return leaseBeat{}, err
		}
		if !taken {
			b.lapsed = b.lapsed && l.held
			l.held = l.held || inc != ""
			return b, nil
		}
		other := newIncarnation()
		l.inc.Store(&other)
	}
	return leaseBeat{}, errors.New("lease: no free node number was found: are there tens of thousands of nodes in rt:nodes?")
}

// end gives the lease up: what the node has written stands for the grace.
func (l *nodeLease) end(ctx context.Context, c rueidis.Client, grace time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := leaseEndScript.Exec(ctx, c, []string{l.keys.shared("nodes")}, []string{l.name(), millis(grace)}).Error(); err != nil {
		return fmt.Errorf("end of the lease: %w", err)
	}
	l.ended.Store(true)
	return nil
}

func parseBeat(reply []rueidis.RedisMessage) (b leaseBeat, taken bool, err error) {
	at := func(i int) int64 {
		if err != nil {
			return 0
		}
		var n int64
		n, err = reply[i].AsInt64()
		return n
	}
	if len(reply) == 1 {
		return b, true, nil
	}
	if len(reply) == 0 || len(reply)%2 != 0 {
		return b, false, fmt.Errorf("lease: a reply of %d parts, want an even number", len(reply))
	}
	b = leaseBeat{lapsed: at(0) == 1, now: at(1), live: make(map[string]int64)}
	for i := 2; i < len(reply); i += 2 {
		var name string
		if name, err = reply[i].ToString(); err != nil {
			break
		}
		b.live[name] = at(i + 1)
	}
	if err != nil {
		return b, false, fmt.Errorf("lease: a junk reply: %w", err)
	}
	return b, false, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
