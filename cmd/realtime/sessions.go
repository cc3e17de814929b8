package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// sessions lists who is connected.
type sessions struct {
	dial
	User    string `placeholder:"USER" xor:"filter" env:"-" help:"Those of this user."`
	Room    string `placeholder:"ROOM" xor:"filter" env:"-" help:"Those in this room."`
	Node    string `placeholder:"NODE" xor:"filter" env:"-" help:"Those of this node."`
	Session string `placeholder:"ID" xor:"filter" env:"-" help:"Just this one."`
}

func (*sessions) Help() string {
	return `Prints a table: who, where, since when, how many messages of its rooms it has still to be handed, and since when its
socket takes nothing. With --json everything that is known of each.

Examples:
  realtime sessions
  realtime sessions --user alice
  realtime sessions --room general --json`
}

func (s *sessions) request() *realtimev1.ListSessionsRequest {
	req := &realtimev1.ListSessionsRequest{PageSize: maxPage}
	switch {
	case s.User != "":
		req.Filter = &realtimev1.ListSessionsRequest_UserId{UserId: s.User}
	case s.Room != "":
		req.Filter = &realtimev1.ListSessionsRequest_Room{Room: s.Room}
	case s.Node != "":
		req.Filter = &realtimev1.ListSessionsRequest_NodeId{NodeId: s.Node}
	case s.Session != "":
		req.Filter = &realtimev1.ListSessionsRequest_SessionId{SessionId: s.Session}
	}
	return req
}

func (s *sessions) Run(e *env) error {
	return s.call(e, "sessions", func(conn *grpc.ClientConn) error {
		t := s.table(e, "SESSION", "USER", "NODE", "CONNECTED", "LAST SEEN", "ROOMS", "LAG", "BLOCKED SINCE", "ADDRESS")
		err := eachSession(e, realtimev1.NewControlServiceClient(conn), s.request(), func(m *realtimev1.Session) {
			lag := int64(0)
			for _, r := range m.GetRooms() {
				lag += r.GetLag()
			}
			t.row(m, word(m.GetSessionId()), word(m.GetUserId()), word(m.GetNodeId()), stamp(m.GetConnectedAt()), stamp(m.GetLastSeen()),
				fmt.Sprint(len(m.GetRooms())), fmt.Sprint(lag), stamp(m.GetBlockedSince()), word(m.GetAddress()))
		})
		return errors.Join(err, t.end())
	})
}

// eachSession goes through all pages of sessions.
func eachSession(e *env, calls realtimev1.ControlServiceClient, req *realtimev1.ListSessionsRequest, f func(*realtimev1.Session)) error {
	for {
		page, err := calls.ListSessions(e.ctx, req)
		if err != nil {
			return err
		}
		for _, m := range page.GetSessions() {
			f(m)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			unreached(e, page.GetUnreachedNodes())
			return nil
		}
	}
}

// unreached tells which nodes did not answer.
func unreached(e *env, nodes []string) {
	if len(nodes) > 0 {
		fmt.Fprintf(e.err, "did not answer: %s: repeat it, or look after them\n", strings.Join(nodes, ", "))
	}
}

// nodes lists the processes.
type nodes struct {
	dial
}

func (*nodes) Help() string {
	return `Prints a table of the nodes that are alive. One that does not answer is there with its name only.

Example:
  realtime nodes`
}

func (n *nodes) Run(e *env) error {
	return n.call(e, "nodes", func(conn *grpc.ClientConn) error {
		calls := realtimev1.NewControlServiceClient(conn)
		t := n.table(e, "NODE", "HOST", "VERSION", "STARTED", "STATE", "SESSIONS", "MAX", "ROOMS")
		req := &realtimev1.ListNodesRequest{PageSize: maxPage}
		for {
			page, err := calls.ListNodes(e.ctx, req)
			if err != nil {
				return err
			}
			for _, m := range page.GetNodes() {
				state := label("NODE_STATE_", m.GetState())
				if m.GetState() == realtimev1.NodeState_NODE_STATE_UNSPECIFIED {
					state = "silent"
				}
				t.row(m, word(m.GetNodeId()), word(m.GetName()), word(m.GetVersion()), stamp(m.GetStartedAt()), state,
					fmt.Sprint(m.GetSessionCount()), fmt.Sprint(m.GetMaxSessions()), fmt.Sprint(m.GetRoomCount()))
			}
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				return t.end()
			}
		}
	})
}

// revoke makes tokens invalid.
type revoke struct {
	dial
	User         string        `placeholder:"USER" xor:"target" env:"-" help:"The tokens of this user."`
	TokenID      string        `placeholder:"JTI" xor:"target" env:"-" help:"The token with this jti, whenever it was issued."`
	All          bool          `xor:"target" env:"-" help:"Everyone's tokens, as after a key has leaked."`
	List         bool          `xor:"target" env:"-" help:"Print what is revoked instead."`
	IssuedBefore string        `placeholder:"TIME" env:"-" help:"Only tokens issued before it, 2026-01-15T10:30:00Z; else before now."`
	For          time.Duration `placeholder:"DURATION" env:"-" help:"Forget it after so long; else after the longest life of a token."`
	Undo         bool          `env:"-" help:"Take it back."`
}

func (*revoke) Help() string {
	return `Ends the sessions of the tokens (4501), on all nodes within 2 s, and lets none in with them. Prints how many were ended.
A token that is issued afterwards is good: to ban a user, stop issuing tokens.

Examples:
  realtime revoke --user mallory
  realtime revoke --token-id 7f3a
  realtime revoke --user mallory --undo
  realtime revoke --list`
}

// Validate names what is missing or does not go together.
func (r *revoke) Validate() error {
	switch {
	case r.User == "" && r.TokenID == "" && !r.All && !r.List:
		return errors.New("say what to revoke: --user, --token-id or --all; --list prints what is revoked")
	case (r.Undo || r.List) && (r.IssuedBefore != "" || r.For != 0):
		return errors.New("--issued-before and --for are for revoking")
	case r.Undo && r.List:
		return errors.New("--undo and --list do not go together")
	case r.For < 0:
		return errors.New("--for must be above 0")
	}
	return nil
}

func (r *revoke) Run(e *env) error {
	target := &realtimev1.Revocation{}
	switch {
	case r.User != "":
		target.Target = &realtimev1.Revocation_UserId{UserId: r.User}
	case r.TokenID != "":
		target.Target = &realtimev1.Revocation_TokenId{TokenId: r.TokenID}
	case r.All:
		target.Target = &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}
	}
	if r.IssuedBefore != "" {
		at, err := time.Parse(time.RFC3339, r.IssuedBefore)
		if err != nil {
			return fmt.Errorf("--issued-before: %q is no time like 2026-01-15T10:30:00Z", r.IssuedBefore)
		}
		target.IssuedBefore = timestamppb.New(at)
	}
	if r.For > 0 {
		target.ExpiresAt = timestamppb.New(time.Now().Add(r.For))
	}
	return r.call(e, "revoke", func(conn *grpc.ClientConn) error {
		calls := realtimev1.NewControlServiceClient(conn)
		switch {
		case r.List:
			return r.list(e, calls)
		case r.Undo:
			_, err := calls.Unrevoke(e.ctx, &realtimev1.UnrevokeRequest{Revocation: target})
			return err
		}
		resp, err := calls.Revoke(e.ctx, &realtimev1.RevokeRequest{Revocation: target})
		if err != nil {
			return err
		}
		return r.outcome(e, resp, "ended", resp.GetSessionCount(), resp.GetUnreachedNodes())
	})
}

func (r *revoke) list(e *env, calls realtimev1.ControlServiceClient) error {
	t := r.table(e, "REVOKED", "WHOSE", "ISSUED BEFORE", "UNTIL")
	req := &realtimev1.ListRevocationsRequest{PageSize: maxPage}
	for {
		page, err := calls.ListRevocations(e.ctx, req)
		if err != nil {
			return err
		}
		for _, m := range page.GetRevocations() {
			what, whose := "all", "-"
			switch target := m.GetTarget().(type) {
			case *realtimev1.Revocation_UserId:
				what, whose = "user", word(target.UserId)
			case *realtimev1.Revocation_TokenId:
				what, whose = "token", word(target.TokenId)
			}
			t.row(m, what, whose, stamp(m.GetIssuedBefore()), stamp(m.GetExpiresAt()))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return t.end()
		}
	}
}
