package edge

import (
	"context"
	"errors"
	"time"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
)

const internalText = "something went wrong on the server"

// problem is what an error frame says.
type problem struct {
	code  frame.Code
	text  string
	retry time.Duration
}

func (p *problem) Error() string { return p.text }

var (
	errNotJoined  = &problem{code: frame.CodeNotJoined, text: "the session is not a member of this room"}
	errReserved   = &problem{code: frame.CodeNotPermitted, text: reservedText}
	errDenied     = &problem{code: frame.CodeNotPermitted, text: "the token does not grant this here"}
	errToken      = &problem{code: frame.CodeBadToken, text: refuseToken.text}
	errNoPresence = &problem{code: frame.CodeNotPermitted, text: "presence is turned off on this server"}
	errBusy       = &problem{code: frame.CodeBusy, text: "the answer to an earlier question is not yet on its way", retry: 100 * time.Millisecond}
	errRoomLimit  = &problem{code: frame.CodeRoomLimit, text: "the session is in as many rooms as it may be"}

	problemOverloaded = &problem{code: frame.CodeOverloaded, text: "the room cannot take more at the moment", retry: time.Second}
	problemAway       = &problem{code: frame.CodeBrokerUnavailable, text: "not to be had at the moment", retry: time.Second}
	problemUnknown    = &problem{code: frame.CodeBrokerUnavailable, text: "not confirmed in time: repeat it with the same key", retry: time.Second}
	problemInternal   = &problem{code: frame.CodeInternal, text: internalText}
)

// sentinels is the table of what a frame's handling can return, but for those that know their own answer.
var sentinels = []struct {
	err error
	p   *problem
}{
	{hub.ErrOverloaded, problemOverloaded},
	{broker.ErrOverloaded, problemOverloaded},
	{broker.ErrUnavailable, problemAway},
	{broker.ErrClosed, problemAway},
	{hub.ErrClosed, problemAway},
	{context.DeadlineExceeded, problemUnknown},
	{context.Canceled, problemAway},
}

// messageCodes says which code answers what can be wrong with a message.
var messageCodes = []struct {
	err  error
	code frame.Code
}{
	{message.ErrInvalidRoom, frame.CodeBadRoom},
	{message.ErrForbiddenType, frame.CodeForbiddenType},
	{message.ErrTooLarge, frame.CodeTooLarge},
	{message.ErrInvalidData, frame.CodeBadFrame},
	{message.ErrInvalidUser, frame.CodeBadFrame},
	{message.ErrInvalid, frame.CodeBadFrame},
}

// problemOf is the edge's one table from errors to error frames. An error that is not in it leaves as a fixed text and is
// logged here, once.
func (s *session) problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if p := hookProblem(err); p != nil {
		return p
	}
	if bad, ok := errors.AsType[*frame.DecodeError](err); ok {
		return &problem{code: bad.Code, text: bad.Text}
	}
	if bad, ok := errors.AsType[*message.Error](err); ok {
		for _, c := range messageCodes {
			if errors.Is(bad, c.err) {
				return &problem{code: c.code, text: bad.Text}
			}
		}
	}
	for _, c := range sentinels {
		if errors.Is(err, c.err) {
			return c.p
		}
	}
	s.e.log.Error("frame not handled", "session_id", s.h.ID, "err", err)
	return problemInternal
}

// retryMS is at least one millisecond where there is something to wait for.
func (p *problem) retryMS() int64 {
	return int64((p.retry + time.Millisecond - 1) / time.Millisecond)
}

// blames tells whether it was the session's doing.
func (p *problem) blames() bool {
	switch p.code {
	case frame.CodeOverloaded, frame.CodeBrokerUnavailable, frame.CodeHookUnavailable, frame.CodeInternal:
		return false
	}
	return true
}
