package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/slack5/realtime/cmd/examples/moderation/words"
	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// mustNot is a code to close a session with after which it does not come back; after 4400 to 4499 it does.
const mustNot = 4700

// tooMany bad words in one message are not masked any more: the message is not published.
const tooMany = 3

// service decides about sessions. Nodes call it concurrently.
type service struct {
	realtimev1.UnimplementedHooksServiceServer

	staff  map[string]bool // who may enter rooms that begin with staff
	banned map[string]bool // who may not come at all
	log    *slog.Logger
}

// allowed is the rule for rooms.
func (s *service) allowed(user, room string) bool {
	return !strings.HasPrefix(room, "staff") || s.staff[user]
}

// OnConnect is asked before a session begins, also about the rooms in its URL.
func (s *service) OnConnect(_ context.Context, r *realtimev1.OnConnectRequest) (*realtimev1.OnConnectResponse, error) {
	user := r.GetSession().GetUserId()
	if s.banned[user] {
		return &realtimev1.OnConnectResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_DENY, Code: mustNot, Reason: "you are banned"}, nil
	}
	for _, room := range r.GetRooms() {
		if !s.allowed(user, room) {
			return &realtimev1.OnConnectResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_DENY, Reason: "this room is for staff"}, nil
		}
	}
	return &realtimev1.OnConnectResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW}, nil
}

// OnSubscribe is asked when a session joins a room later.
func (s *service) OnSubscribe(_ context.Context, r *realtimev1.OnSubscribeRequest) (*realtimev1.OnSubscribeResponse, error) {
	if !s.allowed(r.GetSession().GetUserId(), r.GetRoom()) {
		return &realtimev1.OnSubscribeResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_DENY, Reason: "this room is for staff"}, nil
	}
	return &realtimev1.OnSubscribeResponse{Verdict: realtimev1.HookVerdict_HOOK_VERDICT_ALLOW}, nil
}

// OnMessage is asked about each message before it is published.
func (s *service) OnMessage(_ context.Context, r *realtimev1.OnMessageRequest) (*realtimev1.OnMessageResponse, error) {
	switch data, found := words.Mask([]byte(r.GetMessage().GetData())); {
	case found == 0:
		return &realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_PASS}, nil
	case found >= tooMany:
		return &realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_SUPPRESS, Error: fmt.Sprintf("%d bad words: calm down", found)}, nil
	default:
		return &realtimev1.OnMessageResponse{Verdict: realtimev1.MessageVerdict_MESSAGE_VERDICT_REPLACE, Data: string(data)}, nil
	}
}

// OnDisconnect hears of sessions that have ended: of each at least once.
func (s *service) OnDisconnect(_ context.Context, r *realtimev1.OnDisconnectRequest) (*realtimev1.OnDisconnectResponse, error) {
	for _, d := range r.GetDisconnections() {
		s.log.Info("session ended", "session", d.GetSession().GetSessionId(), "user", d.GetSession().GetUserId(),
			"code", d.GetCode(), "rooms", len(d.GetRooms()), "last_of_user", d.GetLastOfUser())
	}
	return &realtimev1.OnDisconnectResponse{}, nil
}
