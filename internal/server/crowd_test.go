package server

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Two thousand sessions, fifty of them with peers that are gone without a word: everyone who is there is told, and the end
// comes within its budget.
func TestACrowdIsSentAwayWithinTheBudgetWhoeverIsDead(t *testing.T) {
	const all, dead, budget = 2000, 50, 20 * time.Second
	// Members of so large a room are told numbers: without that most of the work here would be who comes.
	r := balanced(t, "--presence-counts-above=50", "--drain-delay=100ms", "--drain-window=2s", fmt.Sprintf("--drain-timeout=%v", budget))
	var peers []net.Conn
	var alive []*guest
	for range dead {
		peers = append(peers, r.dead("general"))
	}
	for range all - dead {
		alive = append(alive, r.join("general"))
	}
	if n := r.node.Stats().Sessions; n != all {
		t.Fatalf("%d sessions, want %d", n, all)
	}
	var told, closed atomic.Int64
	var wg sync.WaitGroup
	for _, s := range alive {
		wg.Go(func() {
			for {
				f, code := s.next()
				if f.event() == "reconnect" {
					told.Add(1)
				}
				if code == 1012 {
					closed.Add(1)
				}
				if code != 0 {
					return
				}
			}
		})
	}
	took, err := r.end()
	wg.Wait()
	if err != nil || took > budget+5*time.Second {
		t.Errorf("Run = %v after %v, want it within its budget of %v", err, took, budget)
	}
	if told.Load() != all-dead || closed.Load() != all-dead {
		t.Errorf("%d were told and %d closed with 1012, want all %d", told.Load(), closed.Load(), all-dead)
	}
	for i, nc := range peers {
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection of dead peer %d is still open", i)
		}
	}
	if got := r.log.find("ERROR", ""); got != nil {
		t.Errorf("logged %q", got)
	}
}
