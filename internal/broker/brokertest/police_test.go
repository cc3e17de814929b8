package brokertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/message"
)

// entry makes an entry of the room "general".
func entry(minter *message.Minter, at, prev message.Position, ephemeral bool) message.Entry {
	e := message.Entry{Prev: prev, Message: &message.Message{
		ID: message.ID{Position: at, Low: minter.Low(message.Room("general").Tag(), ephemeral)}, Room: "general", Type: message.TypeChat,
		Data: []byte("1"), Ephemeral: ephemeral,
	}}
	if ephemeral {
		e.Flags = message.Ephemeral
	}
	return e
}

func TestThePoliceSeesEachBreach(t *testing.T) {
	minter := message.NewMinter(1)
	stored := func(at, prev message.Position) message.Entry { return entry(minter, at, prev, false) }
	for _, c := range []struct {
		name string
		do   func(p *police)
		want string // in a report; empty: none
	}{
		{"a faultless room", func(p *police) {
			p.Live("general", 5, false)
			p.Append(stored(7, 5))
			p.Append(entry(minter, 7, 0, true))
			p.Append(stored(9, 7))
			p.Deleted("general", 9)
			p.Append(stored(10, 9))
			p.Live("general", 20, false)
			p.Append(stored(21, 20))
			p.end()
		}, ""},
		{"an ephemeral entry first", func(p *police) {
			p.Live("general", 0, false)
			p.Append(entry(minter, 3, 0, true))
			p.Append(stored(4, 0))
		}, ""},
		{"an entry before Live", func(p *police) { p.Append(stored(7, 0)) }, "before Live"},
		{"an entry at the tip", func(p *police) { p.Live("general", 7, false); p.Append(stored(7, 7)) }, "is not above 7"},
		{"an entry out of order", func(p *police) { p.Live("general", 0, false); p.Append(stored(9, 0)); p.Append(stored(8, 9)) }, "is not above 9"},
		{"an entry behind an ephemeral one's Now", func(p *police) {
			p.Live("general", 0, false)
			p.Append(entry(minter, 9, 0, true))
			p.Append(stored(9, 0))
		}, "is not above 9"},
		{"an entry twice", func(p *police) {
			p.Live("general", 0, false)
			e := stored(9, 0)
			p.Append(e)
			p.Append(e)
		}, "a second time"},
		{"a hole", func(p *police) { p.Live("general", 3, false); p.Append(stored(9, 4)) }, "prev 4, the entry before it has 3"},
		{"an ephemeral entry at another position", func(p *police) { p.Live("general", 3, false); p.Append(entry(minter, 4, 0, true)) }, "the stored entry before it has 3"},
		{"an ephemeral entry with a predecessor", func(p *police) { p.Live("general", 3, false); p.Append(entry(minter, 3, 3, true)) }, "prev 3"},
		{"an ephemeral entry that is not flagged", func(p *police) {
			p.Live("general", 3, false)
			e := entry(minter, 3, 0, true)
			e.Flags = 0
			p.Append(e)
		}, "flagged ephemeral false"},
		{"a belated entry", func(p *police) {
			p.Live("general", 3, false)
			e := stored(4, 3)
			e.Flags = message.Belated
			p.Append(e)
		}, "though there is no outage"},
		{"a degraded room", func(p *police) { p.Live("general", 0, true) }, "degraded though"},
		{"a tip below what was seen", func(p *police) {
			p.Live("general", 3, false)
			p.Append(stored(5, 3))
			p.Live("general", 4, false)
		}, "5 was seen before"},
		{"a deletion up to nothing", func(p *police) { p.Live("general", 3, false); p.Deleted("general", 0) }, "up to 0"},
		{"an entry that was deleted", func(p *police) {
			p.Live("general", 3, false)
			p.Deleted("general", 9)
			p.Append(stored(8, 3))
		}, "is not above 9"},
		{"a gap", func(p *police) { p.Gap("general", 1, 2, message.GapLost) }, "nothing was lost"},
		{"an outage", func(p *police) { p.Degraded("") }, "there is no outage"},
		{"a call after the end", func(p *police) { p.end(); p.Live("general", 0, false) }, "after Run had returned"},
		{"a message that is changed later", func(p *police) {
			p.Live("general", 3, false)
			e := stored(4, 3)
			p.Append(e)
			e.Message.Data[0] = '2'
			p.end()
		}, "was changed"},
		{"two calls at once", func(p *police) {
			b, leave := p.enter("Live", "general")
			leave()
			b.busy.Store(true) // as if one had not left yet
			p.Live("general", 0, false)
		}, "under way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var reports []string
			c.do(newPolice(func(format string, args ...any) { reports = append(reports, fmt.Sprintf(format, args...)) }))
			if c.want == "" && len(reports) > 0 {
				t.Errorf("reported %q, want nothing", reports)
			}
			if !slices.ContainsFunc(reports, func(r string) bool { return strings.Contains(r, c.want) }) && c.want != "" {
				t.Errorf("reported %q, want %q", reports, c.want)
			}
		})
	}
}
