package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// shardOf is which of a cluster's primaries has a room at first.
func shardOf(t *testing.T, c *redistest.Cluster, room string) int {
	t.Helper()
	reply := c.Primaries[0].Do("CLUSTER", "KEYSLOT", "realtime:room:"+room)
	slot, err := reply.AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	return int(slot * int64(len(c.Primaries)) / 16384)
}

// chatter publishes to "general" from several nodes, until it is stopped.
type chatter struct {
	quit chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	taken []string // data, as it was acknowledged
}

func chat(t *testing.T, nodes ...*Running) *chatter {
	c := &chatter{quit: make(chan struct{})}
	for n, r := range nodes {
		p := r.publisher()
		c.wg.Go(func() {
			tick := time.NewTicker(40 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-c.quit:
					return
				case <-tick.C:
				}
				data := fmt.Sprintf(`"%d/%d"`, n, i)
				_, err := p.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: data}})
				if err != nil {
					t.Errorf("publish %s: %v", data, err)
					return
				}
				c.mu.Lock()
				c.taken = append(c.taken, data)
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (c *chatter) stop() []string {
	close(c.quit)
	c.wg.Wait()
	return c.taken
}

// heard is how often a session has got what.
type heard map[string]int

// hears reads on until a frame of this type or event, or chat with this data, has come.
func (s *guest) hears(h heard, what string) {
	s.t.Helper()
	for {
		f, code := s.next()
		switch {
		case code != 0:
			s.t.Fatalf("closed with %d, want %s", code, what)
		case f.Type == "gap":
			s.t.Errorf("told of a gap: %s", f.Data)
		case f.Type == "chat":
			h[string(f.Data)]++
		}
		if f.event() == what || f.Type == "chat" && (what == "chat" || string(f.Data) == what) {
			return
		}
	}
}

func TestWhenAClustersPrimaryFailsUnderLoadNothingIsLostOrRepeated(t *testing.T) {
	c := redistest.StartCluster(t)
	shard, elsewhere := shardOf(t, c, "general"), "quiet"
	for i := 0; shardOf(t, c, elsewhere) == shard; i++ {
		elsewhere = fmt.Sprint("quiet-", i)
	}
	url := fmt.Sprintf("redis://%s?addr=%s&addr=%s", c.Primaries[0].Addr, c.Primaries[1].Addr, c.Replicas[2].Addr)
	nodes := sharedAt(t, url, 2, "--ready-needs-redis")
	a := nodes[0]
	guests := []*guest{a.join("general"), nodes[1].join("general")}
	got := []heard{{}, {}}
	all := func(what string, times int) {
		t.Helper()
		for i, s := range guests {
			for range times {
				s.hears(got[i], what)
			}
		}
	}
	load := chat(t, nodes...)
	all("chat", 20)
	c.Replicas[shard].Pause()
	c.Primaries[shard].KillConns("replica") // what is stored from now on it never gets
	all("chat", 20)
	c.Primaries[shard].Kill()
	c.Replicas[shard].Resume()
	all("degraded", 1)
	if code, body := a.readiness(); code != http.StatusOK || !strings.Contains(body, `"degraded","reasons":["a part of redis is away"]`) {
		t.Errorf("readiness: %d %s", code, body)
	}
	resp, err := a.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: elsewhere, Message: said})
	if err != nil || resp.GetReceipt().GetDegraded() {
		t.Errorf("in a room of another primary: %v, %v", resp, err)
	}
	all("restored", 1)
	all("chat", 20)
	taken := load.stop()
	if _, err := a.publish(`"end"`); err != nil {
		t.Fatal(err)
	}
	all(`"end"`, 1)

	stored := heard{}
	for token, more := "", true; more; more = token != "" {
		page, err := a.publisher().GetHistory(t.Context(), &realtimev1.GetHistoryRequest{Room: "general", PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.GetMessages() {
			stored[m.GetData()]++
		}
		token = page.GetNextPageToken()
	}
	for _, data := range append(taken, `"end"`) {
		if stored[data] != 1 || got[0][data] != 1 || got[1][data] != 1 {
			t.Errorf("%s is stored %d times, and reached the sessions %d and %d times", data, stored[data], got[0][data], got[1][data])
		}
	}
	if len(stored) != len(taken)+1 {
		t.Errorf("%d are stored, %d were taken", len(stored), len(taken)+1)
	}
	eventually(t, "ready again", func() bool { _, body := a.readiness(); return strings.Contains(body, `"status":"ready"`) })
	put := 0
	for _, r := range nodes {
		for _, line := range r.log.find("WARN", "they are back in their places") {
			var l struct{ Count int }
			_ = json.Unmarshal([]byte(line), &l)
			put += l.Count
		}
	}
	if put == 0 {
		t.Error("nothing was lost, or nothing put back")
	}
}
