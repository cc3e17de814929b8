package edge

import (
	"context"
	"strconv"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

const (
	// replyBytes bounds a reply to who and history, and with it what one session can have in memory.
	replyBytes = 128 << 10
	// messageOverhead is about what a message takes in a reply beside its data and names.
	messageOverhead = 160
	historyTimeout  = 5 * time.Second
)

// who answers with a page of the room's users.
func (s *session) who(ctx context.Context, in frame.In) error {
	after, limit, err := in.Who()
	if err != nil {
		return err
	}
	room, err := s.room(in.Room)
	if err != nil {
		return err
	}
	if !s.joined(room) {
		return errNotJoined
	}
	if s.ops(room)&auth.See == 0 {
		return errDenied
	}
	if s.e.cfg.Presence == nil {
		return errNoPresence
	}
	if s.use.replied {
		return errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	roster, err := s.e.cfg.Presence.Room(ctx, room)
	if err != nil {
		return err
	}
	s.use.replied = true
	w := frame.Who{Room: room, Ref: in.Ref, Users: roster.Totals.Users(), Sessions: roster.Sessions}
	size := 0
	for _, u := range roster.After(after) {
		size += messageOverhead + 2*len(u.ID) + len(u.Info)
		if len(w.Members) == limit || size > replyBytes {
			w.Next = w.Members[len(w.Members)-1].UserID
			break
		}
		w.Members = append(w.Members, frame.Member{UserID: u.ID, Status: u.Status.String(), Since: u.Since, Sessions: int(u.Sessions), Info: u.Info})
	}
	s.h.Send(room, w.Append(nil, nowMS()))
	return nil
}

// readable is the room whose history a frame asks for: a joined one, the session's own, or Global.
func (s *session) readable(name string) (message.Room, error) {
	switch {
	case message.Room(name) == message.Global:
		return message.Global, nil
	case message.Room(name) == message.Me && !s.anonymous:
		return message.UserRoom(s.h.User), nil
	case message.Room(name) == message.Me:
		return "", errNotJoined
	}
	room, err := s.room(name)
	if err == nil && !s.joined(room) {
		err = errNotJoined
	}
	if err == nil && s.ops(room)&auth.History == 0 {
		err = errDenied
	}
	return room, err
}

func (s *session) history(ctx context.Context, in frame.In) error {
	want, err := in.History()
	if err != nil {
		return err
	}
	room, err := s.readable(in.Room)
	if err != nil {
		return err
	}
	q, anchor, ok := historyQuery(room, want)
	if !ok {
		return &problem{code: frame.CodeBadFrame, text: "data.page is not what a next said"}
	}
	if s.use.replied {
		return errBusy
	}
	if s.e.cfg.History == nil {
		return problemAway
	}
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	page, err := s.e.cfg.History(ctx, q)
	if err != nil {
		return err
	}
	s.use.replied = true
	h := frame.History{Room: room, Ref: in.Ref, Truncated: !want.After.IsZero() && page.Truncated(q.From)}
	kept, next := fit(page, q, anchor)
	for _, e := range kept {
		if !e.Message.Excludes(s.h.ID, s.h.User) {
			h.Messages = append(h.Messages, e.Message)
		}
	}
	if next != 0 {
		h.Next = pageName(next, q.Backward)
	}
	s.h.Send(room, h.Append(nil, nowMS()))
	return nil
}

// historyQuery reads what is asked for. before an id includes what lies at its position, unless that is the message of
// the id itself (anchor): a frame that was not stored carries the position of the message in front of it.
func historyQuery(room message.Room, w frame.HistoryWant) (q message.Query, anchor message.ID, ok bool) {
	q = message.Query{Room: room, Limit: w.Limit, Bytes: replyBytes}
	switch {
	case w.Page != "":
		q.From, q.Backward, ok = parsePage(w.Page)
	case !w.Before.IsZero():
		anchor, ok = w.Before, true
		q.From, q.Backward = anchor.Position.Next(), true
		q.Limit++
	case !w.After.IsZero():
		q.From, ok = w.After.Position, true
	default:
		q.Backward, ok = true, true
	}
	return q, anchor, ok
}

// fit cuts a page to what one reply may hold, at the end that is farther from where it began, and says where the next
// one goes on; 0: there is none.
func fit(p message.Page, q message.Query, anchor message.ID) (kept []message.Entry, next message.Position) {
	es, more := p.Entries, p.More
	limit := q.Limit
	if !anchor.IsZero() {
		limit--
		if n := len(es); n > 0 && es[n-1].Message.ID == anchor {
			es = es[:n-1]
		}
	}
	size, n := 0, 0
	for n < len(es) && n < limit {
		e := es[n]
		if q.Backward {
			e = es[len(es)-1-n]
		}
		m := e.Message
		size += len(m.Data) + len(m.Type) + len(m.Room) + len(m.From) + messageOverhead
		if n > 0 && size > replyBytes-messageOverhead {
			break
		}
		n++
	}
	more = more || n < len(es)
	if q.Backward {
		kept = es[len(es)-n:]
	} else {
		kept = es[:n]
	}
	switch {
	case !more:
		return kept, 0
	case n == 0:
		return kept, anchor.Position // it filled the page alone
	case q.Backward:
		return kept, kept[0].Message.ID.Position
	}
	return kept, kept[n-1].Message.ID.Position
}

// pageName is opaque to sessions: a direction and a position.
func pageName(at message.Position, backward bool) string {
	dir := "n"
	if backward {
		dir = "o"
	}
	return dir + strconv.FormatUint(uint64(at), 36)
}

func parsePage(s string) (at message.Position, backward, ok bool) {
	if s == "" || s[0] != 'n' && s[0] != 'o' {
		return 0, false, false
	}
	n, err := strconv.ParseUint(s[1:], 36, 64)
	return message.Position(n), s[0] == 'o', err == nil && n > 0
}
