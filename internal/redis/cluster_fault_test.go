package redis_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// shardOf is which of a cluster's three primaries has a channel at first.
func shardOf(ch string) int {
	switch slot := redis.SlotOf(ch); {
	case slot < 5461:
		return 0
	case slot < 10922:
		return 1
	default:
		return 2
	}
}

func slotOfRoom(room message.Room) int { return int(redis.SlotOf("realtime:room:" + string(room))) }

// roomsOn are rooms that a primary has.
func roomsOn(shard, n int) (rooms []message.Room) {
	for i := 0; len(rooms) < n; i++ {
		if room := message.Room(fmt.Sprintf("s%d-%d", shard, i)); shardOf("realtime:room:"+string(room)) == shard {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// clustered runs two nodes over a cluster that have some rooms. A busy machine is no outage.
func clustered(t *testing.T, c *redistest.Cluster, grace time.Duration, rooms ...message.Room) (a, b *node) {
	t.Helper()
	cfg := redis.Config{Options: options(t, c.Primaries[2].Addr, ""), Grace: grace}
	cfg.CallTimeout = 5 * time.Second
	a, b = newNode(t, 1, cfg).run(), newNode(t, 2, cfg).run()
	a.live(rooms...)
	b.live(rooms...)
	return a, b
}

// flows waits until more messages have come to a node in a room.
func (n *node) flows(room message.Room) {
	n.t.Helper()
	had := len(n.sink.look(room).entries)
	until(n.t, fmt.Sprintf("messages come to %s in %q", n.sink.name, room), func() bool { return len(n.sink.look(room).entries) > had+5 })
}

func TestRoomsWhoseSlotsMoveLoseNothing(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	moving, staying := roomsOn(0, 201), roomsOn(2, 5)
	a, b := clustered(t, c, patience, append(moving, staying...)...)
	busy := startLoad([]message.Room{moving[0], staying[0]}, 10*time.Millisecond, a, b)
	calm := startLoad(append(moving[1:], staying[1:]...), time.Second, a, b)
	b.flows(moving[0])
	c.Move(c.Primaries[0], c.Primaries[1], slotOfRoom(moving[0]))
	b.flows(moving[0])
	slots := make(map[int]bool)
	for _, room := range moving[1:] {
		if slot := slotOfRoom(room); !slots[slot] && slot != slotOfRoom(moving[0]) {
			slots[slot] = true
			c.Move(c.Primaries[0], c.Primaries[1], slot)
		}
	}
	c.Move(c.Primaries[1], c.Primaries[0], slotOfRoom(moving[0])) // and back
	b.flows(moving[0])
	b.flows(moving[200])
	n := busy.stop() + calm.stop()
	busy.settled(t, a, b)
	calm.settled(t, a, b)
	if fails := busy.fails + calm.fails; fails > 0 || len(a.sink.happened())+len(b.sink.happened()) > 0 {
		t.Errorf("%d stored, %d refused; %q, %q", n, fails, a.sink.happened(), b.sink.happened())
	}
}

func TestAPartOfAClusterFailsOverByItself(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	failing, others := roomsOn(0, 20), append(roomsOn(1, 10), roomsOn(2, 10)...)
	a, b := clustered(t, c, 0, append(failing, others...)...)
	l, rest := startLoad(failing, 40*time.Millisecond, a, b), startLoad(others, 40*time.Millisecond, a, b)
	for _, room := range []message.Room{failing[0], others[0]} {
		b.flows(room)
	}

	c.Replicas[0].Do("CLUSTER", "FAILOVER") // nothing is lost: the old primary waits for the new one
	until(t, "the replica is the primary", func() bool { return c.Replicas[0].Is("master") })
	b.flows(failing[0])
	b.flows(others[0])
	until(t, "nobody is away", func() bool { return len(a.sink.happened())%2 == 0 && len(b.sink.happened())%2 == 0 })
	until(t, "the old primary follows", func() bool { return c.Primaries[0].Is("slave") && c.Primaries[0].Follows() })

	p, q := peers(t, c.Primaries[1])
	q.Follow(failing[0])
	p.has(failing[0], "before", true)
	q.sees(failing[0], patience, p)
	c.Replicas[0].Kill()
	until(t, "the rooms of the part are away", func() bool { return len(degraded(a)) >= 20 && len(degraded(b)) >= 20 })
	b.flows(others[0])
	until(t, "they are back", func() bool {
		return len(a.sink.happened()) == 2*len(degraded(a)) && len(b.sink.happened()) == 2*len(degraded(b))
	})
	b.flows(failing[0])
	p.has(failing[0], "after", true)
	q.sees(failing[0], patience, p)
	n, m := l.stop(), rest.stop()
	l.storedOnce(t, a, b)
	rest.settled(t, a, b)
	if l.fails+rest.fails > 0 {
		t.Errorf("%d and %d stored, %d and %d refused", n, m, l.fails, rest.fails)
	}
	for _, n := range []*node{a, b} {
		for _, what := range n.sink.happened() {
			if !strings.HasPrefix(what, "degraded s0-") && !strings.HasPrefix(what, "restored s0-") {
				t.Errorf("%s is told %q, though only a part was away", n.sink.name, what)
			}
		}
	}
}

func TestAPrimaryThatHangsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, "--cluster-node-timeout", "60000") // so none is replaced
	first, other := (shardOf("realtime:ctl")+1)%3, (shardOf("realtime:ctl")+2)%3
	hanging, others := roomsOn(first, 300), roomsOn(other, 10)
	cfg := redis.Config{Options: options(t, c.Primaries[other].Addr, "")}
	cfg.CallTimeout = 2 * time.Second // a busy machine does not hang
	a, b := newNode(t, 1, cfg).run(), newNode(t, 2, cfg).run()
	a.live(append(hanging, others...)...)
	b.live(append(hanging, others...)...)
	l, rest := startLoad(hanging, 3*time.Second, a, b), startLoad(others, 50*time.Millisecond, a, b)
	b.flows(others[0])
	p, q := peers(t, c.Primaries[other])
	for _, room := range []message.Room{hanging[0], others[0]} {
		q.Follow(room)
		p.has(room, "before", true)
		q.sees(room, patience, p)
	}
	c.Primaries[first].Pause()
	until(t, "the rooms of the part are away", func() bool { return len(degraded(a)) >= 300 && len(degraded(b)) >= 300 })
	for _, room := range others {
		a.flows(room)
		b.flows(room)
	}
	a.live(roomsOn(other, 30)[10:]...)
	a.live(roomsOn(first, 320)[300:]...) // at once, and without the others
	p.has(hanging[0], "meanwhile", true)
	p.has(others[0], "meanwhile", true)
	q.sees(others[0], patience, p)
	if _, r, err := a.say(hanging[0], "alone"); err != nil || !r.Degraded {
		t.Errorf("in a room that is away: %+v, %v, want it to be degraded", r, err)
	}
	c.Primaries[first].Resume()
	until(t, "they are back", func() bool {
		return len(a.sink.happened()) == 2*len(degraded(a))+20 && len(b.sink.happened()) == 2*len(degraded(b))
	})
	q.sees(hanging[0], patience, p)
	n, m := l.stop(), rest.stop()
	l.storedOnce(t, a, b)
	rest.storedOnce(t, a, b)
	if l.fails+rest.fails > 0 {
		t.Errorf("%d and %d stored, %d and %d refused", n, m, l.fails, rest.fails)
	}
}

// degraded are the rooms that a node was told are away, each time.
func degraded(n *node) (rooms []string) {
	for _, what := range n.sink.happened() {
		if room, ok := strings.CutPrefix(what, "degraded "); ok {
			rooms = append(rooms, room)
		}
	}
	return rooms
}
