package redis

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	mapEvery = 10 * time.Second      // the map is asked for so often, if nothing shows that it is old
	mapRest  = 50 * time.Millisecond // and never sooner than so long after the last time
)

var (
	errHidden     = errors.New("redis: it is a Cluster, and this user may not ask it who has which slots: grant +cluster|slots")
	errNoSharding = errors.New("redis: it is a Cluster without sharded pub/sub, which Redis has since 7.0: use a newer one, or a single server")
	errNoMap      = errors.New("no node of the cluster tells who has which slots")
)

// cluster is what this node knows of a cluster: which primary has which slots. The library knows it for commands, and does
// not tell.
type cluster struct {
	commands rueidis.Client
	limit    time.Duration // of a question
	replaced func()        // a primary has no slots any more: another has taken its place, which may lack what it had
	view     atomic.Pointer[clusterView]
	stale    chan struct{} // view may be old
	stop     context.CancelFunc
	loop     sync.WaitGroup

	mu        sync.Mutex
	listeners map[*clusterListener]struct{}
	flights   map[string]chan struct{} // by primary: what is in flight
}

// clusterView is who had which slots at one time.
type clusterView struct {
	addrs []string
	owner [slotCount]int16 // index of addrs; -1: nobody
}

func (v *clusterView) addr(slot uint16) string {
	if n := v.owner[slot]; n >= 0 {
		return v.addrs[n]
	}
	return ""
}

// of are the slots of a primary; of "": those that nobody has.
func (v *clusterView) of(addr string) (s slots) {
	want := int16(slices.Index(v.addrs, addr))
	if want < 0 && addr != "" {
		return s
	}
	for slot, n := range v.owner {
		if n == want {
			s.add(uint16(slot))
		}
	}
	return s
}

// newCluster looks at a cluster, and goes on doing so until close. channel is one to try whether it has channels.
func newCluster(ctx context.Context, commands rueidis.Client, limit time.Duration, channel string, replaced func()) (*cluster, error) {
	c := &cluster{
		commands: commands, limit: limit, replaced: replaced, stale: make(chan struct{}, 1),
		listeners: make(map[*clusterListener]struct{}), flights: make(map[string]chan struct{}),
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	err := sharded(asking, commands, channel)
	cancel()
	if err != nil {
		return nil, err
	}
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.loop.Go(func() { c.run(running) })
	return c, nil
}

// sharded returns errNoSharding for a cluster that has no channels in slots.
func sharded(ctx context.Context, c rueidis.Client, channel string) error {
	err := c.Do(ctx, c.B().Spublish().Channel(channel).Message("").Build()).Error()
	if e, ok := rueidis.IsRedisErr(err); ok && strings.Contains(e.Error(), "unknown command") {
		return errNoSharding
	}
	return nil // or it is told by what needs them
}

// hidden tells a cluster that does not tell this user that it is one: the library takes it for a single server then.
func hidden(ctx context.Context, c rueidis.Client) bool {
	err := fromServer(c.Do(ctx, c.B().ClusterSlots().Build()).Error())
	if text, ok := answered(err); !ok || !denied(text) {
		return false
	}
	hello, err := c.Do(ctx, c.B().Hello().Build()).AsMap()
	if err != nil {
		return false
	}
	mode := hello["mode"]
	name, _ := mode.ToString() // none: it is old, and not known
	return name == "cluster"
}

func (c *cluster) close() {
	c.stop()
	c.loop.Wait()
}

// run keeps the view.
func (c *cluster) run(ctx context.Context) {
	tick := time.NewTicker(mapEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.stale:
		}
		if c.refresh(ctx) != nil {
			signal(c.stale)
		}
		if !pause(ctx, mapRest) {
			return
		}
	}
}

// refresh asks one node after the other, until one tells.
func (c *cluster) refresh(ctx context.Context) error {
	err := errNoMap
	for addr, node := range c.commands.Nodes() { // in any order
		v, e := c.ask(ctx, addr, node)
		if e == nil {
			c.take(v)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = e
	}
	return fromServer(err)
}

func (c *cluster) ask(ctx context.Context, addr string, node rueidis.Client) (*clusterView, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	ranges, err := node.Do(ctx, node.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(addr)
	v := &clusterView{}
	for i := range v.owner {
		v.owner[i] = -1
	}
	for _, r := range ranges { // first slot, last slot, primary, replicas
		parts, err := r.ToArray()
		if err != nil || len(parts) < 3 {
			return nil, errNoMap
		}
		first, err1 := parts[0].AsInt64()
		last, err2 := parts[1].AsInt64()
		primary, err3 := parts[2].ToArray()
		if err := errors.Join(err1, err2, err3); err != nil || first < 0 || last >= slotCount || len(primary) < 2 {
			return nil, errNoMap
		}
		name, _ := primary[0].ToString() // none: as the one that was asked
		port, err := primary[1].AsInt64()
		if err != nil || name == "?" {
			continue
		}
		if name == "" {
			name = host
		}
		n := v.index(net.JoinHostPort(name, strconv.FormatInt(port, 10)))
		for slot := first; slot <= last; slot++ {
			v.owner[slot] = n
		}
	}
	if len(v.addrs) == 0 {
		return nil, errNoMap
	}
	return v, nil
}

func (v *clusterView) index(addr string) int16 {
	n := slices.Index(v.addrs, addr)
	if n < 0 {
		n = len(v.addrs)
		v.addrs = append(v.addrs, addr)
	}
	return int16(n)
}

// take makes a view the one that counts.
func (c *cluster) take(v *clusterView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.view.Swap(v)
	if old == nil {
		return
	}
	for _, addr := range old.addrs {
		if v.of(addr) == (slots{}) {
			c.replaced()
			break
		}
	}
	for l := range c.listeners {
		signal(l.wake)
	}
}

// redirected takes what a node has answered of which another has the slot: "MOVED 3999 127.0.0.1:6381"; false: it is none.
func (c *cluster) redirected(text string) bool {
	fields := strings.Fields(text)
	if len(fields) != 3 || fields[0] != "MOVED" {
		return false
	}
	c.doubt()
	slot, err := strconv.ParseUint(fields[1], 10, 16)
	if host, _, bad := net.SplitHostPort(fields[2]); err != nil || bad != nil || host == "" || slot >= slotCount {
		return true
	}
	c.mu.Lock()
	old := c.view.Load()
	c.mu.Unlock()
	if old.addr(uint16(slot)) != fields[2] {
		v := &clusterView{addrs: slices.Clone(old.addrs), owner: old.owner}
		v.owner[slot] = v.index(fields[2])
		c.take(v)
	}
	return true
}

// doubt has the view be asked for anew soon.
func (c *cluster) doubt() { signal(c.stale) }

// flight is what bounds the calls in flight to the primary of a key.
func (c *cluster) flight(key string) chan struct{} {
	addr := c.view.Load().addr(slotOf(key))
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.flights[addr]
	if f == nil {
		f = make(chan struct{}, maxInFlight)
		c.flights[addr] = f
	}
	return f
}

// part is what of Redis fails together: what a primary has, or without a cluster all.
type part struct {
	addr  string // empty without a cluster
	slots slots
}

// cluster is the one that Redis is; nil: it is none, or was not reached yet.
func (w *wire) cluster() *cluster {
	if s, ok := w.port.(*server); ok {
		if c := s.clients.Load(); c != nil {
			return c.cluster
		}
	}
	return nil
}

// verb is what scripts publish with.
func (w *wire) verb() string {
	if w.cluster() != nil {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// part is what fails together with a channel.
func (w *wire) part(ch string) part {
	c := w.cluster()
	if c == nil {
		return part{slots: allSlots}
	}
	v := c.view.Load()
	addr := v.addr(slotOf(ch))
	return part{addr, v.of(addr)}
}

// parts divides slots into what fails together now.
func (w *wire) parts(all slots) (ps []part) {
	c := w.cluster()
	if c == nil {
		return []part{{slots: all}}
	}
	v := c.view.Load()
	for _, addr := range append([]string{""}, v.addrs...) {
		s := v.of(addr)
		rest := all.without(&s)
		if s = all.without(&rest); s != (slots{}) {
			ps = append(ps, part{addr, s})
		}
	}
	return ps
}

// divide divides channels by what fails together.
func (w *wire) divide(channels []string) [][]string {
	c := w.cluster()
	if c == nil {
		return [][]string{channels}
	}
	v, by := c.view.Load(), make(map[string][]string)
	for _, ch := range channels {
		addr := v.addr(slotOf(ch))
		by[addr] = append(by[addr], ch)
	}
	return slices.Collect(maps.Values(by))
}

// answers asks a part for a key that it does not have.
func (w *wire) answers(ctx context.Context, p part) error {
	slot, _ := p.slots.first()
	return w.do(ctx, w.call, func(ctx context.Context) error {
		_, err := w.port.Values(ctx, []string{w.keys.check(slot)})
		return err
	})
}

// doubt says that what fails may do so because a slot has another primary now.
func (w *wire) doubt() {
	if c := w.cluster(); c != nil {
		c.doubt()
	}
}
