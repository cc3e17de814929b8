package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/message"
)

const (
	maxSessionID = 64 // bytes; ours have 26
	maxExcept    = 1000

	closeMayReturn  = 4003
	closeMustNot    = 4501
	mayReturnFrom   = 4400 // the application's own codes
	mayReturnTo     = 4499
	mustNotFrom     = 4700
	mustNotTo       = 4999
	closeCodesWords = "4003, 4501, 4400 to 4499 or 4700 to 4999"
)

// controls acts on sessions, wherever they are: it only asks, the nodes act.
type controls struct {
	realtimev1.UnimplementedControlServiceServer
	ask      *control.Asker
	log      *slog.Logger
	lifetime time.Duration // of the longest token, the clocks' difference included
}

// audit logs who has called what, and what came of it: never a reason or anything else that sessions are sent.
func (s *controls) audit(ctx context.Context, call string, err error, attrs ...any) {
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, "refused", explain(err).code.String())
	}
	s.log.Log(ctx, level, "control", append([]any{"call", call, "caller", callerOf(ctx).Identity}, attrs...)...)
}

// brief bounds what callers have written, for the log.
func brief(s string) string { return s[:min(len(s), message.MaxUserBytes)] }

// Disconnect closes sessions.
func (s *controls) Disconnect(ctx context.Context, req *realtimev1.DisconnectRequest) (resp *realtimev1.DisconnectResponse, err error) {
	defer func() {
		s.audit(ctx, "Disconnect", err, "user_id", brief(req.GetUserId()), "session_id", brief(req.GetSessionId()), "code", req.GetCode(),
			"sessions", resp.GetSessionCount(), "unreached", resp.GetUnreachedNodes())
	}()
	d, err := disconnectOf(req)
	if err != nil {
		return nil, err
	}
	closed, unreached, err := s.ask.Disconnect(ctx, d)
	if err != nil {
		return nil, err
	}
	return &realtimev1.DisconnectResponse{SessionCount: int32(closed), UnreachedNodes: unreached}, nil
}

func disconnectOf(req *realtimev1.DisconnectRequest) (d control.Disconnect, err error) {
	d = control.Disconnect{Code: int(req.GetCode()), Reason: req.GetReason(), Except: req.GetExceptSessionIds()}
	switch target := req.GetTarget().(type) {
	case *realtimev1.DisconnectRequest_UserId:
		d.User = target.UserId
		err = message.CheckUser(d.User)
	case *realtimev1.DisconnectRequest_SessionId:
		d.Sessions = []string{target.SessionId}
		err = checkSession("session_id", target.SessionId)
	default:
		err = wrong("target", "say whom to close: user_id or session_id", 0)
	}
	if err != nil {
		return d, err
	}
	switch c := d.Code; {
	case c == 0:
		d.Code = closeMayReturn
	case c == closeMayReturn, c == closeMustNot, c >= mayReturnFrom && c <= mayReturnTo, c >= mustNotFrom && c <= mustNotTo:
	default:
		return d, wrong("code", "code is "+closeCodesWords+", or 0 for 4003", 0)
	}
	if len(d.Reason) > control.MaxReasonBytes {
		return d, wrong("reason", fmt.Sprintf("reason has %d bytes, the limit is %d", len(d.Reason), control.MaxReasonBytes), control.MaxReasonBytes)
	}
	if len(d.Except) == 0 {
		return d, nil
	}
	if err := count("except_session_ids", len(d.Except), maxExcept); err != nil {
		return d, err
	}
	for i, id := range d.Except {
		if err := checkSession("except_session_ids", id); err != nil {
			return d, at("except_session_ids", i, err)
		}
	}
	return d, nil
}

// wrong is an argument without a reason of its own.
func wrong(field, text string, limit int) error {
	return &message.Error{Err: message.ErrInvalid, Field: field, Text: text, Limit: limit}
}

func checkSession(field, id string) error {
	if id == "" || len(id) > maxSessionID {
		return wrong(field, fmt.Sprintf("a session id has 1 to %d bytes: welcome and ListSessions tell it", maxSessionID), maxSessionID)
	}
	return nil
}

// Join puts a user's sessions into rooms.
func (s *controls) Join(ctx context.Context, req *realtimev1.JoinRequest) (resp *realtimev1.JoinResponse, err error) {
	defer func() {
		s.audit(ctx, "Join", err, "user_id", brief(req.GetUserId()), "rooms", len(req.GetRooms()), "sessions", resp.GetSessionCount(), "unreached", resp.GetUnreachedNodes())
	}()
	p, err := placingOf(req.GetUserId(), req.GetRooms())
	if err != nil {
		return nil, err
	}
	sessions, unreached, err := s.ask.Join(ctx, p)
	if err != nil {
		return nil, err
	}
	return &realtimev1.JoinResponse{SessionCount: int32(sessions), UnreachedNodes: unreached}, nil
}

// Leave takes a user's sessions out of rooms.
func (s *controls) Leave(ctx context.Context, req *realtimev1.LeaveRequest) (resp *realtimev1.LeaveResponse, err error) {
	defer func() {
		s.audit(ctx, "Leave", err, "user_id", brief(req.GetUserId()), "rooms", len(req.GetRooms()), "sessions", resp.GetSessionCount(), "unreached", resp.GetUnreachedNodes())
	}()
	p, err := placingOf(req.GetUserId(), req.GetRooms())
	if err != nil {
		return nil, err
	}
	sessions, unreached, err := s.ask.Leave(ctx, p)
	if err != nil {
		return nil, err
	}
	return &realtimev1.LeaveResponse{SessionCount: int32(sessions), UnreachedNodes: unreached}, nil
}

func placingOf(user string, names []string) (p control.Placing, err error) {
	if err := message.CheckUser(user); err != nil {
		return p, err
	}
	if err := count("rooms", len(names), control.MaxRooms); err != nil {
		return p, err
	}
	p.User = user
	for i, name := range names {
		room, err := message.ParseRoom(name)
		if err != nil {
			return p, at("rooms", i, err)
		}
		p.Rooms = append(p.Rooms, room)
	}
	return p, nil
}

// ListSessions lists sessions by id.
func (s *controls) ListSessions(ctx context.Context, req *realtimev1.ListSessionsRequest) (resp *realtimev1.ListSessionsResponse, err error) {
	defer func() {
		s.audit(ctx, "ListSessions", err, "node_id", brief(req.GetNodeId()), "user_id", brief(req.GetUserId()), "room", brief(req.GetRoom()),
			"session_id", brief(req.GetSessionId()), "sessions", len(resp.GetSessions()), "unreached", resp.GetUnreachedNodes())
	}()
	q, err := sessionsQuery(req)
	if err != nil {
		return nil, err
	}
	list := filterName(q.Filter)
	if q.After, err = readName(list, req.GetPageToken()); err != nil {
		return nil, err
	}
	sessions, next, unreached, err := s.ask.Sessions(ctx, q)
	if err != nil {
		return nil, err
	}
	resp = &realtimev1.ListSessionsResponse{UnreachedNodes: unreached}
	size := 0
	for _, one := range sessions {
		m := sessionOf(one)
		if size += proto.Size(m) + fieldBytes; len(resp.Sessions) > 0 && size > maxPageBytes {
			next = resp.Sessions[len(resp.Sessions)-1].GetSessionId()
			break
		}
		resp.Sessions = append(resp.Sessions, m)
	}
	if next != "" {
		resp.NextPageToken = nameToken(list, next)
	}
	return resp, nil
}

func sessionsQuery(req *realtimev1.ListSessionsRequest) (q control.Query, err error) {
	if q.Limit, err = pageSize(req.GetPageSize(), defaultPage, control.MaxPage); err != nil {
		return q, err
	}
	switch f := req.GetFilter().(type) {
	case *realtimev1.ListSessionsRequest_NodeId:
		q.Node = f.NodeId
		if q.Node == "" || len(q.Node) > maxSessionID {
			err = wrong("node_id", fmt.Sprintf("a node id has 1 to %d bytes: welcome and ListNodes tell it", maxSessionID), maxSessionID)
		}
	case *realtimev1.ListSessionsRequest_UserId:
		q.User = f.UserId
		err = message.CheckUser(q.User)
	case *realtimev1.ListSessionsRequest_Room:
		q.Room, err = message.ParseRoom(f.Room)
	case *realtimev1.ListSessionsRequest_SessionId:
		q.Session = f.SessionId
		err = checkSession("session_id", q.Session)
	}
	return q, err
}

// filterName tells the pages of one filter from those of another.
func filterName(f control.Filter) string {
	return strings.Join([]string{"sessions", f.Node, f.User, string(f.Room), f.Session}, "\t")
}

func sessionOf(s control.Session) *realtimev1.Session {
	m := &realtimev1.Session{
		SessionId: s.ID, UserId: s.User, NodeId: s.Node, ConnectedAt: stamp(s.Connected), LastSeen: stamp(s.LastSeen), Address: s.Address,
		UserAgent: s.Agent, BlockedSince: stamp(s.BlockedSince), ExpiresAt: stamp(s.Expires),
	}
	for _, r := range s.Rooms {
		m.Rooms = append(m.Rooms, &realtimev1.SessionRoom{Room: string(r.Room), PositionId: r.Position, Lag: r.Lag})
	}
	return m
}

// ListNodes lists the nodes by id.
func (s *controls) ListNodes(ctx context.Context, req *realtimev1.ListNodesRequest) (resp *realtimev1.ListNodesResponse, err error) {
	defer func() { s.audit(ctx, "ListNodes", err, "nodes", len(resp.GetNodes())) }()
	size, err := pageSize(req.GetPageSize(), defaultPage, control.MaxPage)
	if err != nil {
		return nil, err
	}
	after, err := readName("nodes", req.GetPageToken())
	if err != nil {
		return nil, err
	}
	nodes, err := s.ask.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes = slices.DeleteFunc(nodes, func(n control.Info) bool { return n.Node <= after })
	resp = &realtimev1.ListNodesResponse{}
	if len(nodes) > size {
		nodes = nodes[:size]
		resp.NextPageToken = nameToken("nodes", nodes[size-1].Node)
	}
	for _, n := range nodes {
		resp.Nodes = append(resp.Nodes, nodeOf(n))
	}
	return resp, nil
}

// GetNode describes this node.
func (s *controls) GetNode(ctx context.Context, _ *realtimev1.GetNodeRequest) (*realtimev1.GetNodeResponse, error) {
	s.audit(ctx, "GetNode", nil)
	return &realtimev1.GetNodeResponse{Node: nodeOf(s.ask.Self())}, nil
}

var nodeStates = map[control.State]realtimev1.NodeState{
	control.Serving:  realtimev1.NodeState_NODE_STATE_SERVING,
	control.Degraded: realtimev1.NodeState_NODE_STATE_DEGRADED,
	control.Draining: realtimev1.NodeState_NODE_STATE_DRAINING,
}

func nodeOf(n control.Info) *realtimev1.Node {
	return &realtimev1.Node{
		NodeId: n.Node, Name: n.Host, Version: n.Version, StartedAt: stamp(n.Started), State: nodeStates[n.State],
		SessionCount: int32(n.Sessions), MaxSessions: int32(n.MaxSessions), RoomCount: int32(n.Rooms),
	}
}

// date is a time of a request; fallback where there is none.
func date(field string, t *timestamppb.Timestamp, fallback time.Time) (time.Time, error) {
	if t == nil {
		return fallback, nil
	}
	if t.CheckValid() != nil {
		return time.Time{}, wrong(field, field+" is no time between the years 1 and 9999", 0)
	}
	return t.AsTime(), nil
}
