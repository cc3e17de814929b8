package server

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
)

// tokenOf is a good token of a user who may have so many sessions; 0: any number.
func (c *contract) tokenOf(user string, most int) string {
	now := time.Now().Truncate(time.Second)
	return c.sign(auth.Claims{User: user, IssuedAt: now, Expires: now.Add(time.Hour), MaxSessions: most})
}

// operations are what an operator does, and what sessions see of it.
func (c *contract) operations() map[string]func(*testing.T) {
	operator := func(t *testing.T) realtimev1.ControlServiceClient {
		return realtimev1.NewControlServiceClient(c.backend(t, c.Running))
	}
	user := func(name string) *realtimev1.Revocation {
		return &realtimev1.Revocation{Target: &realtimev1.Revocation_UserId{UserId: name}}
	}
	disconnect := func(t *testing.T) {
		c.open(t, c.Running, "/ws?token="+c.tokenOf("closed", 0)).want("welcome")
		eventually(t, "the session is found", func() bool {
			resp, err := operator(t).Disconnect(t.Context(), &realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_UserId{UserId: "closed"}})
			done(t, err)
			return resp.GetSessionCount() == 1
		})
	}
	revoke := func(t *testing.T) {
		token := c.tokenOf("mallory", 0)
		c.open(t, c.Running, "/ws?token="+token).want("welcome")
		eventually(t, "the session is found", func() bool {
			resp, err := operator(t).Revoke(t.Context(), &realtimev1.RevokeRequest{Revocation: user("mallory")})
			done(t, err)
			return resp.GetSessionCount() == 1 || c.times("close 4501") > 0
		})
		c.open(t, c.Running, "/ws?refuse=close&token="+token) // closed likewise
		if ws, _ := c.handshake(t, c.Running, "/ws?token="+token); ws != nil {
			t.Error("a revoked token lets in")
		}
	}
	return map[string]func(*testing.T){
		"rpc ControlService.Disconnect": disconnect,
		"close 4003":                    disconnect,
		"rpc ControlService.Revoke":     revoke,
		"close 4501":                    revoke,
		"rpc ControlService.Join": func(t *testing.T) {
			p := c.open(t, c.Running, "/ws?token="+c.tokenOf("placed", 0)).want("welcome")
			eventually(t, "the session is found", func() bool {
				resp, err := operator(t).Join(t.Context(), &realtimev1.JoinRequest{UserId: "placed", Rooms: []string{"lounge"}})
				done(t, err)
				return resp.GetSessionCount() == 1
			})
			p.want("subscribed")
		},
		"rpc ControlService.Leave": func(t *testing.T) {
			p := c.open(t, c.Running, "/ws/lounge?token="+c.tokenOf("displaced", 0)).want("subscribed")
			resp, err := operator(t).Leave(t.Context(), &realtimev1.LeaveRequest{UserId: "displaced", Rooms: []string{"lounge"}})
			done(t, err)
			if resp.GetSessionCount() != 1 {
				t.Errorf("%d sessions reached", resp.GetSessionCount())
			}
			p.want("unsubscribed")
		},
		"rpc ControlService.Unrevoke": func(t *testing.T) {
			_, err := operator(t).Unrevoke(t.Context(), &realtimev1.UnrevokeRequest{Revocation: user("mallory")})
			done(t, err)
		},
		"rpc ControlService.ListRevocations": func(t *testing.T) {
			_, err := operator(t).ListRevocations(t.Context(), &realtimev1.ListRevocationsRequest{})
			done(t, err)
		},
		"rpc ControlService.ListSessions": func(t *testing.T) {
			_, err := operator(t).ListSessions(t.Context(), &realtimev1.ListSessionsRequest{})
			done(t, err)
		},
		"rpc ControlService.ListNodes": func(t *testing.T) {
			resp, err := operator(t).ListNodes(t.Context(), &realtimev1.ListNodesRequest{})
			done(t, err)
			if n := resp.GetNodes(); len(n) != 1 || n[0].GetNodeId() != c.node.Name() || n[0].GetState() != realtimev1.NodeState_NODE_STATE_SERVING || n[0].GetMaxSessions() == 0 {
				t.Errorf("%v", n)
			}
		},
		"rpc ControlService.GetNode": func(t *testing.T) {
			resp, err := operator(t).GetNode(t.Context(), &realtimev1.GetNodeRequest{})
			done(t, err)
			if n := resp.GetNode(); n.GetNodeId() != c.node.Name() || n.GetVersion() == "" || n.GetStartedAt() == nil {
				t.Errorf("%v", n)
			}
		},
		"reason NOT_FOUND": func(t *testing.T) {
			_, err := operator(t).Disconnect(t.Context(), &realtimev1.DisconnectRequest{Target: &realtimev1.DisconnectRequest_SessionId{SessionId: "nobody"}})
			if status.Code(err) != codes.NotFound {
				t.Errorf("a session that is not there: %v", err)
			}
			_, err = operator(t).ListSessions(t.Context(), &realtimev1.ListSessionsRequest{Filter: &realtimev1.ListSessionsRequest_NodeId{NodeId: "none"}})
			if status.Code(err) != codes.NotFound {
				t.Errorf("a node that is not there: %v", err)
			}
		},
		"close 4503": func(t *testing.T) {
			token := c.tokenOf("twin", 1)
			c.open(t, c.Running, "/ws?token="+token).want("welcome")
			c.open(t, c.Running, "/ws?token="+token).want("welcome")
		},
		"error session_limit": func(t *testing.T) {
			for _, presence := range []string{"--presence", "--no-presence"} {
				r := StartServer(t, "--jwt-key=env:CONTRACT_SECRET", "--max-sessions-policy=refuse", presence)
				token := c.tokenOf("twin", 1)
				c.open(t, r, "/ws?token="+token).want("welcome")
				if ws, _ := c.handshake(t, r, "/ws?token="+token); ws != nil {
					t.Errorf("%s: a second session is let in", presence)
				}
			}
		},
	}
}
