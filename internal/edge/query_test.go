package edge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// messages are those of a history reply.
func (f shown) messages() []shown {
	var d struct{ Messages []shown }
	_ = json.Unmarshal(f.Data, &d)
	return d.Messages
}

func texts(ms []shown) string {
	var b strings.Builder
	for _, m := range ms {
		b.Write(m.Data)
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

func TestHistoryIsPagedInBothDirections(t *testing.T) {
	s := serve(t, fast, setup{})
	c := s.connect("/ws/general")
	c.want("subscribed")
	var ids []message.ID
	for i := range 7 {
		ids = append(ids, s.bus.put("general", fmt.Sprint(i)))
	}
	notStored := ids[3] // a frame that was not stored, behind the fourth message
	notStored.Low = message.NewMinter(9).Low(message.Room("general").Tag(), true)
	for range 7 {
		c.next("chat")
	}
	for _, q := range []struct{ ask, want string }{
		{`{"limit":3}`, "4 5 6|1 2 3|0"},
		{`{"before":"` + ids[3].String() + `","limit":2}`, "1 2|0"},
		{`{"before":"` + ids[2].String() + `","limit":2}`, "0 1"},
		{`{"before":"` + notStored.String() + `","limit":3}`, "1 2 3|0"},
		{`{"before":"` + ids[0].String() + `"}`, ""},
		{`{"after":"` + ids[1].String() + `","limit":2}`, "2 3|4 5|6"},
		{`{"after":"` + ids[6].String() + `"}`, ""},
	} {
		pages := []string{}
		for page := q.ask; page != ""; {
			c.say(`{"type":"history","ref":"h","data":%s}`, page)
			f := c.next("history")
			if f.Ref != "h" || f.Room != "general" || f.field("truncated") != nil {
				t.Errorf("%s: %+v", page, f)
			}
			pages = append(pages, texts(f.messages()))
			page = ""
			if next, ok := f.field("next").(string); ok {
				page = `{"page":"` + next + `","limit":` + fmt.Sprint(max(2, strings.Count(pages[0], " ")+1)) + `}`
			}
		}
		if got := strings.Join(pages, "|"); got != q.want {
			t.Errorf("%s: %q, want %q", q.ask, got, q.want)
		}
	}
}

func TestHistorySaysWhenWhatFollowedIsNoLongerKept(t *testing.T) {
	at := func(ms int64) message.Position { return message.At(ms, 0) }
	entry := func(ms, prev int64) message.Entry {
		p := message.Position(0)
		if prev > 0 {
			p = at(prev)
		}
		return message.Entry{Message: &message.Message{ID: message.ID{Position: at(ms)}}, Prev: p}
	}
	for _, c := range []struct {
		name string
		page message.Page
		want bool
	}{
		{"the next one names it as its predecessor", message.Page{Entries: []message.Entry{entry(20, 10)}, Tip: at(20)}, false},
		{"something between is gone", message.Page{Entries: []message.Entry{entry(30, 20)}, Tip: at(30)}, true},
		{"nothing came since", message.Page{Tip: at(10)}, false},
		{"all that came is gone", message.Page{Tip: at(20)}, true},
		{"it was deleted", message.Page{Tip: at(20), Cut: at(20)}, true},
		{"deleted before", message.Page{Tip: at(10), Cut: at(5)}, false},
		{"a new room", message.Page{Entries: []message.Entry{entry(20, 0)}, Tip: at(20)}, false},
		{"the broker does not remember so far back", message.Page{Entries: []message.Entry{entry(20, 0)}, Tip: at(20), Since: at(15)}, true},
		{"nor anything", message.Page{Since: at(15)}, true},
	} {
		if got := c.page.Truncated(at(10)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestAReplyIsCutToWhatASessionMayHaveInMemory(t *testing.T) {
	s := serve(t, fast, setup{})
	c := s.connect("/ws/general")
	c.want("subscribed")
	for i := range 5 {
		s.bus.put("general", fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", 50<<10)))
		c.next("chat")
	}
	var pages []string
	for page := `{}`; page != ""; {
		c.say(`{"type":"history","data":%s}`, page)
		for {
			g, err := c.read(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if g.op != 0x81 {
				continue
			}
			if len(g.payload) > replyBytes {
				t.Errorf("a reply of %d bytes", len(g.payload))
			}
			var n string
			for _, m := range g.j.messages() {
				n += string(m.Data[1:2])
			}
			pages = append(pages, n)
			page = ""
			if next, ok := g.j.field("next").(string); ok {
				page = `{"page":"` + next + `"}`
			}
			break
		}
	}
	if got := strings.Join(pages, " "); got != "34 12 0" {
		t.Errorf("pages %q", got)
	}
}

func TestHistoryShowsNothingThatExcludesTheReader(t *testing.T) {
	s := serve(t, fast, named())
	c := s.connect("/ws/general", "Authorization: Bearer alice")
	c.want("subscribed")
	for _, user := range []string{"alice", "bob"} {
		m := &message.Message{Type: "chat", Room: "general", Data: []byte(`"not for ` + user + `"`), ExcludeUsers: []string{user}}
		if _, err := s.bus.Publish(t.Context(), m, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	c.next("chat")
	c.say(`{"type":"history"}`)
	if got := texts(c.next("history").messages()); got != `"not for bob"` {
		t.Errorf("history %s", got)
	}
}

func TestTheOwnAndTheGlobalRoomHaveAHistory(t *testing.T) {
	s := serve(t, fast, named())
	s.bus.put(message.UserRoom("alice"), `"n"`)
	s.bus.put(message.Global, `"g"`)
	c := s.connect("/ws", "Authorization: Bearer alice")
	c.next("welcome")
	for room, want := range map[string]string{"@me": `"n"`, "@global": `"g"`} {
		c.say(`{"type":"history","room":"%s"}`, room)
		if f := c.next("history"); texts(f.messages()) != want || f.Room != room {
			t.Errorf("%s: %+v %s", room, f, f.Data)
		}
	}
}

func TestPageNamesAreReadBackAndNothingElseIs(t *testing.T) {
	for _, backward := range []bool{false, true} {
		at := message.At(1_700_000_000_000, 4095)
		if got, dir, ok := parsePage(pageName(at, backward)); !ok || got != at || dir != backward {
			t.Errorf("%v %v %v", got, dir, ok)
		}
	}
	for _, s := range []string{"", "n", "o0", "x1", "n-1", "n!", "o" + strings.Repeat("z", 20)} {
		if _, _, ok := parsePage(s); ok {
			t.Errorf("%q is a page", s)
		}
	}
}

func TestAPageThatOnlyHoldsTheIDItWasAskedBeforeGoesOn(t *testing.T) {
	m := &message.Message{ID: message.ID{Position: message.At(9, 0), Low: 1}}
	p := message.Page{Entries: []message.Entry{{Message: m}}, More: true}
	q, anchor, _ := historyQuery("general", frame.HistoryWant{Before: m.ID, Limit: 1})
	if kept, next := fit(p, q, anchor); len(kept) != 0 || next != m.ID.Position {
		t.Errorf("kept %v, next %v", kept, next)
	}
}
