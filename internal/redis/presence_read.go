package redis

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// cachedFor is how long the client library keeps a reply that nothing is told against.
const cachedFor = 30 * time.Second

// presenceCache keeps rooms that were read, decoded: doing that again costs more than reading. A room is fresh as long as
// Redis has not told of a change to its key; what was being read meanwhile is old at once, never wrong for long.
type presenceCache struct {
	untracked atomic.Bool // Redis tells of no changes
	seed      maphash.Seed
	changes   [256]atomic.Uint64 // of keys, by their hash

	mu    sync.Mutex
	rooms *lru.Cache[string, *cachedRoom]
	users int // in all rooms
	most  int
}

// cachedRoom is a room as it was read. turn holds one: who has it may read the room and set the rest.
type cachedRoom struct {
	turn    chan struct{}
	fields  []presence.Field // of all nodes but this one, also of dead ones
	at      time.Time        // when reading began; zero: never
	changes uint64           // as counted then
	paged   bool             // not tracked
	counted int              // users, as the cache counts them
}

func newPresenceCache(most int) *presenceCache {
	c := &presenceCache{seed: maphash.MakeSeed(), most: most}
	const rooms = 10_000
	c.rooms, _ = lru.NewWithEvict(rooms, func(_ string, r *cachedRoom) { c.users -= r.counted }) // it refuses sizes below 1 only
	return c
}

func (c *presenceCache) changesOf(key string) *atomic.Uint64 {
	return &c.changes[maphash.String(c.seed, key)%uint64(len(c.changes))]
}

// invalidate notes that keys have changed; nil: all may have.
func (c *presenceCache) invalidate(keys []rueidis.RedisMessage) {
	if keys == nil {
		for i := range c.changes {
			c.changes[i].Add(1)
		}
	}
	for i := range keys {
		if key, err := keys[i].ToString(); err == nil {
			c.changesOf(key).Add(1)
		}
	}
}

func (c *presenceCache) room(key string) *cachedRoom {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.rooms.Get(key)
	if !ok {
		r = &cachedRoom{turn: make(chan struct{}, 1)}
		c.rooms.Add(key, r)
	}
	return r
}

// count notes how many users a room has, and drops the rooms that were not asked for for the longest time.
func (c *presenceCache) count(key string, r *cachedRoom) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.rooms.Peek(key); !ok || now != r {
		return
	}
	c.users += len(r.fields) - r.counted
	r.counted = len(r.fields)
	for c.users > c.most && c.rooms.Len() > 1 {
		c.rooms.RemoveOldest()
	}
}

// Read implements presence.Store. What it returns is as old as Refetch and a round trip at most.
func (p *Presence) Read(ctx context.Context, room message.Room) ([]presence.Field, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ch := p.keys.channel(room)
	key := p.keys.fields(ch)
	r := p.cache.room(key)
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-r.turn }()
	if err := p.refetch(ctx, room, ch, key, r); err != nil {
		return nil, fmt.Errorf("presence of room %q: %w", room, err)
	}
	nodes := make(map[string]bool)
	for i := range r.fields {
		nodes[r.fields[i].Node] = true
	}
	alive, err := p.aliveOrKnown(ctx, nodes)
	if err != nil {
		return nil, fmt.Errorf("presence of room %q: %w", room, err)
	}
	p.noteGarbage(room, key, r.fields, alive)
	fields := make([]presence.Field, 0, len(r.fields))
	for _, f := range r.fields {
		if alive[f.Node] {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

// refetch makes the room what it is now, if that is not known. With Redis away it stays what it was.
func (p *Presence) refetch(ctx context.Context, room message.Room, ch, key string, r *cachedRoom) error {
	now, changes := time.Now(), p.cache.changesOf(key).Load()
	if age := now.Sub(r.at); !r.at.IsZero() && (age < p.cfg.Refetch || age < cachedFor && r.changes == changes && !r.paged) {
		p.stats.hits.Add(1)
		return nil
	}
	if p.Stale() || p.bus.isAway(ch) {
		p.stats.stale.Add(1)
		return nil
	}
	p.stats.misses.Add(1)
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	fields, paged, err := p.fetch(ctx, room, ch, key)
	if err != nil {
		if (p.Stale() || p.bus.isAway(ch)) && ctx.Err() == nil {
			return nil
		}
		return err
	}
	r.fields, r.at, r.changes, r.paged = fields, now, changes, paged || p.cache.untracked.Load()
	p.cache.count(key, r)
	return nil
}

// fetch reads the room, whole if its totals say that it is not large.
func (p *Presence) fetch(ctx context.Context, room message.Room, ch, key string) (fields []presence.Field, paged bool, err error) {
	c := p.conn.Load().cached
	users := 0
	all, err := p.totals(c.DoCache(ctx, c.B().Hgetall().Key(p.keys.totals(ch)).Cache().ToStaticTTL(), cachedFor))
	if err != nil {
		return nil, false, err
	}
	for _, t := range all {
		users += t.Users()
	}
	if users <= p.cfg.MaxRoom {
		fields, err = p.decode(room, c.DoCache(ctx, c.B().Hgetall().Key(key).Cache().ToStaticTTL(), cachedFor))
		return fields, false, err
	}
	const page = 1000
	seen := make(map[string]bool) // a page may repeat another's
	for cursor := uint64(0); ; {
		e, err := c.Do(ctx, c.B().Hscan().Key(key).Cursor(cursor).Count(page).Build()).AsScanEntry()
		if err != nil {
			return nil, true, err
		}
		for i := 0; i+1 < len(e.Elements); i += 2 {
			if name := e.Elements[i]; !seen[name] {
				seen[name] = true
				fields = p.decodeField(fields, name, e.Elements[i+1])
			}
		}
		if cursor = e.Cursor; cursor == 0 {
			return fields, true, nil
		}
	}
}

// decode are the fields of a reply to HGETALL, of all nodes but this one. A key of another type has none.
func (p *Presence) decode(room message.Room, reply rueidis.RedisResult) ([]presence.Field, error) {
	values, err := reply.AsStrMap()
	if err != nil {
		return nil, p.isJunk(err)
	}
	user, ofUser := room.User()
	fields := make([]presence.Field, 0, len(values))
	for name, value := range values {
		if ofUser {
			name = fieldName(name, user)
		}
		fields = p.decodeField(fields, name, value)
	}
	return fields, nil
}

func (p *Presence) decodeField(fields []presence.Field, name, value string) []presence.Field {
	inc, user, ok := parseField(name)
	if ok && inc == p.inc {
		return fields
	}
	state, sane := parseState(value)
	if !ok || !sane {
		p.junk("a field of presence", nil)
		return fields
	}
	return append(fields, presence.Field{Node: inc, User: user, State: state})
}

// totals are the totals of a reply to HGETALL, by node, without this one.
func (p *Presence) totals(reply rueidis.RedisResult) (map[string]presence.Totals, error) {
	values, err := reply.AsStrMap()
	if err != nil {
		return nil, p.isJunk(err)
	}
	totals := make(map[string]presence.Totals, len(values))
	for inc, value := range values {
		if inc == p.inc {
			continue
		}
		t, ok := parseTotals(value)
		if !ok {
			p.junk("totals of presence", nil)
			continue
		}
		totals[inc] = t
	}
	return totals, nil
}

// isJunk returns nil for a key of another type, which counts as none.
func (p *Presence) isJunk(err error) error {
	if errorCode(err) == "WRONGTYPE" {
		p.junk("a key of presence has another type", err)
		return nil
	}
	return err
}

// noteGarbage remembers the fields of dead nodes for the reaper.
func (p *Presence) noteGarbage(room message.Room, key string, fields []presence.Field, alive map[string]bool) {
	if alive == nil {
		return
	}
	_, ofUser := room.User()
	for i := range fields {
		f := &fields[i]
		switch {
		case alive[f.Node]:
		case ofUser:
			p.waste.add(key, f.Node, f.Node)
		default:
			p.waste.add(key, fieldName(f.Node, f.User), f.Node)
		}
	}
}

// aliveOrKnown is alive, or with Redis away the nodes that were last known to live.
func (p *Presence) aliveOrKnown(ctx context.Context, nodes map[string]bool) (map[string]bool, error) {
	alive, err := p.alive(ctx, nodes)
	if err == nil || ctx.Err() != nil || !p.Stale() {
		return alive, err
	}
	alive = make(map[string]bool)
	for inc := range nodes {
		alive[inc] = p.nodes.isLive(inc)
	}
	return alive, nil
}
