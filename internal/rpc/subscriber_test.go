package rpc

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/publish"
)

func TestAMessageComesAsItWasPublished(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := b.live(t, "orders")
	at := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	data := `{"n": 9007199254740993, "text":"é <b> \u003c"}`
	id := b.publish(t, "orders", data, func(m *message.Message) { m.Type, m.From, m.Timestamp = "order.created", `sh"op`, at.UnixMilli() })
	m := f.recv().GetMessage()
	got := []any{m.GetId(), m.GetRoom(), m.GetType(), m.GetFrom(), m.GetData(), m.GetTimestamp().AsTime(), m.GetEphemeral(), m.GetDegraded()}
	if d := cmp.Diff([]any{id.String(), "orders", "order.created", `sh"op`, data, at, false, false}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What no session would get, or would be told: exclusions are about users, presence is for them, a system message is data.
func TestABackendIsNoUser(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := b.live(t, "room")
	b.publish(t, "room", `1`, func(m *message.Message) { m.ExcludeSessions, m.ExcludeUsers = []string{"s"}, []string{"u"} })
	p := &message.Message{Type: message.TypePresence, Room: "room", Data: []byte(`{"status":"online"}`)}
	if _, err := b.node.Publisher().Do(t.Context(), publish.Request{Message: p, Origin: publish.Embedded}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "room", `{"text":"soon","reason":"limit"}`, func(m *message.Message) { m.Type = message.TypeSystem })
	b.publish(t, "room", `["event","gap"]`, func(m *message.Message) { m.Type = message.TypeSystem })
	b.publish(t, "room", `2`, func(m *message.Message) { m.Ephemeral = true })
	f.expect("room chat 1", `room system {"text":"soon","reason":"limit"}`, `room system ["event","gap"]`, "room chat 2 ephemeral")
}

func TestABroadcastComesToWhoAskedForIt(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	asked, not := b.live(t, "@global"), b.live(t, "room")
	id := b.publish(t, message.Global, `"all"`)
	b.publish(t, "room", `"one"`)
	asked.expect(`@global chat "all"`)
	not.expect(`room chat "one"`)
	b.publish(t, message.Global, `"more"`)
	again := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("@global", id.String())}})
	again.expect(`@global chat "more"`, "subscribed @global")
}

func TestARoomsOrderIsTheSameForAllAndEachPublishersOwn(t *testing.T) {
	const publishers, each = 16, 150
	b := backendOf(t, Config{}, node.Config{})
	feeds := []*feed{b.live(t, "room"), b.live(t, "other", "room")}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				b.publish(t, "room", fmt.Sprintf(`"%d %d"`, p, i))
			}
		})
	}
	var first []string
	for n, f := range feeds {
		var ids []string
		next := make([]int, publishers)
		for range publishers * each {
			m := f.recv().GetMessage()
			var p, i int
			if _, err := fmt.Sscanf(m.GetData(), `"%d %d"`, &p, &i); err != nil || i != next[p] {
				t.Fatalf("feed %d: %q of a publisher whose next is %d (%v)", n, m.GetData(), next[p], err)
			}
			next[p]++
			ids = append(ids, m.GetId())
		}
		if !slices.IsSorted(ids) {
			t.Errorf("feed %d: ids do not ascend", n)
		}
		if n == 0 {
			first = ids
		} else if !slices.Equal(ids, first) {
			t.Errorf("feed %d has another order", n)
		}
	}
	wg.Wait()
}

func TestAnIdIsWhereItGoesOn(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	var ids []string
	for i := range 5 {
		ids = append(ids, b.publish(t, "room", fmt.Sprint(i)).String())
	}
	other := b.publish(t, "elsewhere", "0").String()
	for name, c := range map[string]struct {
		after string
		want  []string
	}{
		"a message's":          {ids[2], []string{"room chat 3", "room chat 4", "subscribed room"}},
		"the newest message's": {ids[4], []string{"subscribed room"}},
		"in upper case":        {strings.ToUpper(ids[3]), []string{"room chat 4", "subscribed room"}},
		"none: from now":       {"", []string{"subscribed room"}},
		"another room's: half a minute before its time": {other, []string{"room chat 0", "room chat 1", "room chat 2", "room chat 3", "room chat 4", "subscribed room"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", c.after)}})
			for i, w := range c.want {
				resp := f.recv()
				if got := words(resp); got != w {
					t.Fatalf("event %d is %q, want %q", i, got, w)
				}
				if s := resp.GetSubscribed(); s != nil { // latest_id is such a place, too
					again := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", s.GetLatestId())}})
					again.expect("subscribed room")
				}
			}
		})
	}
}

func TestAGapSaysWhatHistoryDoesNotHave(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{Memory: broker.MemoryConfig{Retention: broker.Retention{Messages: 3}}})
	var ids []message.ID
	for i := range 9 {
		ids = append(ids, b.publish(t, "room", fmt.Sprint(i)))
	}
	f := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", ids[1].String())}})
	g := f.recv().GetGap()
	after, ok := message.ParseID(g.GetAfterId())
	if !ok || after.Position != ids[1].Position || g.GetBeforeId() != ids[6].String() || g.GetReason() != realtimev1.GapReason_GAP_REASON_EXPIRED || g.GetRoom() != "room" {
		t.Errorf("gap %v, want what was after %v and before %v", g, ids[1], ids[6])
	}
	f.expect("room chat 6", "room chat 7", "room chat 8", "subscribed room with a gap")
	f.leave()

	future := message.ID{Position: ids[8].Position.After(time.Hour), Low: ids[8].Low}
	f = open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", future.String())}})
	f.expect("gap room GAP_REASON_UNKNOWN_POSITION", "subscribed room with a gap")
	b.publish(t, "room", "9")
	f.expect("room chat 9")
}

func TestAGapSaysWhatWasDeleted(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := b.live(t, "room")
	first := b.publish(t, "room", "0")
	b.publish(t, "room", "1")
	f.expect("room chat 0", "room chat 1")
	if err := b.node.Broker().Delete(t.Context(), "room"); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "room", "2")
	f.expect("gap room GAP_REASON_DELETED", "room chat 2")
	late := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", first.String())}})
	late.expect("gap room GAP_REASON_DELETED", "room chat 2", "subscribed room with a gap")
}

func TestEveryReasonOfAGapHasItsName(t *testing.T) {
	for _, why := range []message.GapReason{message.GapExpired, message.GapUnknownPosition, message.GapLimit, message.GapDeleted, message.GapLost} {
		d := &delivery{}
		f := frame.Gap{Room: "room", Reason: why}.Append(nil, 0)
		resp, err := d.response(f)
		if want := "GAP_REASON_" + strings.ToUpper(string(why)); err != nil || resp.GetGap().GetReason().String() != want {
			t.Errorf("%v, %v, want %s", resp, err, want)
		}
	}
	if len(gapReasons) != len(realtimev1.GapReason_name)-1 {
		t.Error("the contract has other reasons")
	}
}

// What is not stored is ephemeral, or was sent while the broker was away: then the room is told to be degraded.
func TestWhatIsSentWhileTheBrokerIsAwayIsDegraded(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	h := b.node.Hub()
	first := b.publish(t, "a", "0")
	f := b.live(t, "a", "b")
	unstored := func(room message.Room, data string, flags message.Flags) {
		m := &message.Message{Type: "chat", Room: room, Data: []byte(data), ID: message.ID{Position: first.Position, Low: b.minter.Low(room.Tag(), true)}}
		h.Append(message.Entry{Message: m, Flags: flags})
	}
	unstored("a", "1", message.Ephemeral)
	h.Degraded("a")
	unstored("a", "2", message.Degraded)
	f.expect("a chat 1 ephemeral", "a chat 2 degraded")
	unstored("b", "1", message.Ephemeral)
	f.expect("b chat 1 ephemeral")

	late := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("a", first.String())}})
	late.expect("a chat 2 degraded", "subscribed a") // and nothing ephemeral
	stored := b.publish(t, "a", `"belated"`)
	behind := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("a", stored.String())}})
	behind.expect("a chat 2 degraded", "subscribed a") // all of a time that has not ended
	all := []*feed{f, late, behind, b.live(t, "a")}
	for _, f := range all[:2] {
		f.expect(`a chat "belated"`)
	}
	unstored("a", "3", message.Degraded)
	for _, f := range all {
		f.expect("a chat 3 degraded")
	}

	h.Restored("a")
	unstored("a", "4", message.Ephemeral)
	for _, f := range all {
		f.expect("a chat 4 ephemeral")
	}

	h.Degraded("") // all rooms
	unstored("b", "5", message.Degraded)
	f.expect("b chat 5 degraded")
	unstored("a", "6", message.Degraded)
	f.expect("a chat 6 degraded")
	h.Restored("")
	unstored("b", "7", message.Ephemeral)
	f.expect("b chat 7 ephemeral")
}

func TestAThousandRoomsAreOneStream(t *testing.T) {
	const rooms = maxStarts
	b := backendOf(t, Config{}, node.Config{})
	room := func(i int) string { return fmt.Sprintf("room-%d", i) }
	req := &realtimev1.SubscribeRequest{}
	for i := range rooms {
		req.Rooms = append(req.Rooms, from(room(i), ""))
	}
	// read takes what one message in each room, or the beginning of each, brings.
	read := func(f *feed, want func(i int) string, n int) {
		t.Helper()
		seen := make(map[string]int, n)
		for range n {
			seen[f.next()]++
		}
		for i := range rooms {
			if w := want(i); seen[w] != 1 {
				t.Fatalf("%q came %d times", w, seen[w])
			}
		}
	}
	f := open(t, b.sub, req)
	read(f, func(i int) string { return "subscribed " + room(i) }, rooms)
	for i := range rooms {
		req.Rooms[i].AfterId = b.publish(t, message.Room(room(i)), "1").String()
	}
	read(f, func(i int) string { return room(i) + " chat 1" }, rooms)
	f.leave()
	for i := range rooms {
		b.publish(t, message.Room(room(i)), "2")
	}
	f = open(t, b.sub, req)
	read(f, func(i int) string { return room(i) + " chat 2" }, 2*rooms)
}

// A frame need not fit into the pipe.
func TestALongMessageComesWhole(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := b.live(t, "room")
	long := `"` + strings.Repeat("x", 3*pipeBytes) + `"`
	b.publish(t, "room", "1")
	b.publish(t, "room", long)
	b.publish(t, "room", "2")
	f.expect("room chat 1", "room chat "+long, "room chat 2")
}

func TestSilenceIsKeptAlive(t *testing.T) {
	b := backendOf(t, Config{}, node.Config{})
	f := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: []*realtimev1.RoomStart{from("room", "")}, Keepalive: durationpb.New(time.Second)})
	f.expect("subscribed room", "keepalive", "keepalive")
	b.publish(t, "room", "1")
	f.expect("room chat 1", "keepalive")
}

func TestABadSubscribeNamesTheField(t *testing.T) {
	h := hub.New(hub.Config{}, nil, message.NewMinter(1), slog.New(slog.DiscardHandler))
	b := served1(t, Config{}, Parts{Hub: h}) // it does not run: nothing may reach it
	many := make([]*realtimev1.RoomStart, maxStarts+1)
	for i := range many {
		many[i] = from(fmt.Sprint("r", i), "")
	}
	good := []*realtimev1.RoomStart{from("a", ""), from("b", ""), from("@global", "")}
	invalid := func(reason, field string, meta map[string]string) told {
		return told{Code: codes.InvalidArgument, Reason: "realtime/" + reason, Field: field, Metadata: meta}
	}
	room := map[string]string{"limit": "128"}
	for name, c := range map[string]struct {
		rooms     []*realtimev1.RoomStart
		keepalive *durationpb.Duration
		want      told
	}{
		"no room":               {nil, nil, invalid("ARGUMENT_INVALID", "rooms", nil)},
		"too many":              {many, nil, invalid("TOO_MANY_ITEMS", "rooms", map[string]string{"limit": "1000", "count": "1001"})},
		"a room without a name": {append(good[:3:3], from("", "")), nil, invalid("ROOM_INVALID", "rooms[3].room", room)},
		"nothing":               {append(good[:3:3], &realtimev1.RoomStart{}), nil, invalid("ROOM_INVALID", "rooms[3].room", room)},
		"a bad name":            {append(good[:2:2], from("hunter2*", "")), nil, invalid("ROOM_INVALID", "rooms[2].room", room)},
		"a user's":              {append(good[:2:2], from("@user/u1", "")), nil, invalid("ROOM_INVALID", "rooms[2].room", room)},
		"a session's own":       {append(good[:2:2], from("@me", "")), nil, invalid("ROOM_INVALID", "rooms[2].room", room)},
		"one twice":             {append(good[:3:3], from("b", "")), nil, invalid("ARGUMENT_INVALID", "rooms[3].room", nil)},
		"everyone twice":        {append(good[:3:3], from("@global", "")), nil, invalid("ARGUMENT_INVALID", "rooms[3].room", nil)},
		"no id":                 {append(good[:3:3], from("c", "hunter2")), nil, invalid("POSITION_INVALID", "rooms[3].after_id", nil)},
		"a UUID of others":      {append(good[:3:3], from("c", "8f14e45f-ceea-467a-9538-3c6ba1b1b5b5")), nil, invalid("POSITION_INVALID", "rooms[3].after_id", nil)},
		"a keepalive too short": {good, durationpb.New(time.Second - 1), invalid("ARGUMENT_INVALID", "keepalive", nil)},
		"a keepalive of none":   {good, durationpb.New(0), invalid("ARGUMENT_INVALID", "keepalive", nil)},
		"a negative one":        {good, durationpb.New(-time.Minute), invalid("ARGUMENT_INVALID", "keepalive", nil)},
		"a keepalive too long":  {good, durationpb.New(10*time.Minute + 1), invalid("ARGUMENT_INVALID", "keepalive", nil)},
		"one beyond all bounds": {good, &durationpb.Duration{Seconds: 1 << 62}, invalid("ARGUMENT_INVALID", "keepalive", nil)},
		"no duration at all":    {good, &durationpb.Duration{Seconds: 5, Nanos: -1}, invalid("ARGUMENT_INVALID", "keepalive", nil)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, b.sub, &realtimev1.SubscribeRequest{Rooms: c.rooms, Keepalive: c.keepalive}).end()
			got, text := read(t, err)
			if d := cmp.Diff(c.want, got); d != "" || text == "" || strings.Contains(text, "hunter2") {
				t.Errorf("%q (-want +got):\n%s", text, d)
			}
		})
	}
	if h.Stats().Sessions != 0 {
		t.Error("a session was opened")
	}
	if got := b.log.records(t); got != nil {
		t.Errorf("logged: %v", got)
	}
}
