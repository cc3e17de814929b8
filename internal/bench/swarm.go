package bench

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// phase is what all readers are to do.
type phase int32

const (
	holding  phase = iota // keep sessions open
	churning              // let them drop their connections; slow readers are slow
	draining              // let all come back and read everything
)

const (
	dialers      = 32
	dialTimeout  = 10 * time.Second
	openTimeout  = 30 * time.Second // from the handshake to `subscribed`
	closeTimeout = 5 * time.Second  // for the answer to a close frame
	// openAttempts is how often a session that never was open is tried.
	openAttempts = 3

	// A slow reader takes slowBytes every slowEvery, with a receive buffer of slowBuffer: 2 KiB a second.
	slowBytes  = 512
	slowEvery  = 250 * time.Millisecond
	slowBuffer = 4 << 10

	// portsPerAddress: one loopback address has 28,000 local ports to call a listener from.
	portsPerAddress = 25_000
)

// swarm is all sessions with the goroutines that read and dial. The sessions of a room have one reader, so that a room's
// order needs no lock. Its fields do not change while run runs, but for the atomics and what mu guards.
type swarm struct {
	clock    *clock
	targets  []*target
	sessions []*session
	watchers []*watcher // a room's is that of its number modulo their count
	jobs     chan job   // of readers to dialers; it holds all sessions, so that no reader ever waits

	churn     time.Duration // mean life of a connection; 0: until it is closed
	flapEvery time.Duration // that of sessions that flap
	seed      uint64
	token     string
	spread    bool // call from more than one loopback address

	phase atomic.Int32
	gone  atomic.Int64 // sessions that ended for good

	mu    sync.Mutex
	first error // why the first one could not connect, or ended
}

// job is a session to connect.
type job struct {
	session *session
	target  *target
	room    string
	number  int
	slow    bool
	last    message.ID
	answer  func(arrival)
}

// arrival is what became of a job: a descriptor and what was read behind the handshake, or an error.
type arrival struct {
	job
	fd    int
	rest  []byte
	err   error
	final bool // trying again is of no use
}

func (w *swarm) at() phase { return phase(w.phase.Load()) }

func (w *swarm) enter(p phase) { w.phase.Store(int32(p)) }

// blame keeps the first of many errors.
func (w *swarm) blame(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = err
	}
}

func (w *swarm) blamed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first
}

// counts is a moment's sum over all watchers.
type counts struct{ live, opened, deliveries, fresh, measured, lastDelivery, lastLate int64 }

func (w *swarm) counts() (c counts) {
	for _, x := range w.watchers {
		c.live += x.liveNow.Load()
		c.opened += x.opened.Load()
		c.deliveries += x.deliveries.Load()
		c.fresh += x.fresh.Load()
		c.measured += x.measured.Load()
		c.lastDelivery = max(c.lastDelivery, x.lastDelivery.Load())
		c.lastLate = max(c.lastLate, x.lastLate.Load())
	}
	return c
}
