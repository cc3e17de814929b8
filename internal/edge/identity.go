package edge

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// identity is who a session is, and what it may do.
type identity struct {
	auth.Identity
	anonymous bool // the session is its own user and has no @me

	session string // its id
	address string // of the peer

	// what a hook says
	subject string         // whom the token names; "": there is none
	added   []message.Room // joined besides the URL's
	data    []byte         // for later hooks
	fixed   fixed
}

// fixed is what a new token does not change, as it is not the token's.
type fixed struct{ grants, info bool }

// bearer precedes a token among the subprotocols that a browser offers.
const bearer = "bearer."

// token returns the request's token: of the header, else of a subprotocol, else of the URL. "": there is none.
func (e *Edge) token(r *http.Request, inURL string) string {
	for _, h := range r.Header["Authorization"] {
		if scheme, token, ok := strings.Cut(strings.TrimSpace(h), " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	for _, h := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(h, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(p), bearer); ok {
				return token
			}
		}
	}
	if e.cfg.NoQueryToken {
		return ""
	}
	return inURL
}

// identify tells who holds a token. One that is there must be valid, also where sessions need none.
func (e *Edge) identify(token string, from address) (identity, *refusal) {
	if token == "" {
		if !e.cfg.Anonymous {
			e.metrics.noTokens.Add(1)
			return identity{}, refuseToken
		}
		return identity{Identity: auth.Identity{Grants: e.cfg.Grants}, anonymous: true}, nil
	}
	id, err := e.verify(token, from)
	switch {
	case err == nil:
		return identity{Identity: id}, nil
	case errors.Is(err, auth.ErrExpired):
		return identity{}, refuseExpired
	case errors.Is(err, ErrRevoked):
		return identity{}, refuseRevoked
	}
	return identity{}, refuseToken
}

// verify logs why a token is refused: its bearer is not told.
func (e *Edge) verify(token string, from address) (auth.Identity, error) {
	if e.cfg.Verify == nil {
		e.metrics.badTokens.Add(1)
		return auth.Identity{}, errNoKeys
	}
	id, err := e.cfg.Verify(token)
	if err == nil {
		err = message.CheckUser(id.User)
	}
	if err == nil && e.cfg.Revoked != nil && e.cfg.Revoked(id.User, id.TokenID, id.IssuedAt) {
		err = ErrRevoked
	}
	if err != nil {
		e.metrics.refusedToken(err)
		if !errors.Is(err, auth.ErrExpired) && !errors.Is(err, ErrRevoked) { // neither is a guess
			e.failed(from)
		}
		e.log.Debug("token refused", "err", err)
	}
	return id, err
}

var errNoKeys = errors.New("a token was given, but no key is configured that could verify it")

// lapse notes when the token ends, if it does; 0: never. One that was taken within the leeway gets the leeway.
func (s *session) lapse(expires time.Time) {
	if expires.IsZero() {
		s.expires.Store(0)
		s.warnAt.Store(0)
		return
	}
	left := time.Until(expires)
	if left <= 0 {
		left += auth.Leeway
	}
	w := s.e.wheel
	life := w.ticks(min(max(left, 0), maxLapse*w.unit))
	warn := w.warn
	if life <= warn {
		warn = life / 2 // told at once, whoever renews with such tokens would do nothing else
	}
	end := w.now() + life
	s.expires.Store(uint32(end))
	s.warnAt.Store(uint32(end - warn))
}

// maxLapse is how many ticks ahead a token's end is noted at most: 17 years in ordinary units, half of what a tick can count.
const maxLapse = 1 << 31

// warnBefore is how long before its token's end a session is told; of a token that has less, half of what it has.
const warnBefore = time.Minute

// expiry does what the token's end asks for at now, and says when to ask again; 0: never.
func (s *session) expiry(now tick) tick {
	w, end := s.e.wheel, tick(s.expires.Load())
	switch {
	case end == 0:
		return 0
	case now >= end:
		s.close(CloseExpired, "")
		return now + w.second
	}
	at := s.warnAt.Load()
	switch {
	case at == 0:
		return end
	case now < tick(at):
		return tick(at)
	case !s.warnAt.CompareAndSwap(at, 0): // renewed just now
		return now + 1
	}
	s.h.Send("", frame.Expiring{InMS: (time.Duration(end-now) * w.unit).Milliseconds()}.Append(nil, nowMS()))
	return end
}

// auth takes a new token of the same user: the session lives on by it, and with its grants. Rooms that are no longer granted
// end.
func (s *session) auth(in frame.In) error {
	token, err := in.Token()
	if err != nil {
		return err
	}
	if wait, ok := s.e.mayFail(s.about.from, s.e.now()); !ok {
		return s.over(KindAddressFailures, wait)
	}
	id, err := s.e.verify(token, s.about.from)
	user, keeps := s.h.User, fixed{}
	if s.conn != nil {
		user, keeps = s.conn.subject, s.conn.fixed
	}
	if err != nil || s.anonymous || id.User != user {
		return errToken
	}
	if !keeps.grants {
		s.grants.Store(id.Grants)
	}
	s.about.token.Store(tokenOf(id))
	s.lapse(id.Expires)
	s.e.wheel.hasten(s, s.clock())
	if s.here != nil && !keeps.info {
		s.here.Info(id.Info)
	}
	for _, room := range s.h.Rooms() {
		ops := s.ops(room)
		if ops&auth.Receive == 0 {
			s.use.left = append(s.use.left, room)
			s.h.Leave(room, frame.Unsubscribed{Room: room, Reason: "permission"}.Append(nil, nowMS()))
			continue
		}
		s.h.See(room, ops&auth.See != 0)
	}
	s.h.Send("", frame.Renewed{Ref: in.Ref, Expires: unixMS(id.Expires)}.Append(nil, nowMS()))
	if s.revoked() { // since it was looked at
		s.close(CloseRevoked, "")
	}
	return nil
}

// unixMS is 0 for no time.
func unixMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
