package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// PresenceConfig configures a Presence; zero fields take their defaults.
type PresenceConfig struct {
	// Incarnation is the node's name in all it writes, no longer than 64 bytes, without ":" and "~". Default: one that
	// no other node has.
	Incarnation string

	Lease time.Duration // how long what a node has written stands without a sign of life of it; default 6 s
	Beat  time.Duration // how often it gives one, and looks at the others'; default 2 s
	Grace time.Duration // how long it stands after Leave; default 8 s

	TTL      time.Duration // of what is written; it is refreshed at a third of that. Default 1 h
	SeenFor  time.Duration // how long it is known when a user was last seen; default 7 days
	Refetch  time.Duration // what was read is served for so long without asking whether it has changed; default 250 ms
	MaxRoom  int           // a room with more users is read in pages and not kept; default 5,000
	MaxCache int           // users kept of what was read; default 200,000
}

func (c *PresenceConfig) setDefaults() {
	c.Lease = cmp.Or(c.Lease, 6*time.Second)
	c.Beat = cmp.Or(c.Beat, 2*time.Second)
	c.Grace = cmp.Or(c.Grace, 8*time.Second)
	c.TTL = cmp.Or(c.TTL, time.Hour)
	c.SeenFor = cmp.Or(c.SeenFor, 7*24*time.Hour)
	c.Refetch = cmp.Or(c.Refetch, 250*time.Millisecond)
	c.MaxRoom = cmp.Or(c.MaxRoom, 5000)
	c.MaxCache = cmp.Or(c.MaxCache, 200_000)
}

func (c *PresenceConfig) check() error {
	switch {
	case len(c.Incarnation) > 64 || strings.ContainsAny(c.Incarnation, ":"+draining):
		return errors.New(`redis: an incarnation has at most 64 bytes and neither ":" nor "~"`)
	case c.Beat > c.Lease/2:
		return fmt.Errorf("redis: a beat each %v is too seldom for a lease of %v: it must be at most half of it", c.Beat, c.Lease)
	case c.TTL < 3*time.Second:
		return fmt.Errorf("redis: a TTL of %v is too short, it must be at least 3 s", c.TTL)
	}
	return nil
}

// Presence is the presence.Store over Redis. Each node writes what it has as absolute values under its lease; so nobody has
// to clean up behind a node that dies, and Redis may lose everything.
//
// A Redis that is away is no error: what was known stays, nobody is taken for dead, and what is put meanwhile is kept,
// the last of each user. When it is back all nodes get a whole lease to come back before the live ones are counted again.
type Presence struct {
	opts  Options
	cfg   PresenceConfig
	keys  keys
	log   *slog.Logger
	lease *nodeLease
	feed  presenceFeed
	cache *presenceCache
	ran   atomic.Bool
	conn  atomic.Pointer[presenceConn] // nil before Redis has first answered
	cut   atomic.Bool                  // a connection was lost, or Redis emptied: what was written may be
	left  atomic.Bool

	// What Redis has may turn out to be new: a beat is under way.
	beating atomic.Bool

	dialled chan struct{} // closed when conn is there
	hurry   chan struct{} // the heart shall beat
	news    chan struct{} // the loop has something to do
	flush   chan struct{} // the flusher has something to do

	stats presenceCounters
	own   ownRooms
	inbox presenceInbox
	nodes liveNodes
	waste garbage
}

var _ presence.Store = (*Presence)(nil)

// presenceConn are the connections to Redis: for commands, for subscriptions, and for what is cached, whose large replies
// must not delay the others.
type presenceConn struct{ command, subscription, cached rueidis.Client }

func (c *presenceConn) close() {
	c.command.Close()
	c.subscription.Close()
	c.cached.Close()
}

// NewPresence makes a Store that dials nothing before Run.
func NewPresence(opts Options, cfg PresenceConfig) (*Presence, error) {
	opts.setDefaults()
	cfg.setDefaults()
	if err := errors.Join(opts.check(), cfg.check()); err != nil {
		return nil, err
	}
	k := keys(opts.Prefix)
	p := &Presence{
		opts: opts, cfg: cfg, keys: k, log: opts.Logger.With("component", "presence"), lease: newNodeLease(k, cfg.Incarnation, cfg.Lease),
		dialled: make(chan struct{}), hurry: make(chan struct{}, 1), news: make(chan struct{}, 1), flush: make(chan struct{}, 1),
	}
	p.cache = newPresenceCache(cfg.MaxCache)
	p.own.rooms = make(map[message.Room]*ownRoom)
	p.inbox.presenceMail = newPresenceMail()
	p.nodes.init()
	p.feed = newSubscriptions(p)
	return p, nil
}

// Run implements presence.Store. A Presence runs once. It fails if Redis refuses the password or the rights.
func (p *Presence) Run(ctx context.Context, sink presence.Sink, ready func()) error {
	if p.ran.Swap(true) {
		return errors.New("redis: a Presence runs only once")
	}
	defer func() {
		if c := p.conn.Load(); c != nil {
			c.close()
		}
	}()
	first, err := p.pulse(ctx)
	if err != nil {
		return err
	}
	ready()
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return p.heart(run, first) })
	g.Go(func() error { p.flusher(run); return nil })
	g.Go(func() error { p.feed.run(run, p.dialled); return nil })
	reads := make(chan []*followed)
	g.Go(func() error { p.reader(run, reads); return nil })
	g.Go(func() error { p.loop(run, sink, reads); return nil })
	if err := g.Wait(); err != nil {
		return err
	}
	if p.left.Load() {
		p.goodbye(context.WithoutCancel(ctx))
	}
	return nil
}

// heart keeps the lease and looks at the others'.
func (p *Presence) heart(ctx context.Context, rest time.Duration) error {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-p.hurry:
		}
		rest, err := p.pulse(ctx)
		if err != nil {
			return err
		}
		p.reap(ctx)
		timer.Reset(rest)
	}
}

// pulse is one beat. It returns when the next is due, or an error that time cannot cure.
func (p *Presence) pulse(ctx context.Context) (time.Duration, error) {
	const again = 200 * time.Millisecond // a Redis that is away is looked for that often
	c := p.conn.Load()
	if c == nil {
		var err error
		if c, err = p.dial(); err != nil {
			err = fromServer(err)
			if refused(err) {
				return 0, fmt.Errorf("redis refuses this node: %w", err)
			}
			p.unreachable(ctx, err)
			return again, nil
		}
		p.conn.Store(c)
		close(p.dialled)
	}
	p.beating.Store(true)
	defer p.beating.Store(false)
	cut := p.cut.Swap(false)
	call, cancel := context.WithTimeout(ctx, 2*p.opts.CallTimeout)
	defer cancel()
	b, err := p.lease.beat(call, c.command)
	if err != nil {
		if cut {
			p.cut.Store(true)
		}
		p.unreachable(ctx, err)
		return again, nil
	}
	return p.learn(b, cut), nil
}

// dial makes the connections. A server that refuses tracking is read without it.
func (p *Presence) dial() (*presenceConn, error) {
	command, err := rueidis.NewClient(p.opts.command(p.doubtAll))
	if err != nil {
		return nil, err
	}
	subscription, err := rueidis.NewClient(p.opts.subscription())
	if err != nil {
		command.Close()
		return nil, err
	}
	o := p.opts.command(nil)
	o.DisableCache, o.CacheSizeEachConn, o.OnInvalidations = false, 64<<20, p.invalidated
	cached, err := rueidis.NewClient(o)
	if errors.Is(err, rueidis.ErrNoCache) {
		p.log.Warn("redis does not tell of changes to what was read: it is asked each time", "error", err)
		p.cache.untracked.Store(true)
		o.DisableCache, o.OnInvalidations = true, nil
		cached, err = rueidis.NewClient(o)
	}
	if err != nil {
		command.Close()
		subscription.Close()
		return nil, err
	}
	return &presenceConn{command, subscription, cached}, nil
}

// invalidated is called by a connection's reader.
func (p *Presence) invalidated(keys []rueidis.RedisMessage) {
	p.cache.invalidate(keys)
	if keys == nil {
		p.doubtAll()
	}
}

// doubtAll notes that Redis may not be the one it was: at the other end of a new connection there may be another.
func (p *Presence) doubtAll() {
	p.cut.Store(true)
	signal(p.hurry)
}

// Stale implements presence.Store.
func (p *Presence) Stale() bool {
	p.nodes.mu.Lock()
	defer p.nodes.mu.Unlock()
	return p.nodes.away
}

// Leave implements presence.Store.
func (p *Presence) Leave() {
	p.left.Store(true)
	signal(p.flush)
}

// presenceCounters count what must not happen silently.
type presenceCounters struct {
	junk, dropped, outages atomic.Uint64

	mu   sync.Mutex
	told time.Time
}

// PresenceStats is what has happened so far.
type PresenceStats struct {
	Junk    uint64 // keys, fields and frames that are not ours in form; they were ignored
	Dropped uint64 // frames that came faster than they were taken; their rooms were read anew
	Outages uint64 // how often Redis was away
}

// Stats may be called at any time.
func (p *Presence) Stats() PresenceStats {
	return PresenceStats{p.stats.junk.Load(), p.stats.dropped.Load(), p.stats.outages.Load()}
}

// junk counts what is not ours in form, and logs it now and then.
func (p *Presence) junk(what string, err error) {
	n := p.stats.junk.Add(1)
	p.stats.mu.Lock()
	quiet := time.Since(p.stats.told) < 10*time.Second
	if !quiet {
		p.stats.told = time.Now()
	}
	p.stats.mu.Unlock()
	if !quiet {
		p.log.Warn("something in redis is not what this service writes, it is ignored", "what", what, "error", err, "so_far", n)
	}
}
