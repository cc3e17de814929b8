package redis_test

import (
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

func TestWhatAPartOfAClusterLosesInAFailoverIsPutBackInItsPlace(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	shard := (shardOf("realtime:ctl") + 1) % 3
	losing, others := roomsOn(shard, 5), roomsOn((shard+1)%3, 3)
	a, b := lossy(t, c.Primaries[(shard+1)%3].Addr, redis.Config{})
	for _, n := range []*node{a, b} {
		n.live(losing...)
		n.live(others...)
	}
	// So slowly that the last node to come back finds fewer than 500 behind what was lost, else it could not be put in its place.
	l, rest := startLoad(losing, 50*time.Millisecond, a, b), startLoad(others, 50*time.Millisecond, a, b)
	b.flows(losing[0])
	c.Replicas[shard].Pause()
	c.Primaries[shard].KillConns("replica") // what is stored from now on it never gets
	for _, room := range losing {
		a.flows(room)
		b.flows(room)
	}
	c.Primaries[shard].Kill()
	c.Replicas[shard].Resume()
	until(t, "the part is away", func() bool { return len(degraded(a)) >= len(losing) && len(degraded(b)) >= len(losing) })
	for _, room := range others {
		a.flows(room)
		b.flows(room)
	}
	until(t, "the part is back", func() bool {
		return len(a.sink.happened()) == 2*len(degraded(a)) && len(b.sink.happened()) == 2*len(degraded(b))
	})
	for _, room := range losing {
		a.flows(room)
		b.flows(room)
	}
	n, m := l.stop(), rest.stop()
	if l.fails+rest.fails > 0 {
		t.Errorf("%d and %d stored, %d and %d refused", n, m, l.fails, rest.fails)
	}
	for load, rooms := range map[*load][]message.Room{l: losing, rest: others} {
		load.storedOnce(t, a, b)
		load.inPlace(t, a)
		for _, room := range rooms {
			if gaps := a.sink.look(room).gaps + b.sink.look(room).gaps; gaps > 0 {
				t.Errorf("%d gaps are told of in %q", gaps, room)
			}
		}
	}
	if a.Restored()+b.Restored() == 0 {
		t.Error("nothing was lost, or nothing put back")
	}
}
