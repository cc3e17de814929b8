package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func userOf(id string, status realtimev1.PresenceStatus, sessions int32, info string) *realtimev1.RoomUser {
	since := timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	return &realtimev1.RoomUser{UserId: id, Status: status, Since: since, SessionCount: sessions, Info: info}
}

var (
	alice = userOf("alice", realtimev1.PresenceStatus_PRESENCE_STATUS_ONLINE, 2, `{"name": "Alice"}`)
	bob   = userOf("bob\x1b[2J", realtimev1.PresenceStatus_PRESENCE_STATUS_AWAY, 1, "")
)

func TestPresenceOfARoomIsATableOfAllPages(t *testing.T) {
	addr := (&fake{getPresence: func(r *realtimev1.GetPresenceRequest) (*realtimev1.GetPresenceResponse, error) {
		resp := &realtimev1.GetPresenceResponse{UserCount: 2, SessionCount: 3, Freshness: &realtimev1.Freshness{Stale: true, Approximate: true}}
		switch r.GetRoom() + r.GetPageToken() {
		case "general":
			resp.Users, resp.NextPageToken = []*realtimev1.RoomUser{alice}, "+2"
		case "general+2":
			resp.Users = []*realtimev1.RoomUser{bob}
		}
		return resp, nil
	}}).serve(t)
	out, errOut, err := both(t, "presence", addr, "general")
	want := `USER          STATUS  SINCE                     SESSIONS  INFO
alice         online  2026-03-01T12:00:00.000Z  2         {"name":"Alice"}
"bob\x1b[2J"  away    2026-03-01T12:00:00.000Z  1         -

users 2, sessions 3
`
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if !strings.Contains(errOut, "stale: ") || !strings.Contains(errOut, "approximate: ") {
		t.Errorf("nothing tells how good the answer is: %q", errOut)
	}
	out, _, err = both(t, "presence", addr, "general", "--json")
	var got []*realtimev1.RoomUser
	for line := range strings.Lines(out) {
		var u realtimev1.RoomUser
		if err := protojson.Unmarshal([]byte(line), &u); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, &u)
	}
	if d := cmp.Diff([]*realtimev1.RoomUser{alice, bob}, got, protocmp.Transform()); d != "" || err != nil {
		t.Errorf("as JSON: %v (-want +got):\n%s", err, d)
	}
}

func TestPresenceOfUsersIsAboutAllRooms(t *testing.T) {
	addr := (&fake{getUsers: func(r *realtimev1.GetUsersRequest) (*realtimev1.GetUsersResponse, error) {
		resp := &realtimev1.GetUsersResponse{}
		for _, id := range r.GetUserIds() {
			u := &realtimev1.UserPresence{UserId: id, Status: realtimev1.PresenceStatus_PRESENCE_STATUS_OFFLINE}
			if id == "alice" {
				u.Status, u.LastSeen, u.SessionCount = realtimev1.PresenceStatus_PRESENCE_STATUS_ONLINE, alice.GetSince(), 2
				if r.GetIncludeRooms() {
					u.Rooms = []string{"general", "team-1"}
				}
			}
			resp.Users = append(resp.Users, u)
		}
		return resp, nil
	}}).serve(t)
	out, errOut, err := both(t, "presence", addr, "--user=alice", "--user=x,y")
	want := `USER   STATUS   LAST SEEN                 SESSIONS  ROOMS
alice  online   2026-03-01T12:00:00.000Z  2         general team-1
x,y    offline  -                         0         
`
	if d := cmp.Diff(want, out); d != "" || err != nil || errOut != "" {
		t.Errorf("%v, %q (-want +got):\n%s", err, errOut, d)
	}
	many := []string{"presence", addr}
	for range 101 {
		many = append(many, "--user=alice")
	}
	if out, _, err := both(t, many...); err != nil || strings.Contains(out, "general") || strings.Count(out, "alice") != 101 {
		t.Errorf("more users than a node tells the rooms of: %v\n%.200s", err, out)
	}
}

func TestPresenceWithoutARoomListsThem(t *testing.T) {
	addr := (&fake{listRooms: func(r *realtimev1.ListRoomsRequest) (*realtimev1.ListRoomsResponse, error) {
		if r.GetPageToken() == "" {
			return &realtimev1.ListRoomsResponse{Rooms: []*realtimev1.RoomSummary{{Room: "general", UserCount: 12, SessionCount: 130, LatestId: "ID"}}, NextPageToken: "2"}, nil
		}
		return &realtimev1.ListRoomsResponse{Rooms: []*realtimev1.RoomSummary{{Room: "z"}}}, nil
	}}).serve(t)
	out, _, err := both(t, "presence", addr)
	want := `ROOM     USERS  SESSIONS  LATEST
general  12     130       ID
z        0      0         -
`
	if d := cmp.Diff(want, out); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if out, _, err := both(t, "presence", addr, "--json"); err != nil || strings.Count(out, "\n") != 2 || strings.Contains(out, "ROOM") {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
}

func TestWatchGoesOnFromItsToken(t *testing.T) {
	var tokens []string
	addr := (&fake{watchPresence: func(r *realtimev1.WatchPresenceRequest, s grpc.ServerStreamingServer[realtimev1.WatchPresenceResponse]) error {
		tokens = append(tokens, strings.Join(r.GetRooms().GetRooms(), " ")+strings.Join(r.GetUsers().GetUserIds(), " ")+"/"+r.GetResumeToken())
		change := func(token string, kind realtimev1.PresenceChangeKind, u *realtimev1.RoomUser) *realtimev1.WatchPresenceResponse {
			return &realtimev1.WatchPresenceResponse{ResumeToken: token, Event: &realtimev1.WatchPresenceResponse_Change{Change: &realtimev1.PresenceChange{Kind: kind, Room: "general", User: u, Time: alice.GetSince()}}}
		}
		events := []*realtimev1.WatchPresenceResponse{
			{ResumeToken: "1", Event: &realtimev1.WatchPresenceResponse_Snapshot{Snapshot: &realtimev1.PresenceSnapshot{Room: "general", Users: []*realtimev1.RoomUser{alice}, First: true, Last: true}}},
			change("2", realtimev1.PresenceChangeKind_PRESENCE_CHANGE_KIND_JOINED, bob),
			{Event: &realtimev1.WatchPresenceResponse_Keepalive{Keepalive: &realtimev1.Keepalive{}}},
		}
		if len(tokens)%2 == 0 {
			events = []*realtimev1.WatchPresenceResponse{change("3", realtimev1.PresenceChangeKind_PRESENCE_CHANGE_KIND_LEFT, alice)}
		}
		for _, event := range events {
			if err := s.Send(event); err != nil {
				return err
			}
		}
		if len(tokens)%2 == 1 {
			return draining()
		}
		return refused(codes.NotFound, "NOT_FOUND", "that is all")
	}}).serve(t)
	out, errOut, err := both(t, "presence", addr, "--watch", "general")
	want := `2026-03-01T12:00:00.000Z present alice online 2 {"name":"Alice"}
2026-03-01T12:00:00.000Z joined "bob\x1b[2J" away 1 -
2026-03-01T12:00:00.000Z left alice online 2 {"name":"Alice"}
`
	if d := cmp.Diff(want, out); d != "" {
		t.Errorf("out (-want +got):\n%s", d)
	}
	want = `snapshot: forget what was before
snapshot complete: changes follow
presence: this node goes away: use another (try again in 0s): calling again
`
	if d := cmp.Diff(want, errOut); d != "" || err == nil || err.Error() != "presence: that is all" {
		t.Errorf("%v, err (-want +got):\n%s", err, d)
	}
	out, _, _ = both(t, "presence", addr, "--watch", "--user=alice", "--user=bob", "--json")
	for line := range strings.Lines(out) {
		if err := protojson.Unmarshal([]byte(line), &realtimev1.WatchPresenceResponse{}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if strings.Count(out, "\n") != 3 {
		t.Errorf("as JSON:\n%s", out)
	}
	if d := cmp.Diff([]string{"general/", "general/2", "alice bob/", "alice bob/2"}, tokens); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
}
