package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

const (
	historyPage = 128 // entries read at once
	listPage    = 1000
	// listedFor is how long a room in which nothing is published stays in the list of rooms with history, at least.
	listedFor = 30 * 24 * time.Hour
)

// history is History.
func (b *Broker) history(ctx context.Context, q message.Query) (message.Page, error) {
	if err := b.usable(ctx); err != nil {
		return message.Page{}, err
	}
	ch, keep := b.keys.channel(q.Room), b.retention(q.Room)
	var page message.Page
	from, size, length := q.From, 0, int64(0)
	for first := true; ; first = false {
		count := historyPage
		if q.Limit > 0 {
			count = min(count, q.Limit-len(page.Entries)+1) // one more tells whether there is more
		}
		h, err := b.readPage(ctx, q.Room, ch, from, q.Backward, count)
		if err != nil {
			return message.Page{}, b.failed(ctx, "history", err)
		}
		if first {
			page.Tip, page.Cut = h.tip, h.cut
			length = h.length
		}
		if keep.Messages < 0 {
			break
		}
		for _, e := range h.entries {
			from = e.at
			if e.m == nil || e.at <= h.cut {
				continue
			}
			if len(page.Entries) > 0 && (q.Bytes > 0 && size+e.size > q.Bytes || len(page.Entries) == q.Limit) {
				page.More, h.more = true, false
				break
			}
			size += e.size
			e.m.ID.Position = e.at
			page.Entries = append(page.Entries, message.Entry{Message: e.m, Prev: e.prev})
		}
		if !h.more || len(h.entries) == 0 {
			break
		}
	}
	page.Since = b.since(ctx, ch, keep)
	if q.Backward && keep.Messages >= 0 {
		slices.Reverse(page.Entries)
		before := q.From - min(q.From, 1)
		if len(page.Entries) > 0 {
			before = page.Entries[0].Prev
		}
		page.Lost = !page.More && length < int64(keep.Messages) && before > max(page.Cut, b.oldest(q.Room))
	}
	if n := len(page.Entries); n > 0 { // it may be newer than the tip that was read before it
		page.Tip = max(page.Tip, page.Entries[n-1].Message.ID.Position)
	}
	return page, nil
}

// since is from where on the bus vouches for a room's history that was read before. If another server may have answered than
// the one that gave the last sign, it is asked since when its data exists; if it does not tell, nothing is vouched for.
func (b *Broker) since(ctx context.Context, ch string, keep broker.Retention) message.Position {
	born := message.Position(b.born.Load())
	if b.doubts.Load() != b.sure.Load() {
		var err error
		if born, err = b.lease.born(ctx); err != nil || born == 0 {
			return b.Now()
		}
	}
	since := max(born, message.At(b.clock.millis(), 0).Before(tipTTL(keep)))
	if r := b.find(ch); r != nil {
		since = max(since, r.lostAt())
	}
	return min(since, b.Now()) // which lags behind Redis' clock by some milliseconds
}

// readPage reads from the stream; if the connection breaks meanwhile, once more.
func (b *Broker) readPage(ctx context.Context, name message.Room, ch string, from message.Position, backward bool, count int) (history, error) {
	h, err := b.wire.read(ctx, name, ch, from, b.oldest(name), backward, count)
	if _, ok := answered(err); err == nil || ok || ctx.Err() != nil {
		return h, err
	}
	return b.wire.read(ctx, name, ch, from, b.oldest(name), backward, count)
}

// list writes rooms into the list of those with history, and forgets those whose history has ended.
func (b *Broker) list(ctx context.Context, rooms map[message.Room]struct{}) error {
	now := b.clock.millis()
	ended := now - max(listedFor, b.cfg.Retention.Age).Milliseconds()
	return b.wire.query(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		cmds := make(rueidis.Commands, 0, len(rooms)+1)
		for name := range rooms {
			cmds = append(cmds, c.B().Zadd().Key(b.keys.history()).ScoreMember().ScoreMember(float64(now), string(name)).Build())
		}
		cmds = append(cmds, c.B().Zremrangebyscore().Key(b.keys.history()).Min("-inf").Max("("+strconv.FormatInt(ended, 10)).Build())
		for _, r := range c.DoMulti(ctx, cmds...) {
			if e := r.Error(); e != nil {
				err = e
			}
		}
		return err
	})
}

// Rooms implements broker.Broker. What other nodes have published in the last second in rooms without history may not be
// listed yet.
func (b *Broker) Rooms(ctx context.Context, prefix string, after message.Room, limit int) ([]message.Room, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	if err := b.touched.flush(ctx, b); err != nil {
		return nil, b.failed(ctx, "rooms", err)
	}
	var rooms []message.Room
	for len(rooms) < limit {
		some, more, err := b.listed(ctx, prefix, after, limit)
		if err != nil {
			return nil, b.failed(ctx, "rooms", err)
		}
		kept, err := b.withHistory(ctx, some)
		if err != nil {
			return nil, b.failed(ctx, "rooms", err)
		}
		rooms = append(rooms, kept...)
		if !more || len(some) == 0 {
			break
		}
		after = some[len(some)-1]
	}
	return rooms[:min(len(rooms), limit)], nil
}

// listed reads the first n names of the list that begin with prefix and lie behind after.
func (b *Broker) listed(ctx context.Context, prefix string, after message.Room, n int) (names []message.Room, more bool, err error) {
	for cursor := uint64(0); ; {
		var page rueidis.ScanEntry
		if err := b.wire.query(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
			cmd := c.B().Zscan().Key(b.keys.history()).Cursor(cursor).Match(globEscape(prefix) + "*").Count(listPage).Build()
			page, err = c.Do(ctx, cmd).AsScanEntry()
			return err
		}); err != nil {
			return nil, false, err
		}
		for i := 0; i < len(page.Elements); i += 2 { // names and scores
			name, err := message.ParseRoom(page.Elements[i])
			if err == nil && name > after && strings.HasPrefix(string(name), prefix) {
				names = append(names, name)
			}
		}
		if len(names) > 2*n+listPage || page.Cursor == 0 {
			slices.Sort(names)
			names = slices.Compact(names)
			if len(names) > n {
				names, more = names[:n], true
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return names, more, nil
		}
	}
}

// withHistory leaves those of the rooms that have a kept entry.
func (b *Broker) withHistory(ctx context.Context, names []message.Room) (kept []message.Room, err error) {
	for some := range slices.Chunk(names, tipBatch) {
		var rs []rueidis.RedisResult
		if err := b.wire.query(ctx, func(ctx context.Context, c rueidis.Client) error {
			cmds := make(rueidis.Commands, 0, len(some))
			for _, name := range some {
				cmds = append(cmds, c.B().Xrevrange().Key(b.keys.stream(b.keys.channel(name))).End("+").Start(streamID(b.oldest(name))).Count(1).Build())
			}
			rs = c.DoMulti(ctx, cmds...)
			return nil
		}); err != nil {
			return nil, err
		}
		for i, r := range rs {
			es, err := r.ToArray()
			if _, wrong := rueidis.IsRedisErr(err); err != nil && !wrong {
				return nil, err
			}
			if len(es) > 0 && b.retention(some[i]).Messages > 0 {
				kept = append(kept, some[i])
			}
		}
	}
	return kept, nil
}

// globEscape writes a text as a pattern that matches it alone.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}
