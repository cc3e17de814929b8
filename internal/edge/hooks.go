package edge

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

const deniedText = "not permitted here"

// consult asks the hook for connecting, and makes id what it answers. nil: the session may begin. The request is the context: who
// hangs up is not waited for.
func (e *Edge) consult(r *http.Request, a *asked, id *identity) *refusal {
	t := &hooks.Attempt{
		Session: hooks.Session{ID: id.session, User: id.User, Node: e.cfg.Node, Address: id.address},
		Claims:  claims(a.token), Headers: e.passedOn(r),
	}
	for _, room := range a.rooms {
		if room.why == nil {
			t.Rooms = append(t.Rooms, room.room)
		}
	}
	var grants *auth.Grants
	got, err := e.cfg.Hooks.Connect(r.Context(), t, func(got *hooks.Admission) (err error) {
		if got.Grants != nil {
			grants, err = auth.CompileGrants(got.Grants)
		}
		return err
	})
	if no, ok := errors.AsType[*hooks.Denied](err); ok {
		f := *refuseDenied
		f.close, f.text = CloseCode(no.Code), no.Reason
		if f.text == "" {
			f.text = deniedText
		}
		return &f
	}
	if err != nil {
		return refuseHook
	}
	id.subject, id.data, id.added = id.User, got.Data, got.Rooms
	if got.User != "" {
		id.User, id.anonymous = got.User, false
	}
	if grants != nil {
		id.Grants, id.fixed.grants = grants, true
	}
	if len(got.Info) > 0 {
		id.Info, id.fixed.info = got.Info, true
	}
	if !got.Expires.IsZero() {
		id.Expires = got.Expires
	}
	return nil
}

// passedOn are the headers that the hook gets. Cookies only with an Origin, which was judged: without one nothing tells which
// page had a browser send them. Values need not be UTF-8, but a question must, and one that cannot be put might let pass.
func (e *Edge) passedOn(r *http.Request) map[string]string {
	var m map[string]string
	for _, name := range e.cfg.HookHeaders {
		name = http.CanonicalHeaderKey(name)
		values, sep := r.Header[name], ", "
		if name == "Cookie" {
			if sep = "; "; len(r.Header["Origin"]) == 0 {
				continue
			}
		}
		if len(values) == 0 {
			continue
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[strings.ToLower(name)] = strings.ToValidUTF8(strings.Join(values, sep), "\uFFFD")
	}
	return m
}

// claims are those of a token that has been verified; nil: it has none that can be shown.
func claims(token string) []byte {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, signed := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if !signed || err != nil || message.CheckJSON(b) != nil {
		return nil
	}
	return b
}

// permitted are those of the joins that the hook for subscribing allows; the others are answered. Rooms that the session is in
// already are not asked about again.
func (s *session) permitted(ctx context.Context, joins []hub.Join, ref string) []hub.Join {
	if !s.e.cfg.Hooks.Asks(hooks.Subscribe) {
		return joins
	}
	var rooms []message.Room
	for _, j := range joins {
		if !s.joined(j.Room) {
			rooms = append(rooms, j.Room)
		}
	}
	if len(rooms) == 0 {
		return joins
	}
	no := make(map[message.Room]error)
	for i, err := range s.e.cfg.Hooks.Subscribe(ctx, &s.conn.who, rooms) {
		if err != nil {
			no[rooms[i]] = err
		}
	}
	allowed := joins[:0]
	for _, j := range joins {
		if err := no[j.Room]; err != nil {
			s.fail(string(j.Room), ref, err)
			continue
		}
		allowed = append(allowed, j)
	}
	return allowed
}

// hookProblem says what a hook's error means for the one who sent a frame; nil: it is no hook's.
func hookProblem(err error) *problem {
	if no, ok := errors.AsType[*hooks.Denied](err); ok {
		if no.Reason == "" {
			return &problem{code: frame.CodeHookDenied, text: deniedText}
		}
		return &problem{code: frame.CodeHookDenied, text: no.Reason}
	}
	if away, ok := errors.AsType[*hooks.Unavailable](err); ok {
		return &problem{code: frame.CodeHookUnavailable, text: refuseHook.text, retry: away.Retry}
	}
	return nil
}

// Left implements hub.Leaver.
func (s *session) Left(room message.Room, at message.Position) {
	if c := s.conn; c != nil && room.Ordinary() && s.e.cfg.Hooks.Asks(hooks.Disconnect) {
		c.places = append(c.places, hooks.Place{Room: room, Last: message.ID{Position: at, Low: s.e.minter.Low(room.Tag(), true)}})
	}
}

// closes notes what the session ends with; the first word counts.
func (s *session) closes(code CloseCode, reason string) {
	if s.conn == nil {
		return
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.conn.code == 0 {
		s.conn.code, s.conn.reason = code, reason
	}
}

// released is the shard's last word on the session: nobody reads it, and it is in no room.
func (c *Conn) released() {
	c.mu.Lock()
	c.freed = true
	told := c.toldLocked()
	c.mu.Unlock()
	if told {
		c.report()
	}
}

// toldLocked tells, once, that the hook for disconnecting is to hear of the session: no other hook is asked about it any more.
func (c *Conn) toldLocked() bool {
	if !c.freed || c.running {
		return false
	}
	c.freed = false
	return true
}

func (c *Conn) report() {
	d := hooks.Disconnection{Session: c.who, Rooms: c.places, Code: int(c.code), Reason: c.reason, Time: time.Now()}
	d.Session.Conn = nil
	c.s.e.cfg.Hooks.Ended(d)
}
