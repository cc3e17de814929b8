package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// presence tells who is where.
type presence struct {
	dial
	Room  string   `arg:"" optional:"" help:"Room; @global: everyone connected. Without room and --user: all rooms."`
	User  []string `placeholder:"USER" sep:"none" env:"-" help:"How this user is, in whatever room. Repeatable."`
	Watch bool     `env:"-" help:"Go on with every change until Ctrl-C."`
}

func (*presence) Help() string {
	return `Prints a table. With --watch a line for each user and then for each change: time, change, user, status, sessions, info.

Examples:
  realtime presence
  realtime presence general
  realtime presence --watch general
  realtime presence --user alice --user bob`
}

// Validate names what does not go together.
func (p *presence) Validate() error {
	switch {
	case p.Room != "" && len(p.User) > 0:
		return errors.New("ROOM and --user do not go together: a user's status is about all rooms")
	case p.Watch && p.Room == "" && len(p.User) == 0:
		return errors.New("--watch needs a room or --user")
	}
	return nil
}

func (p *presence) Run(e *env) error {
	if p.Watch {
		return p.watch(e)
	}
	return p.call(e, "presence", func(conn *grpc.ClientConn) error {
		calls := realtimev1.NewPresenceServiceClient(conn)
		switch {
		case len(p.User) > 0:
			return p.users(e, calls)
		case p.Room != "":
			return p.room(e, calls)
		}
		return p.rooms(e, calls)
	})
}

// table prints rows with aligned columns, or their objects as JSON.
type table struct {
	json *env // nil: columns
	rows *tabwriter.Writer
	err  error
}

func (d *dial) table(e *env, columns ...string) *table {
	t := &table{rows: tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)}
	if d.JSON {
		t.json = e
	}
	t.row(nil, columns...)
	return t
}

// row adds one; object is what it shows.
func (t *table) row(object proto.Message, cells ...string) {
	switch {
	case t.err != nil:
	case t.json == nil:
		_, t.err = fmt.Fprintln(t.rows, strings.Join(cells, "\t"))
	case object != nil:
		t.err = printJSON(t.json.out, object)
	}
}

func (t *table) end() error { return errors.Join(t.err, t.rows.Flush()) }

const maxUsersPage = 5000

func (p *presence) room(e *env, calls realtimev1.PresenceServiceClient) error {
	t := p.table(e, "USER", "STATUS", "SINCE", "SESSIONS", "INFO")
	req := &realtimev1.GetPresenceRequest{Room: p.Room, PageSize: maxUsersPage}
	for {
		page, err := calls.GetPresence(e.ctx, req)
		if err != nil {
			return err
		}
		for _, u := range page.GetUsers() {
			t.row(u, word(u.GetUserId()), availability(u.GetStatus()), stamp(u.GetSince()), fmt.Sprint(u.GetSessionCount()), info(u))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken != "" {
			continue
		}
		freshness(e, page.GetFreshness())
		if err := t.end(); err != nil || p.JSON {
			return err
		}
		_, err = fmt.Fprintf(e.out, "\nusers %d, sessions %d\n", page.GetUserCount(), page.GetSessionCount())
		return err
	}
}

// maxWithRooms is of how many users a node tells the rooms.
const maxWithRooms = 100

func (p *presence) users(e *env, calls realtimev1.PresenceServiceClient) error {
	answer, err := calls.GetUsers(e.ctx, &realtimev1.GetUsersRequest{UserIds: p.User, IncludeRooms: len(p.User) <= maxWithRooms})
	if err != nil {
		return err
	}
	t := p.table(e, "USER", "STATUS", "LAST SEEN", "SESSIONS", "ROOMS")
	for _, u := range answer.GetUsers() {
		rooms := make([]string, len(u.GetRooms()))
		for i, room := range u.GetRooms() {
			rooms[i] = word(room)
		}
		t.row(u, word(u.GetUserId()), availability(u.GetStatus()), stamp(u.GetLastSeen()), fmt.Sprint(u.GetSessionCount()), strings.Join(rooms, " "))
	}
	freshness(e, answer.GetFreshness())
	return t.end()
}

func (p *presence) rooms(e *env, calls realtimev1.PresenceServiceClient) error {
	t := p.table(e, "ROOM", "USERS", "SESSIONS", "LATEST")
	req := &realtimev1.ListRoomsRequest{PageSize: maxPage}
	for {
		page, err := calls.ListRooms(e.ctx, req)
		if err != nil {
			return err
		}
		for _, r := range page.GetRooms() {
			t.row(r, word(r.GetRoom()), fmt.Sprint(r.GetUserCount()), fmt.Sprint(r.GetSessionCount()), word(r.GetLatestId()))
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			freshness(e, page.GetFreshness())
			return t.end()
		}
	}
}

func availability(s realtimev1.PresenceStatus) string { return label("PRESENCE_STATUS_", s) }

// info is a user's public data; a dash if there is none.
func info(u *realtimev1.RoomUser) string {
	if u.GetInfo() == "" {
		return "-"
	}
	return oneLine(u.GetInfo())
}
