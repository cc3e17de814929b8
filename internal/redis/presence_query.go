package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// Count implements presence.Store.
func (p *Presence) Count(ctx context.Context, rooms []message.Room) ([]presence.Totals, error) {
	sums := make([]presence.Totals, len(rooms))
	cmds := make([]string, len(rooms))
	for i, room := range rooms {
		cmds[i] = p.keys.totals(p.keys.channel(room))
	}
	replies, err := p.query(ctx, func(c rueidis.Client) []rueidis.CacheableTTL {
		var asked []rueidis.CacheableTTL
		for _, key := range cmds {
			asked = append(asked, rueidis.CT(c.B().Hgetall().Key(key).Cache().ToStaticTTL(), cachedFor))
		}
		return asked
	})
	if err != nil || replies == nil {
		return sums, err
	}
	of := make([]map[string]presence.Totals, len(rooms))
	nodes := make(map[string]bool)
	for i, reply := range replies {
		if of[i], err = p.totals(reply); err != nil {
			return nil, fmt.Errorf("totals of room %q: %w", rooms[i], err)
		}
		for inc := range of[i] {
			nodes[inc] = true
		}
	}
	alive, err := p.aliveOrKnown(ctx, nodes)
	if err != nil {
		return nil, fmt.Errorf("totals: %w", err)
	}
	for i, totals := range of {
		for inc, t := range totals {
			if alive[inc] {
				sums[i].Online += t.Online
				sums[i].Away += t.Away
				sums[i].Sessions += t.Sessions
			} else {
				p.waste.add(cmds[i], inc, inc)
			}
		}
	}
	return sums, nil
}

// Users implements presence.Store.
func (p *Presence) Users(ctx context.Context, users []string) ([]presence.Seen, error) {
	seen := make([]presence.Seen, len(users))
	replies, err := p.query(ctx, func(c rueidis.Client) []rueidis.CacheableTTL {
		asked := make([]rueidis.CacheableTTL, 0, 2*len(users))
		for _, u := range users {
			ch := p.keys.channel(message.UserRoom(u))
			asked = append(asked,
				rueidis.CT(c.B().Hgetall().Key(p.keys.users(ch)).Cache().ToStaticTTL(), cachedFor),
				rueidis.CT(c.B().Get().Key(p.keys.seen(ch)).Cache().ToStaticTTL(), cachedFor))
		}
		return asked
	})
	if err != nil || replies == nil {
		return seen, err
	}
	fields := make([][]presence.Field, len(users))
	nodes := make(map[string]bool)
	for i, u := range users {
		if fields[i], err = p.decode(message.UserRoom(u), replies[2*i]); err != nil {
			return nil, fmt.Errorf("nodes of a user: %w", err)
		}
		if seen[i].Last, err = p.lastSeen(replies[2*i+1]); err != nil {
			return nil, fmt.Errorf("when a user was last seen: %w", err)
		}
		for _, f := range fields[i] {
			nodes[f.Node] = true
		}
	}
	alive, err := p.aliveOrKnown(ctx, nodes)
	if err != nil {
		return nil, fmt.Errorf("nodes of users: %w", err)
	}
	for i, u := range users {
		room := message.UserRoom(u)
		p.noteGarbage(room, p.keys.users(p.keys.channel(room)), fields[i], alive)
		for _, f := range fields[i] {
			if alive[f.Node] {
				seen[i].State = seen[i].With(f.State)
			}
		}
	}
	return seen, nil
}

func (p *Presence) lastSeen(reply rueidis.RedisResult) (int64, error) {
	v, err := reply.ToString()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	if err != nil {
		return 0, p.isJunk(err)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		p.junk("when a user was last seen", nil)
		return 0, nil
	}
	return n, nil
}

// Rooms implements presence.Store.
func (p *Presence) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limit <= 0 || p.Stale() {
		return nil, nil
	}
	from, to := "["+prefix, "("+prefix+"\xff" // no name has that byte
	if string(after) >= prefix {
		from = "(" + string(after)
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	c := p.conn.Load().cached
	var cmds []rueidis.Completed
	for _, inc := range p.nodes.all() {
		cmds = append(cmds, c.B().Zrangebylex().Key(p.keys.roomsOf(inc)).Min(from).Max(to).Limit(0, int64(limit)).Build())
	}
	var rooms []message.Room
	for _, reply := range c.DoMulti(ctx, cmds...) {
		names, err := reply.AsStrSlice()
		if err = p.isJunk(err); err != nil {
			if p.Stale() && ctx.Err() == nil {
				return nil, nil
			}
			return nil, fmt.Errorf("rooms of a node: %w", err)
		}
		for _, name := range names {
			if room, err := message.ParseRoom(name); err == nil {
				rooms = append(rooms, room)
			} else {
				p.junk("the name of a room", nil)
			}
		}
	}
	slices.Sort(rooms)
	rooms = slices.Compact(rooms)
	return rooms[:min(limit, len(rooms))], nil
}

// all are the nodes that live, but for this one.
func (n *liveNodes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	incs := make([]string, 0, len(n.live))
	for inc := range n.live {
		incs = append(incs, inc)
	}
	return incs
}

// query asks through the cache of the library. With Redis away there is no reply and no error.
func (p *Presence) query(ctx context.Context, asked func(rueidis.Client) []rueidis.CacheableTTL) ([]rueidis.RedisResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := p.conn.Load()
	if c == nil || p.Stale() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	cmds := asked(c.cached)
	if len(cmds) == 0 {
		return nil, nil
	}
	return c.cached.DoMultiCache(ctx, cmds...), nil
}
