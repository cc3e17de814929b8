package edge

import (
	"fmt"
	"sync"
)

// ledger knows in tests which session owns which descriptor. Numbers are used again as soon as they are closed, so one
// call too late reaches a stranger, and comparing bytes hardly ever shows it. The nil ledger, production's, checks nothing.
type ledger struct {
	mu     sync.Mutex
	owner  map[int32]*session
	faults []string
}

func (l *ledger) own(s *session) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner[s.fd] != nil {
		l.faults = append(l.faults, fmt.Sprintf("descriptor %d given out while owned", s.fd))
	}
	l.owner[s.fd] = s
}

func (l *ledger) disown(s *session) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owner, s.fd)
}

func (l *ledger) check(s *session) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner[s.fd] != s {
		l.faults = append(l.faults, fmt.Sprintf("descriptor %d used by one who does not own it", s.fd))
	}
}
