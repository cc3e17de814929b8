package main

import (
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// outcome prints what a command did to sessions, as a line or as the node's answer.
func (d *dial) outcome(e *env, answer proto.Message, verb string, count int32, silent []string) error {
	unreached(e, silent)
	if d.JSON {
		return printJSON(e.out, answer)
	}
	_, err := fmt.Fprintf(e.out, "%s %d\n", verb, count)
	return err
}

// disconnect closes sessions.
type disconnect struct {
	dial
	User    string   `placeholder:"USER" xor:"target" env:"-" help:"All sessions of this user."`
	Session string   `placeholder:"ID" xor:"target" env:"-" help:"This session."`
	Except  []string `placeholder:"ID" sep:"none" env:"-" help:"A session that stays. Repeatable."`
	Code    int32    `default:"4003" placeholder:"CODE" env:"-" help:"Close code (${default}: it may return). 4501: it must not; 4400 to 4499 and 4700 to 4999 are the application's."`
	Reason  string   `placeholder:"TEXT" env:"-" help:"Told to the one who is closed, at most 123 bytes."`
}

func (*disconnect) Help() string {
	return `Prints how many sessions were closed. Their tokens stay good: realtime revoke ends those.

Examples:
  realtime disconnect --user alice
  realtime disconnect --session k3v7n2q4x5m6p2r3s4t5u6v7w2 --code 4501 --reason 'spam'`
}

// Validate names what is missing.
func (d *disconnect) Validate() error {
	if d.User == "" && d.Session == "" {
		return errors.New("say whom to close: --user or --session")
	}
	return nil
}

func (d *disconnect) Run(e *env) error {
	req := &realtimev1.DisconnectRequest{Code: d.Code, Reason: d.Reason, ExceptSessionIds: d.Except}
	if d.User != "" {
		req.Target = &realtimev1.DisconnectRequest_UserId{UserId: d.User}
	} else {
		req.Target = &realtimev1.DisconnectRequest_SessionId{SessionId: d.Session}
	}
	return d.call(e, "disconnect", func(conn *grpc.ClientConn) error {
		resp, err := realtimev1.NewControlServiceClient(conn).Disconnect(e.ctx, req)
		if err != nil {
			return err
		}
		return d.outcome(e, resp, "closed", resp.GetSessionCount(), resp.GetUnreachedNodes())
	})
}

// join puts sessions into rooms.
type join struct {
	dial
	User  string   `arg:"" help:"The user whose sessions they are."`
	Rooms []string `arg:"" name:"room" help:"Rooms, at most 128."`
}

func (*join) Help() string {
	return `Puts the user's sessions that are open now into the rooms, whatever their tokens grant. Prints how many are in all of them.

Example:
  realtime join alice general team-1`
}

func (j *join) Run(e *env) error {
	return j.call(e, "join", func(conn *grpc.ClientConn) error {
		resp, err := realtimev1.NewControlServiceClient(conn).Join(e.ctx, &realtimev1.JoinRequest{UserId: j.User, Rooms: j.Rooms})
		if err != nil {
			return err
		}
		return j.outcome(e, resp, "joined", resp.GetSessionCount(), resp.GetUnreachedNodes())
	})
}

// leave takes sessions out of rooms.
type leave struct {
	dial
	User  string   `arg:"" help:"The user whose sessions they are."`
	Rooms []string `arg:"" name:"room" help:"Rooms, at most 128."`
}

func (*leave) Help() string {
	return `Takes the user's sessions out of the rooms. Prints how many sessions he has. What his token grants he may join again.

Example:
  realtime leave alice team-1`
}

func (l *leave) Run(e *env) error {
	return l.call(e, "leave", func(conn *grpc.ClientConn) error {
		resp, err := realtimev1.NewControlServiceClient(conn).Leave(e.ctx, &realtimev1.LeaveRequest{UserId: l.User, Rooms: l.Rooms})
		if err != nil {
			return err
		}
		return l.outcome(e, resp, "reached", resp.GetSessionCount(), resp.GetUnreachedNodes())
	})
}
