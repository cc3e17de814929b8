package control

import (
	"context"
	"log/slog"

	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// Kinds of questions. One whose form changes gets another number: a node that does not know a kind leaves it unanswered, and
// counts as not reached.
const (
	kindSessions   = "sessions/1"
	kindDisconnect = "disconnect/1"
	kindJoin       = "join/1"
	kindLeave      = "leave/1"
	kindRevoked    = "revoked/1"
	kindInfo       = "info/1"
	kindRooms      = "rooms/1"
)

// sessionsPage answers kindSessions.
type sessionsPage struct {
	Sessions []Session `json:"sessions,omitzero"`
	More     bool      `json:"more,omitzero"`
}

// tally answers those that count.
type tally struct {
	Count int `json:"count"`
}

type usersOf struct {
	Users []string `json:"users"`
}

type roomsOf struct {
	Rooms [][]message.Room `json:"rooms"`
}

type nothing struct{}

// question is one that may come from whoever can write to the bus: only what is within its bounds is acted upon.
type question interface{ ok() bool }

func (q Query) ok() bool { return q.Limit > 0 && q.Limit <= MaxPage }

func (d Disconnect) ok() bool {
	return (d.User != "") != (len(d.Sessions) > 0) && d.Code >= minCode && d.Code <= maxCode && len(d.Reason) <= MaxReasonBytes
}

func (p Placing) ok() bool {
	for _, r := range p.Rooms {
		if _, err := message.ParseRoom(string(r)); err != nil {
			return false
		}
	}
	return p.User != "" && len(p.Rooms) > 0 && len(p.Rooms) <= MaxRooms
}

func (u usersOf) ok() bool { return len(u.Users) <= MaxUsers }

func (nothing) ok() bool { return true }

// Serve answers questions with what n knows. What is not understood, or fails, gets an empty answer.
func Serve(n Node, logger *slog.Logger) func(context.Context, broker.Request) broker.Reply {
	s := &server{n, logger.With("component", "control")}
	return func(ctx context.Context, r broker.Request) broker.Reply {
		answer, err := s.answer(ctx, r)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("a question of another node is not answered", "kind", cut(r.Kind), "err", err)
			}
			return broker.Reply{}
		}
		return broker.Reply{Body: answer}
	}
}

// cut bounds what others have written, for the log.
func cut(s string) string { return s[:min(len(s), 64)] }

type server struct {
	node Node
	log  *slog.Logger
}

func (s *server) answer(ctx context.Context, r broker.Request) ([]byte, error) {
	switch r.Kind {
	case kindSessions:
		return reply(r, func(q Query) (p sessionsPage, err error) {
			p.Sessions, p.More, err = s.node.Sessions(ctx, q)
			return p, err
		})
	case kindDisconnect:
		return reply(r, func(d Disconnect) (Disconnected, error) { return s.node.Disconnect(d), nil })
	case kindJoin:
		return reply(r, func(p Placing) (tally, error) { return tally{s.node.Join(ctx, p)}, nil })
	case kindLeave:
		return reply(r, func(p Placing) (tally, error) { return tally{s.node.Leave(p)}, nil })
	case kindRevoked:
		return reply(r, func(nothing) (t tally, err error) {
			t.Count, err = s.node.Revoked(ctx)
			return t, err
		})
	case kindInfo:
		return reply(r, func(nothing) (Info, error) { return s.node.Info(), nil })
	case kindRooms:
		return reply(r, func(u usersOf) (roomsOf, error) { return roomsOf{s.node.RoomsOf(u.Users)}, nil })
	}
	return nil, errKind
}

// reply reads a question, has it answered, and renders the answer.
func reply[Q question, A any](r broker.Request, f func(Q) (A, error)) ([]byte, error) {
	var q Q
	if json.Unmarshal(r.Body, &q) != nil || !q.ok() {
		return nil, errForm // the library's error would quote the question
	}
	a, err := f(q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}
