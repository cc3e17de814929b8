package remote

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

var errNoVerdict = errors.New("the backend answers without a verdict that is known here")

// verdict reads a yes or no.
func verdict(v realtimev1.HookVerdict, no *hooks.Denied) error {
	switch v {
	case realtimev1.HookVerdict_HOOK_VERDICT_ALLOW:
		return nil
	case realtimev1.HookVerdict_HOOK_VERDICT_DENY:
		return no
	}
	return errNoVerdict
}

func admission(resp *realtimev1.OnConnectResponse) (*hooks.Admission, error) {
	if err := verdict(resp.GetVerdict(), &hooks.Denied{Code: int(resp.GetCode()), Reason: resp.GetReason()}); err != nil {
		return nil, err
	}
	a := &hooks.Admission{User: resp.GetUserId(), Data: []byte(resp.GetSessionData()), Info: []byte(resp.GetInfo())}
	for _, room := range resp.GetRooms() {
		a.Rooms = append(a.Rooms, message.Room(room))
	}
	for _, g := range resp.GetGrants() {
		if a.Grants == nil {
			a.Grants = make(map[string]string)
		}
		if _, twice := a.Grants[g.GetPattern()]; twice {
			return nil, errors.New("the backend grants one pattern twice")
		}
		a.Grants[g.GetPattern()] = g.GetOperations()
	}
	if t := resp.GetExpiresAt(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, errors.New("expires_at is no time")
		}
		a.Expires = t.AsTime()
	}
	return a, nil
}

// outcome is what becomes of m.
func outcome(m *message.Message, resp *realtimev1.OnMessageResponse) (*message.Message, error) {
	switch resp.GetVerdict() {
	case realtimev1.MessageVerdict_MESSAGE_VERDICT_PASS:
		return m, nil
	case realtimev1.MessageVerdict_MESSAGE_VERDICT_SUPPRESS:
		if text := resp.GetError(); text != "" {
			return nil, &hooks.Denied{Reason: text}
		}
		return nil, nil
	case realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE:
		changed := *m
		if t := resp.GetType(); t != "" {
			changed.Type = message.Type(t)
		}
		if from := resp.GetFrom(); from != "" {
			changed.From = from
		}
		if data := resp.GetData(); data != "" {
			changed.Data = []byte(data)
		}
		return &changed, nil
	}
	return nil, fmt.Errorf("message: %w", errNoVerdict)
}

func session(s *hooks.Session) *realtimev1.HookSession {
	return &realtimev1.HookSession{SessionId: s.ID, UserId: s.User, NodeId: s.Node, Address: s.Address, SessionData: string(s.Data)}
}

func disconnections(ended []hooks.Disconnection) *realtimev1.OnDisconnectRequest {
	req := &realtimev1.OnDisconnectRequest{Disconnections: make([]*realtimev1.Disconnection, len(ended))}
	for i := range ended {
		d := &ended[i]
		rooms := make([]*realtimev1.RoomStart, len(d.Rooms))
		for j, p := range d.Rooms {
			rooms[j] = &realtimev1.RoomStart{Room: string(p.Room), AfterId: p.Last.String()}
		}
		req.Disconnections[i] = &realtimev1.Disconnection{
			Session: session(&d.Session), Rooms: rooms, Code: int32(d.Code), Reason: d.Reason, Time: timestamppb.New(d.Time), LastOfUser: d.LastOfUser,
		}
	}
	return req
}
