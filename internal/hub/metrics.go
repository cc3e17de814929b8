package hub

import (
	"sync/atomic"

	"github.com/slack5/realtime/internal/message"
)

// loss says why a member was not written an entry of its room.
type loss uint8

const (
	lossClosed  loss = iota // its session ended first
	lossLeft                // it left the room first
	lossDropped             // fell off the log and is in no history: an ephemeral entry, or a gap that was told
	losses
)

var lossNames = [losses]string{"closed", "left", "dropped"}

// counters are the hub's, added to by shards and publishers.
type counters struct {
	sessions  atomic.Int64
	appended  atomic.Uint64
	waits     atomic.Uint64
	delivered atomic.Uint64
	replayed  atomic.Uint64
	skipped   atomic.Uint64
	writes    atomic.Uint64
	bytes     atomic.Uint64
	blocked   atomic.Int64
	lost      [losses]atomic.Uint64
	gaps      [gapKinds]atomic.Uint64
	replays   [2]atomic.Uint64 // complete, with a gap
}

var gapNames = [...]message.GapReason{message.GapExpired, message.GapUnknownPosition, message.GapLimit, message.GapDeleted, message.GapLost}

const gapKinds = len(gapNames)

func gapIndex(why message.GapReason) int {
	for i, n := range gapNames {
		if n == why {
			return i
		}
	}
	return gapKinds - 1
}

func (c *counters) gap(why message.GapReason) { c.gaps[gapIndex(why)].Add(1) }

// tally is what a shard counts between two batches of events; only its goroutine touches it.
type tally struct {
	delivered, replayed, skipped, writes, bytes uint64
	lost                                        [losses]uint64
	blocked, told                               int // sessions blocked now, and as last told
}

// publish adds the tally to the hub's counters.
func (n *tally) publish(c *counters) {
	add := func(a *atomic.Uint64, v *uint64) {
		if *v > 0 {
			a.Add(*v)
			*v = 0
		}
	}
	add(&c.delivered, &n.delivered)
	add(&c.replayed, &n.replayed)
	add(&c.skipped, &n.skipped)
	add(&c.writes, &n.writes)
	add(&c.bytes, &n.bytes)
	for i := range n.lost {
		add(&c.lost[i], &n.lost[i])
	}
	if n.blocked != n.told {
		c.blocked.Add(int64(n.blocked - n.told))
		n.told = n.blocked
	}
}

// replay counts a resume that ended.
func (c *counters) replay(why message.GapReason) {
	if why == "" {
		c.replays[0].Add(1)
	} else {
		c.replays[1].Add(1)
	}
}

// Stats is what the hub has done since its start, and what it holds now.
type Stats struct {
	Sessions, Rooms, Blocked int // rooms: those that sessions name, with members here
	LogBytes                 int64
	Appended                 uint64 // entries of rooms this node has
	Delivered                uint64 // room entries written to members
	Replayed                 uint64 // room entries written to members that resumed
	Skipped                  uint64 // entries not meant for a member
	Lost                     map[string]uint64
	Writes, WrittenBytes     uint64
	Waits                    uint64 // publishes that Ready held up
	Gaps                     map[message.GapReason]uint64
	Recovered, NotRecovered  uint64 // resumes without and with a gap
}

// Stats reads the counters. They are not of one instant.
func (h *Hub) Stats() Stats {
	c := &h.stats
	s := Stats{
		Sessions: int(c.sessions.Load()), Blocked: int(c.blocked.Load()), LogBytes: h.used.Load(),
		Appended: c.appended.Load(), Delivered: c.delivered.Load(), Replayed: c.replayed.Load(), Skipped: c.skipped.Load(),
		Writes: c.writes.Load(), WrittenBytes: c.bytes.Load(), Waits: c.waits.Load(),
		Recovered: c.replays[0].Load(), NotRecovered: c.replays[1].Load(),
		Lost: make(map[string]uint64), Gaps: make(map[message.GapReason]uint64),
	}
	for i := range c.lost {
		s.Lost[lossNames[i]] = c.lost[i].Load()
	}
	for i := range c.gaps {
		s.Gaps[gapNames[i]] = c.gaps[i].Load()
	}
	for _, r := range h.named("") {
		if r.name.Ordinary() && r.present() > 0 {
			s.Rooms++
		}
	}
	return s
}
