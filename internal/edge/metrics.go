package edge

import (
	"errors"
	"sync/atomic"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
)

// Stats are the edge's counters since its start; Sessions is how many there are now.
type Stats struct {
	Sessions    int64
	Accepted    uint64                // handshakes that became sessions
	Failed      uint64                // handshakes that broke off
	Refused     map[frame.Code]uint64 // handshakes by the code they were refused with
	Frames      uint64                // frames received
	Messages    uint64                // of these, messages published
	RateLimited map[Kind]uint64       // what was refused for its rate, by limit
	NoTokens    uint64                // handshakes without a token where one is needed
	BadTokens   uint64                // tokens that were not valid, of handshakes and auth frames, and neither of these:
	Expired     uint64                // were good once
	UnknownKeys uint64                // name a key that their issuer has not
	Errors      map[frame.Code]uint64 // error frames sent, by code
	Closed      map[CloseCode]uint64  // sessions ended, by close code; 0: a code of the peer's own
}

// metrics are the counters themselves: plain atomics, since some are on hot paths. The tables are fixed, so what is sent
// cannot make them grow.
type metrics struct {
	accepted, failed, frames, messages        atomic.Uint64
	noTokens, badTokens, expired, unknownKeys atomic.Uint64

	rateLimited [kinds]atomic.Uint64

	handshakes codeCounts
	errors     codeCounts
	closes     [len(closeCounted)]atomic.Uint64
	otherClose atomic.Uint64
}

// codeCounts counts by code, in the order of frame.Codes.
type codeCounts [32]atomic.Uint64

var codeIndex = func() map[frame.Code]int {
	m := make(map[frame.Code]int)
	for i, c := range frame.Codes() {
		m[c] = i
	}
	return m
}()

var closeCounted = [...]CloseCode{
	CloseNormal, CloseGoingAway, CloseProtocol, CloseBinary, closeNoStatus, closeUnannounced, CloseBadUTF8, CloseTooBig,
	CloseInternal, CloseDrain, CloseTryLater, CloseSlow, CloseTimeout, CloseMayReturn, CloseExpired, CloseRevoked,
	CloseNotAllowed, CloseReplaced, CloseMisbehaved,
}

func (c *codeCounts) add(code frame.Code) {
	if i, ok := codeIndex[code]; ok {
		c[i].Add(1)
	}
}

func (c *codeCounts) all() map[frame.Code]uint64 {
	m := make(map[frame.Code]uint64, len(codeIndex))
	for code, i := range codeIndex {
		m[code] = c[i].Load()
	}
	return m
}

func (m *metrics) refused(f *refusal) { m.handshakes.add(f.code) }

func (m *metrics) refusedToken(err error) {
	switch {
	case errors.Is(err, auth.ErrExpired):
		m.expired.Add(1)
	case errors.Is(err, auth.ErrUnknownKey):
		m.unknownKeys.Add(1)
	default:
		m.badTokens.Add(1)
	}
}

func (m *metrics) refusedFrame(code frame.Code) { m.errors.add(code) }

func (m *metrics) closed(code CloseCode) {
	for i, c := range closeCounted {
		if c == code {
			m.closes[i].Add(1)
			return
		}
	}
	m.otherClose.Add(1)
}

// Stats returns the counters. Every code of the tables has its entry, also at zero.
func (e *Edge) Stats() Stats {
	m := &e.metrics
	st := Stats{
		Sessions: e.sessions.Load(), Accepted: m.accepted.Load(), Failed: m.failed.Load(), Refused: m.handshakes.all(),
		Frames: m.frames.Load(), Messages: m.messages.Load(), RateLimited: make(map[Kind]uint64), Errors: m.errors.all(),
		NoTokens: m.noTokens.Load(), BadTokens: m.badTokens.Load(), Expired: m.expired.Load(), UnknownKeys: m.unknownKeys.Load(),
		Closed: map[CloseCode]uint64{0: m.otherClose.Load()},
	}
	for k := range kinds {
		st.RateLimited[k] = m.rateLimited[k].Load()
	}
	for i, c := range closeCounted {
		st.Closed[c] = m.closes[i].Load()
	}
	return st
}
