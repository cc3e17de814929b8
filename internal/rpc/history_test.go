package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// retaining is a node's broker that keeps no more than so much, and a server over it.
func retaining(t *testing.T, keep int) (*served, *broker.Memory) {
	t.Helper()
	b := broker.NewMemory(broker.MemoryConfig{Retention: broker.Retention{Messages: keep}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- b.Run(ctx, deaf{}, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("broker: %v", err)
		}
	})
	<-ready
	return serveParts(t, Config{}, Parts{Publisher: over(t, b, gate{}), Broker: b}, nil), b
}

// deaf is a sink of rooms that have no members.
type deaf struct{ broker.Sink }

// fill publishes 0 to n-1 to a room and returns their ids.
func (s *served) fill(t *testing.T, room string, n int) (ids []string) {
	t.Helper()
	for i := range n {
		resp, err := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: room, Message: &realtimev1.MessageContent{Data: fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, resp.GetReceipt().GetId())
	}
	return ids
}

func after(id string) *realtimev1.GetHistoryRequest_AfterId {
	return &realtimev1.GetHistoryRequest_AfterId{AfterId: id}
}

func before(id string) *realtimev1.GetHistoryRequest_BeforeId {
	return &realtimev1.GetHistoryRequest_BeforeId{BeforeId: id}
}

// pages reads all pages from a request's start: their data, "|" between them.
func (s *served) pages(t *testing.T, req *realtimev1.GetHistoryRequest) (got string, last *realtimev1.GetHistoryResponse) {
	t.Helper()
	req = proto.CloneOf(req)
	for {
		resp, err := s.pub.GetHistory(within10s(t), req)
		if err != nil {
			t.Fatal(err)
		}
		var data []string
		for _, m := range resp.GetMessages() {
			data = append(data, m.GetData())
		}
		got += strings.Join(data, " ")
		if resp.GetNextPageToken() == "" {
			return got, resp
		}
		got, req.PageToken = got+"|", resp.GetNextPageToken()
	}
}

func TestHistoryIsReadPageByPageBothWays(t *testing.T) {
	s, _ := retaining(t, 100)
	ids := s.fill(t, "r", 7)
	// A message that is not stored bears the position of the one before it.
	resp, err := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "r", Message: &realtimev1.MessageContent{Ephemeral: true, Data: `"never"`}})
	if err != nil {
		t.Fatal(err)
	}
	fleeting := resp.GetReceipt().GetId()
	for name, c := range map[string]struct {
		req  *realtimev1.GetHistoryRequest
		want string
	}{
		"the newest, backwards":              {&realtimev1.GetHistoryRequest{PageSize: 3}, "4 5 6|1 2 3|0"},
		"all at once":                        {&realtimev1.GetHistoryRequest{}, "0 1 2 3 4 5 6"},
		"exactly a page":                     {&realtimev1.GetHistoryRequest{PageSize: 7}, "0 1 2 3 4 5 6"},
		"after one":                          {&realtimev1.GetHistoryRequest{PageSize: 2, Start: after(ids[2])}, "3 4|5 6"},
		"after the newest":                   {&realtimev1.GetHistoryRequest{Start: after(ids[6])}, ""},
		"after what was not stored":          {&realtimev1.GetHistoryRequest{Start: after(fleeting)}, ""},
		"before one":                         {&realtimev1.GetHistoryRequest{PageSize: 2, Start: before(ids[3])}, "1 2|0"},
		"before the oldest":                  {&realtimev1.GetHistoryRequest{Start: before(ids[0])}, ""},
		"before what was not stored":         {&realtimev1.GetHistoryRequest{PageSize: 5, Start: before(fleeting)}, "2 3 4 5 6|0 1"},
		"before what was not stored, by one": {&realtimev1.GetHistoryRequest{PageSize: 1, Start: before(fleeting)}, "6|5|4|3|2|1|0"},
		"after an id that the room never had": {
			&realtimev1.GetHistoryRequest{Start: after(message.ID{Position: parse(t, ids[4]).Position, Low: 1 << 63}.String())}, "5 6",
		},
		"before an id that the room never had": {
			&realtimev1.GetHistoryRequest{Start: before(message.ID{Position: parse(t, ids[1]).Position, Low: 1 << 63}.String())}, "0 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.req.Room = "r"
			got, last := s.pages(t, c.req)
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if last.GetOldestId() != ids[0] || last.GetLatestId() != ids[6] || last.GetTruncated() {
				t.Errorf("from %s to %s, truncated %v; want %s to %s", last.GetOldestId(), last.GetLatestId(), last.GetTruncated(), ids[0], ids[6])
			}
		})
	}
}

func parse(t *testing.T, id string) message.ID {
	t.Helper()
	got, ok := message.ParseID(id)
	if !ok {
		t.Fatalf("%q is no id", id)
	}
	return got
}

func TestAPageShowsMessagesAsTheyWerePublished(t *testing.T) {
	s := serveNode(t, Config{}, core(t))
	c := &realtimev1.MessageContent{Type: "order.created", Data: ` {"n": 9007199254740993} `, From: "shop", ExcludeUserIds: []string{"u1"}}
	published, err := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "r", Message: c})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r"})
	if err != nil {
		t.Fatal(err)
	}
	r := published.GetReceipt()
	want := &realtimev1.GetHistoryResponse{
		OldestId: r.GetId(), LatestId: r.GetId(),
		Messages: []*realtimev1.Message{{Id: r.GetId(), Room: "r", Type: c.GetType(), From: c.GetFrom(), Data: c.GetData(), Timestamp: r.GetTimestamp()}},
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAPageTellsWhatIsGone(t *testing.T) {
	s, b := retaining(t, 3)
	ids := s.fill(t, "r", 7)
	truncated := func(start string, want bool) {
		t.Helper()
		resp, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r", Start: after(start)})
		if err != nil || resp.GetTruncated() != want {
			t.Errorf("after %s: truncated %v, %v, want %v", start, resp.GetTruncated(), err, want)
		}
	}
	truncated(ids[2], true)
	truncated(ids[3], false) // what follows it is the oldest kept
	truncated(ids[6], false)
	if resp, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r"}); err != nil || resp.GetTruncated() || resp.GetOldestId() != ids[4] || resp.GetLatestId() != ids[6] {
		t.Errorf("%v, %v, want 4 to 6, and nothing truncated for who asks for no id", resp, err)
	}
	if _, err := s.pub.DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: "r"}); err != nil {
		t.Fatal(err)
	}
	truncated(ids[5], true)
	truncated(ids[6], false)
	got, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r"})
	if err != nil || !proto.Equal(got, &realtimev1.GetHistoryResponse{}) {
		t.Errorf("after the deletion: %v, %v", got, err)
	}
	more := s.fill(t, "r", 1) // the room goes on
	if got, last := s.pages(t, &realtimev1.GetHistoryRequest{Room: "r"}); got != "0" || last.GetOldestId() != more[0] || last.GetLatestId() != more[0] {
		t.Errorf("%q, %v", got, last)
	}
	if page, err := b.History(t.Context(), message.Query{Room: "r"}); err != nil || len(page.Entries) != 1 {
		t.Errorf("the broker holds %v, %v", page, err)
	}
	if got, last := s.pages(t, &realtimev1.GetHistoryRequest{Room: "nobody.was.here"}); got != "" || last.GetOldestId() != "" || last.GetTruncated() {
		t.Errorf("an unknown room: %q, %v", got, last)
	}
}

func TestAPageEndsAtThreeMiB(t *testing.T) {
	s := serveNode(t, Config{}, core(t))
	const n = 100
	data := `"` + strings.Repeat("a", 60<<10) + `"`
	var ids []string
	for range n {
		resp, err := s.pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "r", Message: &realtimev1.MessageContent{Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, resp.GetReceipt().GetId())
	}
	for name, req := range map[string]*realtimev1.GetHistoryRequest{
		"backwards": {Room: "r", PageSize: maxPage + 1},
		"forwards":  {Room: "r", PageSize: maxPage, Start: after(message.ID{Low: 1 << 63}.String())},
	} {
		var got []string
		pages := 0
		for {
			resp, err := s.pub.GetHistory(within10s(t), req)
			if err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(resp); size > 3<<20+200 || resp.GetNextPageToken() != "" && size < 3<<20-len(data)-200 {
				t.Errorf("%s: a page of %d bytes", name, size)
			}
			var page []string
			for _, m := range resp.GetMessages() {
				page = append(page, m.GetId())
			}
			if pages++; name == "backwards" {
				got = append(page, got...)
			} else {
				got = append(got, page...)
			}
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if !slices.Equal(got, ids) || pages != 2 {
			t.Errorf("%s: %d messages in %d pages, want all in order", name, len(got), pages)
		}
	}
}

func TestWhatHistoryCannotReadIsRefused(t *testing.T) {
	s := serveNode(t, Config{}, core(t))
	ids := s.fill(t, "r", 4)
	first, err := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r", PageSize: 2, Start: after(ids[0])})
	if err != nil || first.GetNextPageToken() == "" {
		t.Fatalf("%v, %v", first, err)
	}
	token := first.GetNextPageToken()
	long := message.MaxUserBytes + 1
	for name, c := range map[string]struct {
		req           *realtimev1.GetHistoryRequest
		reason, field string
	}{
		"no room":                    {&realtimev1.GetHistoryRequest{}, "ROOM_INVALID", "room"},
		"a room of nobody's":         {&realtimev1.GetHistoryRequest{Room: "@me"}, "ROOM_INVALID", "room"},
		"a user without a name":      {&realtimev1.GetHistoryRequest{Room: "@user/"}, "ROOM_INVALID", "room"},
		"a user with too long a one": {&realtimev1.GetHistoryRequest{Room: "@user/" + strings.Repeat("u", long)}, "ROOM_INVALID", "room"},
		"a negative page":            {&realtimev1.GetHistoryRequest{Room: "r", PageSize: -1}, "ARGUMENT_INVALID", "page_size"},
		"after no id":                {&realtimev1.GetHistoryRequest{Room: "r", Start: after("hunter2")}, "POSITION_INVALID", "after_id"},
		"after nothing":              {&realtimev1.GetHistoryRequest{Room: "r", Start: after("")}, "POSITION_INVALID", "after_id"},
		"before no id":               {&realtimev1.GetHistoryRequest{Room: "r", Start: before("hunter2")}, "POSITION_INVALID", "before_id"},
		"before nothing":             {&realtimev1.GetHistoryRequest{Room: "r", Start: before("")}, "POSITION_INVALID", "before_id"},
		"no token":                   {&realtimev1.GetHistoryRequest{Room: "r", Start: after(ids[0]), PageToken: "hunter2"}, "POSITION_INVALID", "page_token"},
		"a token of another room":    {&realtimev1.GetHistoryRequest{Room: "s", Start: after(ids[0]), PageToken: token}, "POSITION_INVALID", "page_token"},
		"a token of another start":   {&realtimev1.GetHistoryRequest{Room: "r", Start: after(ids[1]), PageToken: token}, "POSITION_INVALID", "page_token"},
		"a token of another way":     {&realtimev1.GetHistoryRequest{Room: "r", Start: before(ids[0]), PageToken: token}, "POSITION_INVALID", "page_token"},
		"a token without its start":  {&realtimev1.GetHistoryRequest{Room: "r", PageToken: token}, "POSITION_INVALID", "page_token"},
		"a token with one bit more":  {&realtimev1.GetHistoryRequest{Room: "r", Start: after(ids[0]), PageToken: "B" + token[1:]}, "POSITION_INVALID", "page_token"},
	} {
		_, err := s.pub.GetHistory(t.Context(), c.req)
		got, text := read(t, err)
		if got.Code != codes.InvalidArgument || got.Reason != "realtime/"+c.reason || got.Field != c.field || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %q %+v, want %s of %s", name, text, got, c.reason, c.field)
		}
	}
	_, err = s.pub.DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: "@me"})
	if got, _ := read(t, err); got.Reason != "realtime/ROOM_INVALID" || got.Field != "room" {
		t.Errorf("deletion: %+v", got)
	}
	for _, room := range []string{"r", "@global", "@user/böb x"} {
		if _, err := s.pub.DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: room}); err != nil {
			t.Errorf("deletion of %s: %v", room, err)
		}
	}
	if got := s.kept(t, "r"); got != nil {
		t.Errorf("kept all the same: %q", got)
	}
}

// failing is a bus that is away.
type failing struct{ broker.Broker }

func (failing) History(context.Context, message.Query) (message.Page, error) {
	return message.Page{}, broker.ErrUnavailable
}
func (failing) Delete(context.Context, message.Room) error { return broker.ErrUnavailable }

func TestHistoryOfABusThatIsAwayIsUnavailable(t *testing.T) {
	s := serveParts(t, Config{}, Parts{Broker: failing{}}, nil)
	_, get := s.pub.GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "r"})
	_, del := s.pub.DeleteHistory(t.Context(), &realtimev1.DeleteHistoryRequest{Room: "r"})
	for _, err := range []error{get, del} {
		if got, _ := read(t, err); got.Code != codes.Unavailable || got.Reason != "realtime/BROKER_UNAVAILABLE" || got.Retry == 0 {
			t.Errorf("%v", err)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	f.Add("r", "a", "", "AAAA", uint64(7))
	f.Fuzz(func(t *testing.T, room, afterID, other, token string, at uint64) {
		req := &realtimev1.GetHistoryRequest{Room: room, Start: after(afterID), PageToken: token}
		if got, ok := readToken(req); ok && pageToken(req, got) != token {
			t.Errorf("%q is read as %d, whose token is %q", token, got, pageToken(req, got))
		}
		req.PageToken = pageToken(req, message.Position(at))
		if got, ok := readToken(req); !ok || uint64(got) != at {
			t.Errorf("the token of %d is read as %d, %v", at, got, ok)
		}
		if req.Start = after(other); other != afterID {
			if _, ok := readToken(req); ok {
				t.Errorf("a token of start %q is good for %q", afterID, other)
			}
		}
	})
}
