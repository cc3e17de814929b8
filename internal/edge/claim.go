package edge

import (
	"context"
	"time"

	"github.com/slack5/realtime/internal/presence"
)

// claimTimeout bounds the question whether a user may have one more session, and that of closing his oldest.
const claimTimeout = 2 * time.Second

// claimed is a session's place among those its user may have.
type claimed struct {
	*presence.Session      // nil: the token says no limit
	over              bool // he has too many with it: the oldest must go
}

// claim takes a place among the user's sessions, if his token says how many he may have. Release it with Close.
func (e *Edge) claim(id identity) (c claimed, f *refusal) {
	if id.MaxSessions == 0 || e.cfg.Claims == nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(e.base, claimTimeout)
	defer cancel()
	s, within := e.cfg.Claims.Claim(ctx, id.User, id.Info, id.MaxSessions, !e.cfg.RefuseSessions)
	if s == nil {
		return c, refuseLimit
	}
	return claimed{s, !within}, nil
}

// release gives the place back of a session that has not begun.
func (c claimed) release() {
	if c.Session != nil {
		c.Close()
	}
}

// trim closes the oldest sessions of a user who has more than his token allows.
func (e *Edge) trim(id identity) {
	if e.cfg.Trim == nil {
		return
	}
	ctx, cancel := context.WithTimeout(e.base, claimTimeout)
	defer cancel()
	if err := e.cfg.Trim(ctx, id.User, id.MaxSessions); err != nil && ctx.Err() == nil {
		e.log.Warn("a user has more sessions than his token allows: the oldest could not be closed", "err", err)
	}
}
