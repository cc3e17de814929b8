package edge

import (
	"bytes"
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/limit"
	"github.com/slack5/realtime/internal/message"
)

const (
	// refusedMax refused frames within refusedWithin end the session: it would only make work.
	refusedMax    = 200
	refusedWithin = 10 * time.Second
	// publishTimeout bounds a message's way to the broker.
	publishTimeout = 5 * time.Second
)

// usage is what a session that sends frames costs more than an idle one. It is the handler's.
type usage struct {
	frames, bytes, pings, subscribes, statuses, rooms limit.Meter

	user, address *spent // nil: there is none, or it has no limits
	refused       int
	refusedSince  time.Time

	// of this run
	left    []message.Room // unsubscribed; the shard comes to it later
	blamed  bool           // the frame has been counted as refused, however many of its rooms are
	replied bool           // a page was sent: not yet written, so no second one
}

// handle is the session's handler goroutine: it takes what one read brought, in order, then has the reading go on.
func (s *session) handle(in *inbox) {
	defer func() {
		if r := recover(); r != nil { // one session's frame must not end all others
			s.e.log.Error("handler panicked", "session_id", s.h.ID, "panic", r, "stack", string(debug.Stack()))
			s.close(CloseInternal, "")
		}
		if in.last != nil {
			s.end(in.last)
		}
		if s.conn != nil {
			s.conn.leave()
		}
		s.done.Store(true)
		s.h.Done()
	}()
	if s.conn != nil {
		s.conn.enter()
	}
	if s.h.AwaitJoins(s.e.base) != nil {
		return
	}
	if in.opens {
		s.conn.open()
	}
	if s.use == nil {
		s.use = s.newUsage()
	}
	s.use.left, s.use.replied = nil, false
	for _, m := range in.frames {
		if s.closing.Load() {
			return
		}
		if instead := s.e.cfg.instead; instead != nil {
			instead(s, m)
			continue
		}
		s.frame(s.e.base, m.data)
	}
}

// frame answers one frame.
func (s *session) frame(ctx context.Context, b []byte) {
	s.e.metrics.frames.Add(1)
	s.use.blamed = false
	s.active()
	in, err := frame.Decode(b)
	if err == nil {
		err = s.within(in.Type, len(b))
	}
	if err == nil {
		err = s.dispatch(ctx, in)
	}
	if err == nil {
		return
	}
	if bad, ok := errors.AsType[*frame.DecodeError](err); ok && bad.Ref != "" {
		in.Ref = bad.Ref
	}
	s.fail(in.Room, in.Ref, err)
}

func (s *session) dispatch(ctx context.Context, in frame.In) error {
	switch in.Type {
	case message.TypePing:
		s.h.Send("", frame.Pong{Ref: in.Ref, Data: in.Data}.Append(nil, nowMS()))
		return nil
	case message.TypePresence:
		return s.status(in)
	case message.TypeSubscribe:
		return s.subscribe(ctx, in)
	case message.TypeUnsubscribe:
		return s.unsubscribe(in)
	case message.TypeWho:
		return s.who(ctx, in)
	case message.TypeHistory:
		return s.history(ctx, in)
	case message.TypeAuth:
		return s.auth(in)
	}
	if in.Type.BackendOnly() {
		return &problem{code: frame.CodeForbiddenType, text: "only the server sends this type"}
	}
	t, ok := s.e.cfg.Types[in.Type]
	if !ok && in.Type != message.TypeChat {
		return &problem{code: frame.CodeUnknownType, text: "sessions do not send this type here"}
	}
	return s.say(ctx, in, t.Ephemeral)
}

// status takes the session's own online or away.
func (s *session) status(in frame.In) error {
	status, err := in.Status()
	if err != nil {
		return err
	}
	if wait, ok := s.use.statuses.Take(s.e.limits.rates[KindStatuses], s.e.now(), 1); !ok {
		return s.over(KindStatuses, wait)
	}
	if status == "away" {
		s.setAway(awaySaid, 0)
	} else {
		s.setAway(0, awaySaid)
	}
	s.ack(frame.Ack{Ref: in.Ref})
	return nil
}

// say publishes a message of the session.
func (s *session) say(ctx context.Context, in frame.In, ephemeral bool) error {
	room, err := s.room(in.Room)
	if err != nil {
		return err
	}
	if !s.joined(room) {
		return errNotJoined
	}
	if s.ops(room)&auth.Write == 0 {
		return errDenied
	}
	m := &message.Message{Type: in.Type, Room: room, From: s.h.User, Data: bytes.Clone(in.Data), Ephemeral: ephemeral}
	if len(m.Data) == 0 {
		m.Data = []byte("null")
	}
	if s.e.cfg.Hooks.Asks(hooks.Message) {
		if m, err = s.e.cfg.Hooks.Message(ctx, &s.conn.who, m); err != nil {
			return err
		}
		if m == nil {
			s.ack(frame.Ack{Room: room, Ref: in.Ref})
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	r, err := s.e.publish.Publish(ctx, m, s.caller(), in.Key)
	if err != nil {
		return err
	}
	s.e.metrics.messages.Add(1)
	s.ack(frame.Ack{Room: room, Ref: in.Ref, ID: r.ID, Degraded: r.Degraded, Duplicate: r.Duplicate})
	return nil
}

// caller is who an idempotency key belongs to: the user on all sessions and nodes, an anonymous session for itself.
func (s *session) caller() string {
	if s.anonymous {
		return "session/" + s.h.ID
	}
	return "user/" + s.h.User
}

// ack answers a frame that carried a ref.
func (s *session) ack(a frame.Ack) {
	if a.Ref != "" {
		s.h.Send(a.Room, a.Append(nil, nowMS()))
	}
}

// room is the ordinary room that a frame means.
func (s *session) room(name string) (message.Room, error) {
	switch {
	case name == "" && s.first == "":
		return "", &problem{code: frame.CodeBadRoom, text: "name a room: the URL named none"}
	case name == "":
		return s.first, nil
	case strings.HasPrefix(name, "@"):
		return "", errReserved
	}
	return message.ParseRoom(name)
}

// joined tells whether the session is a member, as its frames so far would have it.
func (s *session) joined(room message.Room) bool {
	return !s.hasLeft(room) && s.h.Joined(room)
}

// fail answers with an error frame. Too many end the session.
func (s *session) fail(name, ref string, err error) {
	p := s.problemOf(err)
	s.e.metrics.refusedFrame(p.code)
	if len(name) > message.MaxRoomBytes {
		name = "" // it is no room's, and need not come back
	}
	room := message.Room(name)
	s.h.Send(room, frame.Error{Room: room, Ref: ref, Code: p.code, Text: p.text, RetryAfterMS: p.retryMS()}.Append(nil, nowMS()))
	if !p.blames() || s.use.blamed {
		return
	}
	s.use.blamed = true
	now := time.Now()
	if now.Sub(s.use.refusedSince) > refusedWithin {
		s.use.refused, s.use.refusedSince = 0, now
	}
	if s.use.refused++; s.use.refused >= refusedMax {
		s.close(CloseMisbehaved, "")
	}
}

func nowMS() int64 { return time.Now().UnixMilli() }
