package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// controlled is what a fake answers of ControlService.
type controlled struct {
	disconnect      func(*realtimev1.DisconnectRequest) (*realtimev1.DisconnectResponse, error)
	join            func(*realtimev1.JoinRequest) (*realtimev1.JoinResponse, error)
	leave           func(*realtimev1.LeaveRequest) (*realtimev1.LeaveResponse, error)
	listSessions    func(*realtimev1.ListSessionsRequest) (*realtimev1.ListSessionsResponse, error)
	revoke          func(*realtimev1.RevokeRequest) (*realtimev1.RevokeResponse, error)
	unrevoke        func(*realtimev1.UnrevokeRequest) (*realtimev1.UnrevokeResponse, error)
	listRevocations func(*realtimev1.ListRevocationsRequest) (*realtimev1.ListRevocationsResponse, error)
	listNodes       func(*realtimev1.ListNodesRequest) (*realtimev1.ListNodesResponse, error)
}

func (f *fake) Disconnect(ctx context.Context, r *realtimev1.DisconnectRequest) (*realtimev1.DisconnectResponse, error) {
	return answer(ctx, f, r, f.disconnect)
}

func (f *fake) Join(ctx context.Context, r *realtimev1.JoinRequest) (*realtimev1.JoinResponse, error) {
	return answer(ctx, f, r, f.join)
}

func (f *fake) Leave(ctx context.Context, r *realtimev1.LeaveRequest) (*realtimev1.LeaveResponse, error) {
	return answer(ctx, f, r, f.leave)
}

func (f *fake) ListSessions(ctx context.Context, r *realtimev1.ListSessionsRequest) (*realtimev1.ListSessionsResponse, error) {
	return answer(ctx, f, r, f.listSessions)
}

func (f *fake) Revoke(ctx context.Context, r *realtimev1.RevokeRequest) (*realtimev1.RevokeResponse, error) {
	return answer(ctx, f, r, f.revoke)
}

func (f *fake) Unrevoke(ctx context.Context, r *realtimev1.UnrevokeRequest) (*realtimev1.UnrevokeResponse, error) {
	return answer(ctx, f, r, f.unrevoke)
}

func (f *fake) ListRevocations(ctx context.Context, r *realtimev1.ListRevocationsRequest) (*realtimev1.ListRevocationsResponse, error) {
	return answer(ctx, f, r, f.listRevocations)
}

func (f *fake) ListNodes(ctx context.Context, r *realtimev1.ListNodesRequest) (*realtimev1.ListNodesResponse, error) {
	return answer(ctx, f, r, f.listNodes)
}

var morning = timestamppb.New(time.Date(2026, 1, 15, 10, 30, 0, 0, time.UTC))

// said is what a fake was asked, as it asks for being compared.
func said[M proto.Message](t *testing.T, want, got M) {
	t.Helper()
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
}

func TestSessionsAreListedOverAllPagesAndSilentNodesAreNamed(t *testing.T) {
	first := &realtimev1.Session{
		SessionId: "s1", UserId: "alice smith", NodeId: "n1", ConnectedAt: morning, LastSeen: morning, Address: "192.0.2.1:5000", BlockedSince: morning,
		Rooms: []*realtimev1.SessionRoom{{Room: "general", Lag: 3}, {Room: "news", Lag: 4}},
	}
	second := &realtimev1.Session{SessionId: "s2", UserId: "bob", NodeId: "n2", ConnectedAt: morning}
	var filters []*realtimev1.ListSessionsRequest
	addr := (&fake{controlled: controlled{listSessions: func(r *realtimev1.ListSessionsRequest) (*realtimev1.ListSessionsResponse, error) {
		filters = append(filters, r)
		if r.GetPageToken() == "" {
			return &realtimev1.ListSessionsResponse{Sessions: []*realtimev1.Session{first}, NextPageToken: "more"}, nil
		}
		return &realtimev1.ListSessionsResponse{Sessions: []*realtimev1.Session{second}, UnreachedNodes: []string{"n3"}}, nil
	}}}).serve(t)
	out, errOut, err := both(t, "sessions", addr)
	want := `SESSION  USER           NODE  CONNECTED                 LAST SEEN                 ROOMS  LAG  BLOCKED SINCE             ADDRESS
s1       "alice smith"  n1    2026-01-15T10:30:00.000Z  2026-01-15T10:30:00.000Z  2      7    2026-01-15T10:30:00.000Z  192.0.2.1:5000
s2       bob            n2    2026-01-15T10:30:00.000Z  -                         0      0    -                         -
`
	if d := cmp.Diff(want, out); d != "" || err != nil || !strings.Contains(errOut, "n3") {
		t.Errorf("%v, %q (-want +got):\n%s", err, errOut, d)
	}
	for option, want := range map[string]*realtimev1.ListSessionsRequest{
		"--user=alice":   {PageSize: 1000, Filter: &realtimev1.ListSessionsRequest_UserId{UserId: "alice"}},
		"--room=general": {PageSize: 1000, Filter: &realtimev1.ListSessionsRequest_Room{Room: "general"}},
		"--node=n1":      {PageSize: 1000, Filter: &realtimev1.ListSessionsRequest_NodeId{NodeId: "n1"}},
		"--session=s1":   {PageSize: 1000, Filter: &realtimev1.ListSessionsRequest_SessionId{SessionId: "s1"}},
	} {
		filters = nil
		out, _, err := both(t, "sessions", addr, "--json", option)
		var got realtimev1.Session
		if err != nil || len(filters) != 2 || protojson.Unmarshal([]byte(strings.SplitAfter(out, "\n")[0]), &got) != nil {
			t.Fatalf("%s: %q, %v", option, out, err)
		}
		said(t, want, filters[0])
		said(t, first, &got)
	}
}

func TestNodesAreListedAndTheSilentOneStandsOut(t *testing.T) {
	addr := (&fake{controlled: controlled{listNodes: func(*realtimev1.ListNodesRequest) (*realtimev1.ListNodesResponse, error) {
		return &realtimev1.ListNodesResponse{Nodes: []*realtimev1.Node{
			{NodeId: "n1", Name: "pod-1", Version: "v1", StartedAt: morning, State: realtimev1.NodeState_NODE_STATE_DEGRADED, SessionCount: 7, MaxSessions: 100, RoomCount: 3},
			{NodeId: "n2"},
		}}, nil
	}}}).serve(t)
	out, _, err := both(t, "nodes", addr)
	want := `NODE  HOST   VERSION  STARTED                   STATE     SESSIONS  MAX  ROOMS
n1    pod-1  v1       2026-01-15T10:30:00.000Z  degraded  7         100  3
n2    -      -        -                         silent    0         0    0
`
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestOperatorsCloseAndPlaceSessions(t *testing.T) {
	var asked proto.Message
	f := &fake{controlled: controlled{
		disconnect: func(r *realtimev1.DisconnectRequest) (*realtimev1.DisconnectResponse, error) {
			asked = r
			if r.GetSessionId() == "gone" {
				return nil, refused(codes.NotFound, "NOT_FOUND", "no such session")
			}
			return &realtimev1.DisconnectResponse{SessionCount: 2, UnreachedNodes: []string{"n9"}}, nil
		},
		join: func(r *realtimev1.JoinRequest) (*realtimev1.JoinResponse, error) {
			asked = r
			return &realtimev1.JoinResponse{SessionCount: 3}, nil
		},
		leave: func(r *realtimev1.LeaveRequest) (*realtimev1.LeaveResponse, error) {
			asked = r
			return &realtimev1.LeaveResponse{SessionCount: 4}, nil
		},
		revoke: func(r *realtimev1.RevokeRequest) (*realtimev1.RevokeResponse, error) {
			asked = r
			return &realtimev1.RevokeResponse{SessionCount: 5}, nil
		},
		unrevoke: func(r *realtimev1.UnrevokeRequest) (*realtimev1.UnrevokeResponse, error) {
			asked = r
			return &realtimev1.UnrevokeResponse{}, nil
		},
	}}
	addr := f.serve(t)
	everyone := &realtimev1.Revocation{Target: &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}, IssuedBefore: morning}
	for name, c := range map[string]struct {
		args []string
		want proto.Message
		out  string
	}{
		"disconnect a user": {
			[]string{"disconnect", "--user=alice", "--except=s1", "--except=s2"},
			&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_UserId{UserId: "alice"}, Code: 4003, ExceptSessionIds: []string{"s1", "s2"}}, "closed 2\n",
		},
		"disconnect a session": {
			[]string{"disconnect", "--session=s1", "--code=4501", "--reason=spam"},
			&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{SessionId: "s1"}, Code: 4501, Reason: "spam"}, "closed 2\n",
		},
		"join":            {[]string{"join", "alice", "a", "b"}, &realtimev1.JoinRequest{UserId: "alice", Rooms: []string{"a", "b"}}, "joined 3\n"},
		"leave":           {[]string{"leave", "alice", "a"}, &realtimev1.LeaveRequest{UserId: "alice", Rooms: []string{"a"}}, "reached 4\n"},
		"revoke a user":   {[]string{"revoke", "--user=alice"}, &realtimev1.RevokeRequest{Revocation: &realtimev1.Revocation{Target: &realtimev1.Revocation_UserId{UserId: "alice"}}}, "ended 5\n"},
		"revoke a token":  {[]string{"revoke", "--token-id=t1"}, &realtimev1.RevokeRequest{Revocation: &realtimev1.Revocation{Target: &realtimev1.Revocation_TokenId{TokenId: "t1"}}}, "ended 5\n"},
		"revoke everyone": {[]string{"revoke", "--all", "--issued-before=2026-01-15T10:30:00Z"}, &realtimev1.RevokeRequest{Revocation: everyone}, "ended 5\n"},
		"take it back":    {[]string{"revoke", "--user=alice", "--undo"}, &realtimev1.UnrevokeRequest{Revocation: &realtimev1.Revocation{Target: &realtimev1.Revocation_UserId{UserId: "alice"}}}, ""},
		"as JSON":         {[]string{"join", "--json", "alice", "a"}, &realtimev1.JoinRequest{UserId: "alice", Rooms: []string{"a"}}, `{"sessionCount":3}` + "\n"},
		"take all back":   {[]string{"revoke", "--all", "--undo"}, &realtimev1.UnrevokeRequest{Revocation: &realtimev1.Revocation{Target: everyone.GetTarget()}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			asked = nil
			out, errOut, err := both(t, append(c.args, addr)...)
			if err != nil {
				t.Fatal(err)
			}
			said(t, c.want, asked)
			if strings.ReplaceAll(out, " ", "") != strings.ReplaceAll(c.out, " ", "") {
				t.Errorf("printed %q, want %q", out, c.out)
			}
			if strings.Contains(errOut, "n9") != (c.args[0] == "disconnect") {
				t.Errorf("of silent nodes it says %q", errOut)
			}
		})
	}
	if _, _, err := both(t, "disconnect", addr, "--session=gone"); err == nil || !strings.Contains(err.Error(), "no such session") {
		t.Errorf("a session that is not there: %v", err)
	}
	before := time.Now()
	if _, _, err := both(t, "revoke", addr, "--user=alice", "--for=1h"); err != nil {
		t.Fatal(err)
	}
	if left := asked.(*realtimev1.RevokeRequest).GetRevocation().GetExpiresAt().AsTime().Sub(before); left < time.Hour || left > time.Hour+time.Minute {
		t.Errorf("--for=1h ends in %v", left)
	}
}

func TestWhatIsRevokedIsListed(t *testing.T) {
	addr := (&fake{controlled: controlled{listRevocations: func(r *realtimev1.ListRevocationsRequest) (*realtimev1.ListRevocationsResponse, error) {
		if r.GetPageToken() == "" {
			return &realtimev1.ListRevocationsResponse{NextPageToken: "more", Revocations: []*realtimev1.Revocation{
				{Target: &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}, IssuedBefore: morning, ExpiresAt: morning},
				{Target: &realtimev1.Revocation_UserId{UserId: "alice"}, IssuedBefore: morning, ExpiresAt: morning},
			}}, nil
		}
		return &realtimev1.ListRevocationsResponse{Revocations: []*realtimev1.Revocation{{Target: &realtimev1.Revocation_TokenId{TokenId: "t1"}, ExpiresAt: morning}}}, nil
	}}}).serve(t)
	out, _, err := both(t, "revoke", "--list", addr)
	want := `REVOKED  WHOSE  ISSUED BEFORE             UNTIL
all      -      2026-01-15T10:30:00.000Z  2026-01-15T10:30:00.000Z
user     alice  2026-01-15T10:30:00.000Z  2026-01-15T10:30:00.000Z
token    t1     -                         2026-01-15T10:30:00.000Z
`
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestATraceTellsWhoHasPassedAMessage(t *testing.T) {
	const (
		id    = "01a2b3c4-d5e6-7001-8abc-002a00000007" // node 0x2a
		older = "01a2b3c4-d5e6-7000-8abc-002a00000006"
		newer = "01a2b3c4-d5e6-7002-8abc-002a00000008"
	)
	kept := &realtimev1.Message{Id: id, Room: "general", From: "bob", Timestamp: morning, Data: "1"}
	addr := (&fake{
		getHistory: func(r *realtimev1.GetHistoryRequest) (*realtimev1.GetHistoryResponse, error) {
			said(t, &realtimev1.GetHistoryRequest{Room: "general", PageSize: 1, Start: &realtimev1.GetHistoryRequest_BeforeId{BeforeId: "01a2b3c4-d5e6-7001-bfff-ffffffffffff"}}, r)
			return &realtimev1.GetHistoryResponse{Messages: []*realtimev1.Message{kept}}, nil
		},
		controlled: controlled{listSessions: func(r *realtimev1.ListSessionsRequest) (*realtimev1.ListSessionsResponse, error) {
			at := func(id string, lag int64) []*realtimev1.SessionRoom {
				return []*realtimev1.SessionRoom{{Room: "elsewhere", PositionId: newer}, {Room: "general", PositionId: id, Lag: lag}}
			}
			if r.GetRoom() != "general" {
				t.Errorf("asked for %v", r)
			}
			return &realtimev1.ListSessionsResponse{Sessions: []*realtimev1.Session{
				{SessionId: "s1", UserId: "alice", NodeId: "n1", Rooms: at(older, 2)},
				{SessionId: "s2", UserId: "bob", NodeId: "n1", Rooms: at(id, 1)},
				{SessionId: "s3", UserId: "eve", NodeId: "n2", Rooms: at(newer, 0)},
			}}, nil
		}},
	}).serve(t)
	sessions := `
SESSION  USER   NODE  PASSED  LAG  BLOCKED SINCE
s1       alice  n1    no      2    -
s2       bob    n1    yes     1    -
s3       eve    n2    yes     0    -
`
	out, _, err := both(t, "trace", addr, "general", strings.ToUpper(id))
	want := "message  " + id + "\nnode     16\nhistory  kept, published 2026-01-15T10:30:00.000Z by bob\n" + sessions
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	kept.Id = "01a2b3c4-d5e6-7001-8abc-002a00000009" // another at the same place
	out, _, err = both(t, "trace", addr, "general", id)
	want = "message  " + id + "\nnode     16\nhistory  no longer kept, or never published in this room\n" + sessions
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("one that is gone: %v (-want +got):\n%s", err, d)
	}
}

func TestWhatOperatorsLeaveOutIsToldBeforeAnybodyIsCalled(t *testing.T) {
	for _, args := range [][]string{
		{"disconnect"},
		{"disconnect", "--user=a", "--session=b"},
		{"join", "alice"},
		{"leave"},
		{"revoke"},
		{"revoke", "--user=a", "--all"},
		{"revoke", "--list", "--for=1h"},
		{"revoke", "--user=a", "--undo", "--for=1h"},
		{"revoke", "--list", "--undo"},
		{"revoke", "--user=a", "--for=-1s"},
		{"revoke", "--user=a", "--issued-before=yesterday"},
		{"sessions", "--user=a", "--room=b"},
		{"trace", "general"},
		{"trace", "general", "4711"},
		{"trace", "general", "01a2b3c4-d5e6-7001-8abc-zzzz00000007"},
	} {
		if out, _, err := both(t, append(args, "--addr=127.0.0.1:1")...); err == nil || strings.Contains(err.Error(), "no node answers") || out != "" && !strings.HasPrefix(out, "Usage") {
			t.Errorf("%q: %v, printed %.40q", args, err, out)
		}
	}
}
