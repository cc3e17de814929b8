package redistest

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

const (
	shards    = 3
	slotCount = 16384
)

// Cluster is three primaries, each with a third of the slots, and a replica of each. A primary that is silent for two
// seconds is replaced; slots that nobody has keep no other from being used.
type Cluster struct {
	Primaries, Replicas [shards]*Server // as they began

	t   testing.TB
	ids map[*Server]string
}

// StartCluster starts one; it ends with the test. args are further arguments of each redis-server.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: make(map[*Server]string)}
	var all []*Server
	for i := range 2 * shards {
		_, bus, _ := net.SplitHostPort(freeAddr(t))
		s := Start(t, append([]string{
			"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
			"--cluster-announce-ip", "127.0.0.1",
		}, args...)...)
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		c.ids[s] = string(s.text("CLUSTER", "MYID"))
		for _, other := range all {
			host, port, _ := net.SplitHostPort(other.Addr)
			s.Do("CLUSTER", "MEET", host, port, other.args[slices.Index(other.args, "--cluster-port")+1])
		}
		all = append(all, s)
		if i < shards {
			c.Primaries[i] = s
			s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slotCount/shards), strconv.Itoa((i+1)*slotCount/shards-1))
		} else {
			c.Replicas[i-shards] = s
		}
	}
	for i, r := range c.Replicas {
		id := c.ids[c.Primaries[i]]
		until(t, "a replica knows its primary", func() bool { return r.text("CLUSTER", "REPLICATE", id) == "OK" })
	}
	c.Settle()
	return c
}

// Settle waits until all servers that run know of all primaries, and replicas follow them.
func (c *Cluster) Settle() {
	c.t.Helper()
	for s := range c.ids {
		if s.cmd == nil {
			continue
		}
		until(c.t, "the cluster has settled", func() bool {
			info, role := s.text("CLUSTER", "INFO"), s.text("INFO", "replication")
			return info.has("cluster_state:ok") && info.has("cluster_slots_ok:16384") && info.has("cluster_known_nodes:6") &&
				(role.has("role:master") || role.has("master_link_status:up"))
		})
	}
}

// Move moves slots from one primary to another, as an administrator would, and all that is in them.
func (c *Cluster) Move(from, to *Server, slots ...int) {
	c.t.Helper()
	host, port, _ := net.SplitHostPort(to.Addr)
	conn := func(s *Server) rueidis.Client {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true})
		if err != nil {
			c.t.Fatal(err)
		}
		return client
	}
	source, target := conn(from), conn(to)
	defer source.Close()
	defer target.Close()
	ask := func(client rueidis.Client, args ...string) rueidis.RedisMessage {
		m, err := client.Do(c.t.Context(), client.B().Arbitrary(args...).Build()).ToMessage()
		if err != nil {
			c.t.Fatalf("%s: %v", strings.Join(args, " "), err)
		}
		return m
	}
	for _, n := range slots {
		slot := strconv.Itoa(n)
		ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from])
		ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to])
		for {
			m := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, "100")
			keys, err := m.AsStrSlice()
			if err != nil {
				c.t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			ask(source, append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)...)
		}
		ask(target, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to])
		ask(source, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to])
	}
}

// Is tells whether the server has a role: master, slave.
func (s *Server) Is(role string) bool { return s.text("INFO", "replication").has("role:" + role) }

// Follows tells whether the server has what its primary has.
func (s *Server) Follows() bool {
	return s.text("INFO", "replication").has("master_link_status:up")
}
