package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/presence"
)

// crowd is a node with its services, and sessions that are nothing but present.
type crowd struct {
	*served
	node *node.Node
	who  realtimev1.PresenceServiceClient
}

func gather(t *testing.T) *crowd {
	t.Helper()
	n := core(t)
	s := serveNode(t, Config{}, n)
	return &crowd{served: s, node: n, who: realtimev1.NewPresenceServiceClient(s.conn)}
}

func (c *crowd) enter(user, info string, rooms ...message.Room) *presence.Session {
	s := c.node.Presence().Open(user, []byte(info))
	for _, room := range rooms {
		s.Joined(room)
	}
	return s
}

func TestPresenceListsARoomPageByPage(t *testing.T) {
	c := gather(t)
	var want []string
	for i := range 25 {
		user := fmt.Sprintf("user%02d", i)
		want = append(want, user)
		c.enter(user, fmt.Sprintf(`{"n":%d}`, i), "general")
	}
	twice := c.enter("user00", `{"n":0}`, "general")
	var got []string
	req := &realtimev1.GetPresenceRequest{Room: "general", PageSize: 10}
	for first := true; first || req.GetPageToken() != ""; first = false {
		var resp *realtimev1.GetPresenceResponse
		for range 2 { // the second answer is what the first has encoded
			var err error
			if resp, err = c.who.GetPresence(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if resp.GetUserCount() != 25 || resp.GetSessionCount() != 26 || len(resp.GetUsers()) > 10 || resp.GetFreshness().GetStale() {
				t.Errorf("%v", resp)
			}
		}
		got = append(got, ids(resp)...)
		req.PageToken = resp.GetNextPageToken()
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v", got)
	}
	resp, err := c.who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general", PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	u := resp.GetUsers()[0]
	if u.GetStatus() != realtimev1.PresenceStatus_PRESENCE_STATUS_ONLINE || u.GetInfo() != `{"n":0}` || u.GetSessionCount() != 2 || u.GetSince() == nil || u.GetLastSeen() == nil {
		t.Errorf("%v", u)
	}
	twice.Left("general", false)
	all, err := c.who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "@global", PageSize: 1e6})
	if err != nil || !slices.Equal(ids(all), want) {
		t.Errorf("everybody: %v, %v", ids(all), err)
	}
	none, err := c.who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "nobody"})
	if err != nil || none.GetUserCount() != 0 || len(none.GetUsers()) != 0 {
		t.Errorf("nobody: %v, %v", none, err)
	}
}

func ids(resp *realtimev1.GetPresenceResponse) (all []string) {
	for _, u := range resp.GetUsers() {
		all = append(all, u.GetUserId())
	}
	return all
}

func TestAnswersFollowWhatChanges(t *testing.T) {
	c := gather(t)
	ask := func() []string {
		t.Helper()
		resp, err := c.who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general"})
		if err != nil {
			t.Fatal(err)
		}
		return ids(resp)
	}
	ada := c.enter("ada", "", "general")
	if got := ask(); !slices.Equal(got, []string{"ada"}) {
		t.Errorf("%v", got)
	}
	c.enter("bob", "", "general")
	if got := ask(); !slices.Equal(got, []string{"ada", "bob"}) {
		t.Errorf("%v", got)
	}
	ada.Left("general", false)
	until(t, "ada has left", func() bool { return slices.Equal(ask(), []string{"bob"}) })
}

func TestPresenceIsCountedAndUsersAreFound(t *testing.T) {
	c := gather(t)
	ada := c.enter("ada", "", "general", "news")
	c.enter("bob", "", "general")
	ada.Away(true)
	until(t, "ada is away", func() bool {
		resp, err := c.who.CountPresence(t.Context(), &realtimev1.CountPresenceRequest{Rooms: []string{"general", "nobody", "@global", "general"}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resp.GetCounts() {
			got = append(got, fmt.Sprint(r.GetRoom(), r.GetOnlineCount(), r.GetAwayCount(), r.GetSessionCount()))
		}
		return slices.Equal(got, []string{"general1 1 2", "nobody0 0 0", "@global1 1 2", "general1 1 2"})
	})
	resp, err := c.who.GetUsers(t.Context(), &realtimev1.GetUsersRequest{UserIds: []string{"ada", "nobody", "bob"}, IncludeRooms: true})
	if err != nil || len(resp.GetUsers()) != 3 {
		t.Fatalf("%v, %v", resp, err)
	}
	a, n := resp.GetUsers()[0], resp.GetUsers()[1]
	if a.GetStatus() != realtimev1.PresenceStatus_PRESENCE_STATUS_AWAY || a.GetSessionCount() != 1 || a.GetLastSeen() == nil || !slices.Equal(a.GetRooms(), []string{"general", "news"}) {
		t.Errorf("%v", a)
	}
	if n.GetUserId() != "nobody" || n.GetStatus() != realtimev1.PresenceStatus_PRESENCE_STATUS_OFFLINE || n.GetLastSeen() != nil {
		t.Errorf("%v", n)
	}
}

func TestRoomsAreListedWithWhoIsThereAndWhatTheyKeep(t *testing.T) {
	c := gather(t)
	c.enter("ada", "", "team-b", "team-c", "x")
	kept, err := c.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "team-a", Message: &realtimev1.MessageContent{}})
	if err != nil {
		t.Fatal(err)
	}
	both, err := c.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "team-b", Message: &realtimev1.MessageContent{}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	req := &realtimev1.ListRoomsRequest{Prefix: "team-", PageSize: 2}
	for first := true; first || req.GetPageToken() != ""; first = false {
		resp, err := c.who.ListRooms(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRooms() {
			got = append(got, fmt.Sprintf("%s %d %d %s", r.GetRoom(), r.GetUserCount(), r.GetSessionCount(), r.GetLatestId()))
		}
		req.PageToken = resp.GetNextPageToken()
	}
	want := []string{"team-a 0 0 " + kept.GetReceipt().GetId(), "team-b 1 1 " + both.GetReceipt().GetId(), "team-c 1 1 "}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	all, err := c.who.ListRooms(t.Context(), &realtimev1.ListRoomsRequest{})
	if err != nil || len(all.GetRooms()) != 4 {
		t.Errorf("all: %v, %v", all, err)
	}
}

// said reads a watch until it says so much, without keepalives and tokens.
func said(t *testing.T, w grpc.ServerStreamingClient[realtimev1.WatchPresenceResponse], n int) (got []string, token string) {
	t.Helper()
	for len(got) < n {
		resp, err := w.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		token = resp.GetResumeToken()
		switch e := resp.GetEvent().(type) {
		case *realtimev1.WatchPresenceResponse_Snapshot:
			var users []string
			for _, u := range e.Snapshot.GetUsers() {
				users = append(users, u.GetUserId())
			}
			got = append(got, fmt.Sprint("snapshot ", e.Snapshot.GetRoom(), users, e.Snapshot.GetFirst(), e.Snapshot.GetLast()))
		case *realtimev1.WatchPresenceResponse_Change:
			if e.Change.GetTime() == nil {
				t.Errorf("no time: %v", e.Change)
			}
			kind := strings.TrimPrefix(e.Change.GetKind().String(), "PRESENCE_CHANGE_KIND_")
			got = append(got, fmt.Sprint(kind, " ", e.Change.GetRoom(), " ", e.Change.GetUser().GetUserId()))
		case *realtimev1.WatchPresenceResponse_Keepalive:
			got = append(got, "keepalive")
		}
	}
	return got, token
}

func TestAWatchTellsAStateAndThenItsChanges(t *testing.T) {
	c := gather(t)
	ada := c.enter("ada", "", "general")
	rooms := &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: []string{"general"}}}}
	ctx, leave := context.WithCancel(t.Context())
	w, err := c.who.WatchPresence(ctx, rooms)
	if err != nil {
		t.Fatal(err)
	}
	switch got, _ := said(t, w, 1); got[0] {
	case "snapshot general[ada] true true":
	case "snapshot general[] true true": // she came just now, and nobody was told yet
		if got, _ := said(t, w, 1); got[0] != "JOINED general ada" {
			t.Errorf("%q", got)
		}
	default:
		t.Errorf("%q", got)
	}
	c.enter("bob", "", "general")
	got, token := said(t, w, 1)
	if got[0] != "JOINED general bob" {
		t.Errorf("%q", got)
	}
	leave()
	ada.Left("general", false)
	until(t, "ada has left", func() bool {
		resp, err := c.who.GetPresence(t.Context(), &realtimev1.GetPresenceRequest{Room: "general"})
		return err == nil && resp.GetUserCount() == 1
	})
	rooms.ResumeToken = token
	rooms.Keepalive = durationpb.New(time.Second)
	if w, err = c.who.WatchPresence(t.Context(), rooms); err != nil {
		t.Fatal(err)
	}
	if got, _ := said(t, w, 2); got[0] != "LEFT general ada" || got[1] != "keepalive" {
		t.Errorf("resumed with %q", got)
	}
	users := &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Users{Users: &realtimev1.UserSet{UserIds: []string{"bob", "eve"}}}}
	if w, err = c.who.WatchPresence(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	if got, _ := said(t, w, 1); got[0] != "snapshot [bob] true true" {
		t.Errorf("%q", got)
	}
	c.enter("eve", "")
	if got, _ := said(t, w, 1); got[0] != "JOINED  eve" {
		t.Errorf("%q", got)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := w.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	c.Shutdown(within10s(t))
	if got, _ := read(t, <-ended); got.Code != codes.Unavailable || got.Reason != "realtime/DRAINING" {
		t.Errorf("at a drain: %+v", got)
	}
}

func TestBadQuestionsAboutPresenceNameTheField(t *testing.T) {
	c := gather(t)
	many := func(n int) []string { return slices.Repeat([]string{"a"}, n) }
	get := func(r *realtimev1.GetPresenceRequest) error { _, err := c.who.GetPresence(t.Context(), r); return err }
	count := func(rooms ...string) error {
		_, err := c.who.CountPresence(t.Context(), &realtimev1.CountPresenceRequest{Rooms: rooms})
		return err
	}
	users := func(rooms bool, ids ...string) error {
		_, err := c.who.GetUsers(t.Context(), &realtimev1.GetUsersRequest{UserIds: ids, IncludeRooms: rooms})
		return err
	}
	list := func(r *realtimev1.ListRoomsRequest) error { _, err := c.who.ListRooms(t.Context(), r); return err }
	watch := func(r *realtimev1.WatchPresenceRequest) error {
		w, err := c.who.WatchPresence(t.Context(), r)
		if err == nil {
			_, err = w.Recv()
		}
		return err
	}
	ofRooms := func(names ...string) *realtimev1.WatchPresenceRequest {
		return &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: names}}}
	}
	ofUsers := func(names ...string) *realtimev1.WatchPresenceRequest {
		return &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Users{Users: &realtimev1.UserSet{UserIds: names}}}
	}
	hasty := ofRooms("a")
	hasty.Keepalive = durationpb.New(time.Millisecond)
	for name, q := range map[string]struct {
		err           error
		reason, field string
	}{
		"a room that is none":      {get(&realtimev1.GetPresenceRequest{Room: "a//b"}), "ROOM_INVALID", "room"},
		"a user's room":            {get(&realtimev1.GetPresenceRequest{Room: "@user/u"}), "ROOM_INVALID", "room"},
		"a negative page":          {get(&realtimev1.GetPresenceRequest{Room: "a", PageSize: -1}), "ARGUMENT_INVALID", "page_size"},
		"a token that is none":     {get(&realtimev1.GetPresenceRequest{Room: "a", PageToken: "?"}), "POSITION_INVALID", "page_token"},
		"another list's token":     {get(&realtimev1.GetPresenceRequest{Room: "a", PageToken: nameToken("b", "u")}), "POSITION_INVALID", "page_token"},
		"no rooms":                 {count(), "ARGUMENT_INVALID", "rooms"},
		"too many rooms":           {count(many(1001)...), "TOO_MANY_ITEMS", "rooms"},
		"one bad room":             {count("a", "b", "@x"), "ROOM_INVALID", "rooms[2]"},
		"no users":                 {users(false), "ARGUMENT_INVALID", "user_ids"},
		"too many users":           {users(false, many(1001)...), "TOO_MANY_ITEMS", "user_ids"},
		"too many with rooms":      {users(true, many(101)...), "TOO_MANY_ITEMS", "user_ids"},
		"a bad user":               {users(false, "a", "\n"), "USER_INVALID", "user_ids[1]"},
		"a long prefix":            {list(&realtimev1.ListRoomsRequest{Prefix: strings.Repeat("a", 129)}), "ARGUMENT_INVALID", "prefix"},
		"a token of another list":  {list(&realtimev1.ListRoomsRequest{Prefix: "a", PageToken: nameToken("b", "u")}), "POSITION_INVALID", "page_token"},
		"nothing to watch":         {watch(&realtimev1.WatchPresenceRequest{}), "ARGUMENT_INVALID", "target"},
		"no rooms to watch":        {watch(ofRooms()), "ARGUMENT_INVALID", "rooms.rooms"},
		"too many rooms to watch":  {watch(ofRooms(many(1001)...)), "TOO_MANY_ITEMS", "rooms.rooms"},
		"everyone's room to watch": {watch(ofRooms("a", "@global")), "ROOM_INVALID", "rooms.rooms[1]"},
		"too many users to watch":  {watch(ofUsers(many(10_001)...)), "TOO_MANY_ITEMS", "users.user_ids"},
		"a keepalive too short":    {watch(hasty), "ARGUMENT_INVALID", "keepalive"},
	} {
		t.Run(name, func(t *testing.T) {
			got, text := read(t, q.err)
			if got.Code != codes.InvalidArgument || got.Reason != "realtime/"+q.reason || got.Field != q.field || text == "" {
				t.Errorf("%+v %q", got, text)
			}
		})
	}
	if err := users(true, many(100)...); status.Code(err) != codes.OK {
		t.Errorf("as many as there may be: %v", err)
	}
}

func TestAWatcherThatGoesInTheMiddleOfASendIsNotLogged(t *testing.T) {
	for name, leave := range map[string]func(c *crowd, cancel context.CancelFunc){
		"its call":       func(_ *crowd, cancel context.CancelFunc) { cancel() },
		"its connection": func(c *crowd, _ context.CancelFunc) { _ = c.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := gather(t)
			for i := range 12_000 {
				c.enter(fmt.Sprint("user", i), `"`+strings.Repeat("a", 1000)+`"`, "general") // more than lies on the way to a reader
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := c.who.WatchPresence(ctx, &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: []string{"general"}}}})
			if err == nil {
				_, err = w.Recv()
			}
			if err != nil {
				t.Fatal(err)
			}
			leave(c, cancel)
			c.Shutdown(t.Context()) // returns when the handler has
			if got := c.log.records(t); len(got) != 0 {
				t.Errorf("logged %v", got)
			}
		})
	}
}

// The end must not wait for its time: a reader that does nothing would have it every time.
func TestAWatcherThatNeverReadsDoesNotHoldUpTheEnd(t *testing.T) {
	n := core(t)
	s := serveNode(t, Config{Timeout: time.Hour}, n)
	c := &crowd{served: s, node: n, who: realtimev1.NewPresenceServiceClient(s.conn)}
	for i := range 12_000 {
		c.enter(fmt.Sprint("user", i), `"`+strings.Repeat("a", 1000)+`"`, "general") // more than lies on the way to a reader
	}
	w, err := c.who.WatchPresence(t.Context(), &realtimev1.WatchPresenceRequest{Target: &realtimev1.WatchPresenceRequest_Rooms{Rooms: &realtimev1.RoomSet{Rooms: []string{"general"}}}})
	if err == nil {
		_, err = w.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx := within10s(t)
	if c.Shutdown(ctx); ctx.Err() != nil {
		t.Error("it held up the end until it was cut")
	}
}
