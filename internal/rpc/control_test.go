package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/node"
)

// operated is a node with a way in, and an operator.
type operated struct {
	*served
	t        *testing.T
	node     *node.Node
	url      string
	operator realtimev1.ControlServiceClient
}

// operate serves a node whose tokens are user names.
func operate(t *testing.T) *operated {
	t.Helper()
	n := core(t)
	all, err := auth.CompileGrants(map[string]string{"*": "rwph"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := n.NewEdge(edge.Config{Verify: func(token string) (auth.Identity, error) {
		return auth.Identity{User: token, TokenID: "jti-" + token, IssuedAt: time.Now().Add(-time.Minute), Grants: all}, nil
	}}, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(e)
	t.Cleanup(h.Close)
	s := serveNode(t, Config{TokenLifetime: 2 * time.Hour}, n)
	return &operated{s, t, n, "ws" + strings.TrimPrefix(h.URL, "http"), realtimev1.NewControlServiceClient(s.conn)}
}

// enter begins a session and waits until operators see it.
func (o *operated) enter(user, rooms string) (ws *websocket.Conn, id string) {
	o.t.Helper()
	before := len(o.sessions(&realtimev1.ListSessionsRequest{}))
	ws, _, err := websocket.Dial(o.t.Context(), o.url+"/ws"+rooms, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + user}}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = ws.CloseNow() })
	b := o.read(ws, `"welcome"`)
	_, rest, _ := strings.Cut(b, `"session":"`)
	id, _, _ = strings.Cut(rest, `"`)
	for len(o.sessions(&realtimev1.ListSessionsRequest{})) == before {
		if o.t.Context().Err() != nil {
			o.t.Fatal("the session does not begin")
		}
	}
	return ws, id
}

func (o *operated) read(ws *websocket.Conn, text string) string {
	o.t.Helper()
	for {
		_, b, err := ws.Read(within10s(o.t))
		if err != nil {
			o.t.Fatalf("waiting for %s: %v", text, err)
		}
		if strings.Contains(string(b), text) {
			return string(b)
		}
	}
}

func (o *operated) closed(ws *websocket.Conn) (code int, reason string) {
	o.t.Helper()
	for {
		if _, _, err := ws.Read(within10s(o.t)); err != nil {
			_, reason, _ = strings.Cut(err.Error(), `reason = "`)
			reason, _, _ = strings.Cut(reason, `"`)
			return int(websocket.CloseStatus(err)), reason
		}
	}
}

// sessions lists all pages.
func (o *operated) sessions(req *realtimev1.ListSessionsRequest) (all []*realtimev1.Session) {
	o.t.Helper()
	for {
		page, err := o.operator.ListSessions(o.t.Context(), req)
		if err != nil || len(page.GetUnreachedNodes()) > 0 {
			o.t.Fatalf("%v, %v", page.GetUnreachedNodes(), err)
		}
		all = append(all, page.GetSessions()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

func TestOperatorsSeeSessionsAndWhereTheyStand(t *testing.T) {
	o := operate(t)
	ws, id := o.enter("alice", "/general")
	o.read(ws, `"subscribed"`)
	receipt, err := o.pub.Publish(t.Context(), hello())
	if err != nil {
		t.Fatal(err)
	}
	o.read(ws, `"Hello"`)
	got := o.sessions(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_SessionId{SessionId: id}})
	if len(got) != 1 {
		t.Fatalf("%d sessions", len(got))
	}
	s := got[0]
	want := &realtimev1.Session{
		SessionId: id, UserId: "alice", NodeId: o.node.Name(), ConnectedAt: s.GetConnectedAt(), LastSeen: s.GetLastSeen(), Address: s.GetAddress(), UserAgent: "Go-http-client/1.1",
		Rooms: []*realtimev1.SessionRoom{{Room: "general", PositionId: s.GetRooms()[0].GetPositionId()}},
	}
	if d := cmp.Diff(want, s, protocmp.Transform()); d != "" || s.GetConnectedAt() == nil || s.GetLastSeen() == nil || s.GetAddress() == "" {
		t.Errorf("%v (-want +got):\n%s", s, d)
	}
	if at, is := s.GetRooms()[0].GetPositionId(), receipt.GetReceipt().GetId(); at[:18] != is[:18] {
		t.Errorf("it stands at %s, the last message is %s", at, is)
	}
	for range 4 {
		o.enter("bob", "/general")
	}
	var ids []string
	for _, s := range o.sessions(&realtimev1.ListSessionsRequest{PageSize: 2, Filter: &realtimev1.ListSessionsRequest_Room{Room: "general"}}) {
		ids = append(ids, s.GetSessionId())
	}
	if len(ids) != 5 || !slices.IsSorted(ids) {
		t.Errorf("in pages of two: %q", ids)
	}
	if n := len(o.sessions(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_UserId{UserId: "bob"}})); n != 4 {
		t.Errorf("%d sessions of bob, want 4", n)
	}
}

func TestOperatorsActOnSessionsAndItIsLogged(t *testing.T) {
	o := operate(t)
	ws, id := o.enter("alice", "")
	stays, staysID := o.enter("alice", "")
	joined, err := o.operator.Join(t.Context(), &realtimev1.JoinRequest{UserId: "alice", Rooms: []string{"a", "b"}})
	if err != nil || joined.GetSessionCount() != 2 {
		t.Errorf("%v, %v", joined, err)
	}
	o.read(ws, `"by":"server"`)
	who, err := realtimev1.NewPresenceServiceClient(o.conn).GetUsers(t.Context(), &realtimev1.GetUsersRequest{UserIds: []string{"alice"}, IncludeRooms: true})
	if err != nil || !slices.Equal(who.GetUsers()[0].GetRooms(), []string{"a", "b"}) || who.GetFreshness().GetApproximate() {
		t.Errorf("%v, %v", who, err)
	}
	left, err := o.operator.Leave(t.Context(), &realtimev1.LeaveRequest{UserId: "alice", Rooms: []string{"b"}})
	if err != nil || left.GetSessionCount() != 2 {
		t.Errorf("%v, %v", left, err)
	}
	o.read(ws, `"operator"`)
	closed, err := o.operator.Disconnect(t.Context(), &realtimev1.DisconnectRequest{
		Target: &realtimev1.DisconnectRequest_UserId{UserId: "alice"}, Code: 4701, Reason: "a secret reason", ExceptSessionIds: []string{staysID},
	})
	if err != nil || closed.GetSessionCount() != 1 {
		t.Errorf("%v, %v", closed, err)
	}
	if code, reason := o.closed(ws); code != 4701 || reason != "a secret reason" {
		t.Errorf("closed %d %q", code, reason)
	}
	if _, err := o.operator.Disconnect(t.Context(), &realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{SessionId: staysID}}); err != nil {
		t.Error(err)
	}
	if code, reason := o.closed(stays); code != 4003 || reason != "disconnected" {
		t.Errorf("closed %d %q", code, reason)
	}
	for { // its closing ends, then it is gone
		_, err := o.operator.Disconnect(t.Context(), &realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{SessionId: id}})
		if got, _ := read(t, err); err != nil {
			if got.Code != codes.NotFound || got.Reason != "realtime/NOT_FOUND" {
				t.Errorf("one that has gone: %+v", got)
			}
			break
		}
	}
	calls := make(map[string]map[string]any)
	for _, r := range o.log.records(t) {
		if r["msg"] == "control" {
			call, _ := r["call"].(string)
			if calls[call] == nil {
				calls[call] = r
			}
		}
		if strings.Contains(fmt.Sprint(r), "secret") {
			t.Errorf("what sessions are told is logged: %v", r)
		}
	}
	for call, want := range map[string]float64{"Join": 2, "Leave": 2, "Disconnect": 1} {
		r := calls[call]
		if r["caller"] != "local" || r["user_id"] != "alice" || r["sessions"] != want || r["level"] != "INFO" {
			t.Errorf("%s is logged as %v", call, r)
		}
	}
}

func TestRevocationsAreMadeListedAndTakenBack(t *testing.T) {
	o := operate(t)
	ws, _ := o.enter("alice", "")
	now := time.Now()
	user := func(name string) *realtimev1.Revocation {
		return &realtimev1.Revocation{Target: &realtimev1.Revocation_UserId{UserId: name}}
	}
	token := func(id string) *realtimev1.Revocation {
		return &realtimev1.Revocation{Target: &realtimev1.Revocation_TokenId{TokenId: id}}
	}
	revoke := func(r *realtimev1.Revocation, want int32) {
		t.Helper()
		resp, err := o.operator.Revoke(t.Context(), &realtimev1.RevokeRequest{Revocation: r})
		if err != nil || resp.GetSessionCount() != want || len(resp.GetUnreachedNodes()) > 0 {
			t.Errorf("%v: %v, %v, want %d sessions", r, resp, err, want)
		}
	}
	all := &realtimev1.Revocation{
		Target: &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}, IssuedBefore: timestamppb.New(now.Add(-time.Hour)), ExpiresAt: timestamppb.New(now.Add(time.Hour)),
	}
	revoke(all, 0)
	future := user("carol")
	future.IssuedBefore = timestamppb.New(now.Add(24 * time.Hour))
	revoke(future, 0)
	revoke(token("jti-bob"), 0)
	revoke(token("jti-alice"), 1)
	if code, _ := o.closed(ws); code != 4501 {
		t.Errorf("closed %d", code)
	}
	revoke(user("alice"), 0)

	list := func() (all []*realtimev1.Revocation) {
		t.Helper()
		for req := (&realtimev1.ListRevocationsRequest{PageSize: 2}); ; {
			page, err := o.operator.ListRevocations(t.Context(), req)
			if err != nil || len(page.GetRevocations()) > 2 {
				t.Fatal(page, err)
			}
			all = append(all, page.GetRevocations()...)
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				return all
			}
		}
	}
	got := list()
	var names []string
	for _, r := range got {
		names = append(names, r.GetUserId()+r.GetTokenId())
	}
	if !slices.Equal(names, []string{"", "alice", "carol", "jti-alice", "jti-bob"}) {
		t.Fatalf("in force: %q", names)
	}
	for i, want := range []time.Duration{time.Hour, 2*time.Hour + auth.Leeway, 26*time.Hour + auth.Leeway, 2*time.Hour + auth.Leeway, 2*time.Hour + auth.Leeway} {
		if d := got[i].GetExpiresAt().AsTime().Sub(now) - want; d < -time.Second || d > time.Minute {
			t.Errorf("%q is forgotten %v later than wanted", names[i], d)
		}
	}
	if got[1].GetIssuedBefore() == nil || got[3].GetIssuedBefore() != nil {
		t.Errorf("issued before: a user's %v, a token's %v; want now, and none", got[1].GetIssuedBefore(), got[3].GetIssuedBefore())
	}
	for range 2 { // once more is as good
		if _, err := o.operator.Unrevoke(t.Context(), &realtimev1.UnrevokeRequest{Revocation: token("jti-alice")}); err != nil {
			t.Error(err)
		}
	}
	if _, err := o.operator.Unrevoke(t.Context(), &realtimev1.UnrevokeRequest{Revocation: user("alice")}); err != nil {
		t.Error(err)
	}
	if n := len(list()); n != 3 {
		t.Errorf("%d in force, want 3", n)
	}
	o.enter("alice", "")
}

func TestNodesAreListedByTheNodeThatAnswers(t *testing.T) {
	o := operate(t)
	o.enter("alice", "/general")
	list, err := o.operator.ListNodes(t.Context(), &realtimev1.ListNodesRequest{PageSize: 1})
	if err != nil || len(list.GetNodes()) != 1 || list.GetNextPageToken() != "" {
		t.Fatal(list, err)
	}
	one, err := o.operator.GetNode(t.Context(), &realtimev1.GetNodeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(list.GetNodes()[0], one.GetNode(), protocmp.Transform()); d != "" {
		t.Errorf("listed (-), described (+):\n%s", d)
	}
	n := one.GetNode()
	if n.GetNodeId() != o.node.Name() || n.GetStartedAt() == nil || n.GetState() != realtimev1.NodeState_NODE_STATE_SERVING || n.GetSessionCount() != 1 || n.GetRoomCount() != 1 {
		t.Errorf("%v", n)
	}
}

func TestWhatOperatorsGetWrongIsToldWithItsField(t *testing.T) {
	o := operate(t)
	ctx := t.Context()
	disconnect := func(r *realtimev1.DisconnectRequest) error { _, err := o.operator.Disconnect(ctx, r); return err }
	closing := func(code int32, reason string, except ...string) error {
		return disconnect(&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_UserId{UserId: "u"}, Code: code, Reason: reason, ExceptSessionIds: except})
	}
	join := func(user string, rooms ...string) error {
		_, err := o.operator.Join(ctx, &realtimev1.JoinRequest{UserId: user, Rooms: rooms})
		return err
	}
	leave := func(user string, rooms ...string) error {
		_, err := o.operator.Leave(ctx, &realtimev1.LeaveRequest{UserId: user, Rooms: rooms})
		return err
	}
	list := func(r *realtimev1.ListSessionsRequest) error { _, err := o.operator.ListSessions(ctx, r); return err }
	revoke := func(r *realtimev1.Revocation) error {
		_, err := o.operator.Revoke(ctx, &realtimev1.RevokeRequest{Revocation: r})
		return err
	}
	user := &realtimev1.Revocation_UserId{UserId: "u"}
	_, unrevoke := o.operator.Unrevoke(ctx, &realtimev1.UnrevokeRequest{})
	_, nodes := o.operator.ListNodes(ctx, &realtimev1.ListNodesRequest{PageToken: "x"})
	_, revocations := o.operator.ListRevocations(ctx, &realtimev1.ListRevocationsRequest{PageSize: -1})
	long := strings.Repeat("x", 200)
	for name, q := range map[string]struct {
		err           error
		reason, field string
	}{
		"nobody to close":         {disconnect(&realtimev1.DisconnectRequest{}), "ARGUMENT_INVALID", "target"},
		"no user":                 {disconnect(&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_UserId{}}), "USER_INVALID", "user_id"},
		"no session":              {disconnect(&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{}}), "ARGUMENT_INVALID", "session_id"},
		"a session id too long":   {disconnect(&realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{SessionId: long}}), "ARGUMENT_INVALID", "session_id"},
		"a code of the protocol":  {closing(1000, ""), "ARGUMENT_INVALID", "code"},
		"a code of the server":    {closing(4500, ""), "ARGUMENT_INVALID", "code"},
		"a code below ours":       {closing(4399, ""), "ARGUMENT_INVALID", "code"},
		"a code above 4499":       {closing(4503, ""), "ARGUMENT_INVALID", "code"},
		"a code below 4700":       {closing(4699, ""), "ARGUMENT_INVALID", "code"},
		"a code above all":        {closing(5000, ""), "ARGUMENT_INVALID", "code"},
		"a negative code":         {closing(-1, ""), "ARGUMENT_INVALID", "code"},
		"the lowest code":         {closing(4400, strings.Repeat("x", 123)), "", ""},
		"the highest code":        {closing(4999, ""), "", ""},
		"a reason too long":       {closing(0, strings.Repeat("x", 124)), "ARGUMENT_INVALID", "reason"},
		"an exception of nobody":  {closing(0, "", "s", ""), "ARGUMENT_INVALID", "except_session_ids[1]"},
		"too many exceptions":     {closing(0, "", slices.Repeat([]string{"s"}, 1001)...), "TOO_MANY_ITEMS", "except_session_ids"},
		"a join of nobody":        {join("", "r"), "USER_INVALID", "user_id"},
		"a join of no room":       {join("u"), "ARGUMENT_INVALID", "rooms"},
		"a join of a bad room":    {join("u", "r", "@global"), "ROOM_INVALID", "rooms[1]"},
		"a join of 129 rooms":     {join("u", slices.Repeat([]string{"r"}, 129)...), "TOO_MANY_ITEMS", "rooms"},
		"a join of 128 rooms":     {join("u", slices.Repeat([]string{"r"}, 128)...), "", ""},
		"a leave of no room":      {leave("u"), "ARGUMENT_INVALID", "rooms"},
		"a leave of a bad room":   {leave("u", "a//b"), "ROOM_INVALID", "rooms[0]"},
		"a negative page":         {list(&realtimev1.ListSessionsRequest{PageSize: -1}), "ARGUMENT_INVALID", "page_size"},
		"a page of another list":  {list(&realtimev1.ListSessionsRequest{PageToken: nameToken("nodes", "n")}), "POSITION_INVALID", "page_token"},
		"sessions of no user":     {list(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_UserId{}}), "USER_INVALID", "user_id"},
		"sessions of a bad room":  {list(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_Room{Room: "@me"}}), "ROOM_INVALID", "room"},
		"sessions of no node":     {list(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_NodeId{}}), "ARGUMENT_INVALID", "node_id"},
		"sessions of a lost node": {list(&realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_NodeId{NodeId: "none"}}), "NOT_FOUND", ""},
		"nothing revoked":         {revoke(nil), "ARGUMENT_INVALID", "revocation.target"},
		"a user that is none":     {revoke(&realtimev1.Revocation{Target: &realtimev1.Revocation_UserId{}}), "USER_INVALID", "revocation.user_id"},
		"a token without id":      {revoke(&realtimev1.Revocation{Target: &realtimev1.Revocation_TokenId{}}), "ARGUMENT_INVALID", "revocation.token_id"},
		"a token id too long":     {revoke(&realtimev1.Revocation{Target: &realtimev1.Revocation_TokenId{TokenId: long + long}}), "ARGUMENT_INVALID", "revocation.token_id"},
		"a time that is none":     {revoke(&realtimev1.Revocation{Target: user, IssuedBefore: &timestamppb.Timestamp{Nanos: -1}}), "ARGUMENT_INVALID", "revocation.issued_before"},
		"one that is over":        {revoke(&realtimev1.Revocation{Target: user, ExpiresAt: timestamppb.New(time.Now().Add(-time.Second))}), "ARGUMENT_INVALID", "revocation.expires_at"},
		"nothing taken back":      {unrevoke, "ARGUMENT_INVALID", "revocation.target"},
		"nodes of another list":   {nodes, "POSITION_INVALID", "page_token"},
		"revocations of no page":  {revocations, "ARGUMENT_INVALID", "page_size"},
	} {
		got, text := read(t, q.err)
		if strings.TrimPrefix(got.Reason, "realtime/") != q.reason || got.Field != q.field || strings.Contains(text, "xxxx") {
			t.Errorf("%s: %+v %q, want %s of %q", name, got, text, q.reason, q.field)
		}
		if q.reason == "" && status.Code(q.err) != codes.OK {
			t.Errorf("%s: %v", name, q.err)
		}
	}
}

func TestOnlyWhoMayOperateDoes(t *testing.T) {
	n := core(t)
	s := serveParts(t, Config{}, Parts{Publisher: n.Publisher(), Broker: n.Broker(), Hub: n.Hub(), Presence: n.Presence(), Control: n.Control()}, func(d *doorman) {
		d.local = &Caller{Identity: "limited", Scopes: AllScopes &^ ScopeControl}
	})
	operator := realtimev1.NewControlServiceClient(s.conn)
	for name, call := range map[string]func(context.Context) error{
		"GetNode": func(ctx context.Context) error {
			_, err := operator.GetNode(ctx, &realtimev1.GetNodeRequest{})
			return err
		},
		"Revoke": func(ctx context.Context) error {
			_, err := operator.Revoke(ctx, &realtimev1.RevokeRequest{Revocation: &realtimev1.Revocation{Target: &realtimev1.Revocation_AllUsers{AllUsers: &realtimev1.AllUsers{}}}})
			return err
		},
	} {
		if got, _ := read(t, call(t.Context())); got.Code != codes.PermissionDenied || got.Reason != "realtime/SCOPE_MISSING" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if list, err := n.Control().Revocations(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("revoked: %v, %v", list, err)
	}
}
