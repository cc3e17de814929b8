package edge

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// maxAgentBytes is how much of a User-Agent header is kept.
const maxAgentBytes = 256

// about is what operators are told of a session and did to it: nothing that a write or a frame looks at.
type about struct {
	began   int64                 // Unix ms
	address string                // as operators read it
	from    address               // as limits count it; 0: none does
	agent   unique.Handle[string] // few differ

	token atomic.Pointer[token] // nil: anonymous
	claim *presence.Session     // its place among those its user may have, where nobody is told; nil: session.here is it, or there is no limit

	mu     sync.Mutex
	placed []message.Room // rooms that an operator put the session into: it may be there whatever its grants
}

func newAbout(r *http.Request, address string) *about {
	agent := r.UserAgent()
	agent = strings.ToValidUTF8(agent[:min(len(agent), maxAgentBytes)], "")
	return &about{began: nowMS(), address: address, agent: unique.Make(agent)}
}

func (a *about) place(rooms []message.Room) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rooms {
		if !slices.Contains(a.placed, r) {
			a.placed = append(a.placed, r)
		}
	}
}

func (a *about) displace(room message.Room) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.placed = slices.DeleteFunc(a.placed, func(r message.Room) bool { return r == room })
}

func (a *about) isPlaced(room message.Room) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.placed, room)
}

// token is what of a session's token is needed later. It is replaced whole.
type token struct {
	id      string
	issued  time.Time // zero: it does not say
	expires time.Time
}

func tokenOf(id auth.Identity) *token { return &token{id.TokenID, id.IssuedAt, id.Expires} }

// ops are what the session may do in a room.
func (s *session) ops(room message.Room) auth.Ops {
	ops := s.grants.Load().For(room)
	if ops&auth.Receive == 0 && s.about.isPlaced(room) {
		ops |= auth.Receive
	}
	return ops
}

// revoked tells whether the session's token does not count any more.
func (s *session) revoked() bool {
	t := s.about.token.Load()
	return t != nil && s.e.cfg.Revoked != nil && s.e.cfg.Revoked(s.h.User, t.id, t.issued)
}
