package main

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// watch follows a room, or users.
func (p *presence) watch(e *env) error {
	conn, err := p.connect(e.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	req := &realtimev1.WatchPresenceRequest{
		Target:    &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: []string{p.Room}}},
		Keepalive: keepaliveRequest(),
	}
	if p.Room == "" {
		req.Target = &realtimev1.WatchPresenceRequest_Users{Users: &realtimev1.UserSet{UserIds: p.User}}
	}
	open := func(ctx context.Context) (received[realtimev1.WatchPresenceResponse], error) {
		conn.ResetConnectBackoff() // there is one wait already
		return realtimev1.NewPresenceServiceClient(conn).WatchPresence(ctx, req)
	}
	return tail(&p.dial, e, "presence", open, func(r *realtimev1.WatchPresenceResponse) error {
		if token := r.GetResumeToken(); token != "" {
			req.ResumeToken = token
		}
		return p.show(e, r)
	})
}

// show prints an event. A snapshot begins with a word on standard error: all that was printed before is void.
func (p *presence) show(e *env, r *realtimev1.WatchPresenceResponse) error {
	switch event := r.GetEvent().(type) {
	case *realtimev1.WatchPresenceResponse_Snapshot:
		if p.JSON {
			return printJSON(e.out, r)
		}
		if event.Snapshot.GetFirst() {
			fmt.Fprintln(e.err, "snapshot: forget what was before")
		}
		for _, u := range event.Snapshot.GetUsers() {
			if err := p.line(e, u.GetSince(), "present", u); err != nil {
				return err
			}
		}
		if event.Snapshot.GetLast() {
			fmt.Fprintln(e.err, "snapshot complete: changes follow")
		}
	case *realtimev1.WatchPresenceResponse_Change:
		if p.JSON {
			return printJSON(e.out, r)
		}
		return p.line(e, event.Change.GetTime(), label("PRESENCE_CHANGE_KIND_", event.Change.GetKind()), event.Change.GetUser())
	}
	return nil
}

func (*presence) line(e *env, at *timestamppb.Timestamp, change string, u *realtimev1.RoomUser) error {
	_, err := fmt.Fprintf(e.out, "%s %s %s %s %d %s\n", stamp(at), change, word(u.GetUserId()), availability(u.GetStatus()), u.GetSessionCount(), info(u))
	return err
}
