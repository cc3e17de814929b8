package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	Grace time.Duration // how long what a node has written stands after Leave; default 8 s

	TTL      time.Duration // of what is written; it is refreshed at a third of that. Default 1 h
	SeenFor  time.Duration // how long it is known when a user was last seen; default 7 days
	Refetch  time.Duration // what was read is served for so long without asking whether it has changed; default 250 ms
	MaxRoom  int           // a room with more users is read in pages and not kept; default 5,000
	MaxCache int           // users kept of what was read; default 200,000
}

func (c *PresenceConfig) setDefaults() {
	c.Grace = cmp.Or(c.Grace, 8*time.Second)
	c.TTL = cmp.Or(c.TTL, time.Hour)
	c.SeenFor = cmp.Or(c.SeenFor, 7*24*time.Hour)
	c.Refetch = cmp.Or(c.Refetch, 250*time.Millisecond)
	c.MaxRoom = cmp.Or(c.MaxRoom, 5000)
	c.MaxCache = cmp.Or(c.MaxCache, 200_000)
}

func (c *PresenceConfig) check() error {
	if c.TTL < 3*time.Second {
		return fmt.Errorf("redis: a TTL of %v is too short, it must be at least 3 s", c.TTL)
	}
	return nil
}

// Presence is the presence.Store over Redis. Each node writes what it has as absolute values under its lease; so nobody has
// to clean up behind a node that dies, and Redis may lose everything.
//
// A Redis that is away is no error: what was known stays, nobody is taken for dead, and what is put meanwhile is kept,
// the last of each user. When it is back all nodes get a whole lease to come back before the live ones are counted again.
//
// It stands under the lease of its node's Broker, and its changes come over that one's subscriptions: so it works as long as
// the Broker runs, and gives the lease up by itself if it ends later.
type Presence struct {
	bus   *Broker
	opts  Options
	cfg   PresenceConfig
	keys  keys
	log   *slog.Logger
	inc   string // the node's name in all it writes
	cache *presenceCache
	ran   atomic.Bool
	conn  atomic.Pointer[presenceConn] // nil before Redis has first answered
	cut   atomic.Bool                  // a connection was lost, or Redis emptied: what was written may be
	left  atomic.Bool

	// What Redis has may turn out to be new: a beat is under way.
	beating atomic.Bool

	beaten chan struct{} // a beat has brought something, or failed
	news   chan struct{} // the loop has something to do
	flush  chan struct{} // the flusher has something to do

	stats presenceCounters
	own   ownRooms
	inbox presenceInbox

	writing sync.RWMutex // held while what was put is written
	nodes   liveNodes
	waste   garbage
}

var _ presence.Store = (*Presence)(nil)

// presenceConn are the connections to Redis: for what is written, which comes in lots, and for what is cached, whose large
// replies must not delay anything else.
type presenceConn struct{ command, cached rueidis.Client }

func (c *presenceConn) close() {
	c.command.Close()
	c.cached.Close()
}

// NewPresence makes the Store of a Broker's node. It dials nothing before Run, and a Broker has one at most: made before
// that one runs.
func NewPresence(b *Broker, cfg PresenceConfig) (*Presence, error) {
	cfg.setDefaults()
	opts := b.cfg.Options
	if err := errors.Join(b.cfg.check(), opts.check(), cfg.check()); err != nil {
		return nil, err
	}
	p := &Presence{
		bus: b, opts: opts, cfg: cfg, keys: b.keys, log: opts.Logger.With("component", "presence"), inc: b.inc,
		beaten: make(chan struct{}, 1), news: make(chan struct{}, 1), flush: make(chan struct{}, 1),
	}
	p.cache = newPresenceCache(cfg.MaxCache)
	p.own.rooms = make(map[message.Room]*ownRoom)
	p.inbox.presenceMail = newPresenceMail()
	p.nodes.init()
	b.presence = p
	return p, nil
}

// Run implements presence.Store. A Presence runs once, while its Broker does. It fails if Redis refuses the password or the
// rights.
func (p *Presence) Run(ctx context.Context, sink presence.Sink, ready func()) error {
	if p.ran.Swap(true) {
		return errors.New("redis: a Presence runs only once")
	}
	p.bus.hold()
	defer p.bus.release(context.WithoutCancel(ctx))
	defer func() {
		if c := p.conn.Load(); c != nil {
			c.close()
		}
	}()
	if err := p.connect(ctx); err != nil {
		return err
	}
	select {
	case <-p.beaten:
	case <-ctx.Done():
		return nil
	}
	ready()
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return p.keepConnecting(run) })
	g.Go(func() error { p.reaper(run); return nil })
	g.Go(func() error { p.flusher(run); return nil })
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

// connect makes the connections, and has the node give a sign of life that they know of. An error is one that time cannot
// cure.
func (p *Presence) connect(ctx context.Context) error {
	c, err := p.dial()
	err = fromServer(err)
	switch {
	case refused(err):
		return fmt.Errorf("redis refuses this node: %w", err)
	case err != nil:
		p.unreachable(ctx, err)
		signal(p.beaten)
		return nil
	}
	p.conn.Store(c)
	select {
	case <-p.beaten: // of one before
	default:
	}
	signal(p.bus.hurry)
	return nil
}

// keepConnecting connects, if that did not work at first, until it does.
func (p *Presence) keepConnecting(ctx context.Context) error {
	for p.conn.Load() == nil {
		if !pause(ctx, beatAgain) {
			return nil
		}
		if err := p.connect(ctx); err != nil {
			return err
		}
	}
	return nil
}

// beats is called before a beat. It tells whether Redis may have lost something since the last one.
func (p *Presence) beats() (cut bool) {
	p.beating.Store(true)
	return p.cut.Swap(false)
}

// missed is called after a beat that failed.
func (p *Presence) missed(ctx context.Context, cut bool, err error) {
	p.beating.Store(false)
	if cut {
		p.cut.Store(true)
	}
	p.unreachable(ctx, err)
	signal(p.beaten)
}

// dial makes the connections. A server that refuses tracking is read without it.
func (p *Presence) dial() (*presenceConn, error) {
	dials := newRedials(p.doubtAll)
	command, err := rueidis.NewClient(p.opts.command(dials))
	if err != nil {
		return nil, err
	}
	dials.opened(command)
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
		return nil, err
	}
	return &presenceConn{command, cached}, nil
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
	signal(p.bus.hurry)
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
	hits, misses, stale    atomic.Uint64 // of what was asked for of rooms

	mu   sync.Mutex
	told time.Time
}

// PresenceStats is what has happened so far.
type PresenceStats struct {
	Junk    uint64 // keys, fields and frames that are not ours in form; they were ignored
	Dropped uint64 // frames that came faster than they were taken; their rooms were read anew
	Outages uint64 // how often Redis was away

	// Rooms that were asked for: known already; read from Redis; served as they were last known, since Redis is away.
	Hits, Misses, Stale uint64
}

// Stats may be called at any time.
func (p *Presence) Stats() PresenceStats {
	s := &p.stats
	return PresenceStats{
		Junk: s.junk.Load(), Dropped: s.dropped.Load(), Outages: s.outages.Load(),
		Hits: s.hits.Load(), Misses: s.misses.Load(), Stale: s.stale.Load(),
	}
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
