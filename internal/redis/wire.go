package redis

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
)

//go:embed publish.lua
var publishLua string

//go:embed delete.lua
var deleteLua string

//go:embed beat.lua
var beatLua string

//go:embed revoke.lua
var revokeLua string

var (
	publishScript = rueidis.NewLuaScript(publishLua)
	deleteScript  = rueidis.NewLuaScript(deleteLua)
	beatScript    = rueidis.NewLuaScript(beatLua)
	revokeScript  = rueidis.NewLuaScript(revokeLua)
)

// maxInFlight bounds what waits for answers on the command connection: the library's own ring blocks without a deadline
// when it is full.
const maxInFlight = 768

// wire sends commands. Each call has a deadline of its own.
type wire struct {
	client atomic.Pointer[rueidis.Client] // nil until it was dialled for the first time
	keys   keys
	verb   string // PUBLISH, or SPUBLISH in a cluster
	slots  chan struct{}
	call   time.Duration
	reads  time.Duration
}

// errNotDialled: Redis was never reached.
var errNotDialled = errors.New("redis was not reached yet")

// do runs f with a deadline and a place among those in flight.
func (w *wire) do(ctx context.Context, limit time.Duration, f func(context.Context, rueidis.Client)) error {
	client := w.client.Load()
	if client == nil {
		return errNotDialled
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.slots }()
	f(ctx, *client)
	return nil
}

// script runs a script whose reply is a list of texts.
func (w *wire) script(ctx context.Context, s *rueidis.Lua, keys, args []string) (reply []string, err error) {
	if full := w.do(ctx, w.call, func(ctx context.Context, c rueidis.Client) {
		reply, err = s.Exec(ctx, c, keys, args).AsStrSlice()
	}); full != nil {
		return nil, full
	}
	return reply, err
}

// run runs a script whose reply does not matter.
func (w *wire) run(ctx context.Context, s *rueidis.Lua, keys, args []string) (err error) {
	if full := w.do(ctx, w.call, func(ctx context.Context, c rueidis.Client) { err = s.Exec(ctx, c, keys, args).Error() }); full != nil {
		return full
	}
	return err
}

// publish publishes on a channel that is no room's.
func (w *wire) publish(ctx context.Context, ch, text string) (err error) {
	if full := w.do(ctx, w.call, func(ctx context.Context, c rueidis.Client) {
		err = c.Do(ctx, c.B().Publish().Channel(ch).Message(text).Build()).Error()
	}); full != nil {
		return full
	}
	return err
}

// tipCut is where a room ends, and up to where it was deleted.
type tipCut struct{ tip, cut message.Position }

// tips reads those of some channels' rooms.
func (w *wire) tips(ctx context.Context, channels []string) (tips []tipCut, err error) {
	keys := make([]string, 0, 2*len(channels))
	for _, ch := range channels {
		keys = append(keys, w.keys.cut(ch), w.keys.tip(ch))
	}
	var values []string
	if full := w.do(ctx, w.reads, func(ctx context.Context, c rueidis.Client) {
		values, err = c.Do(ctx, c.B().Mget().Key(keys...).Build()).AsStrSlice()
	}); full != nil {
		return nil, full
	}
	if err != nil {
		return nil, err
	}
	if len(values) != len(keys) {
		return nil, errJunk
	}
	for i := range channels {
		cut, _ := parseStreamID(values[2*i])
		tip, _ := parseStreamID(values[2*i+1])
		tips = append(tips, tipCut{tip: tip, cut: cut})
	}
	return tips, nil
}

// entry is a stored message in its place; m is nil if it is not understood.
type entry struct {
	at, prev message.Position
	m        *message.Message
	size     int
}

// history is a part of a room's stream.
type history struct {
	tipCut
	length  int64
	entries []entry
	more    bool // as many came as were asked for
}

// read reads up to count entries behind from, or before it; from is not among them. What is deleted or published
// meanwhile shows as the entries' prev.
func (w *wire) read(ctx context.Context, room message.Room, ch string, from, oldest message.Position, backward bool, count int) (h history, err error) {
	first := "-"
	if oldest != 0 {
		first = streamID(oldest)
	}
	if !backward && from >= oldest && from != 0 {
		first = "(" + streamID(from)
	}
	var rs []rueidis.RedisResult
	if full := w.do(ctx, w.reads, func(ctx context.Context, c rueidis.Client) {
		b := c.B
		var list rueidis.Completed
		if backward {
			last := "+"
			if from != 0 {
				last = "(" + streamID(from)
			}
			list = b().Xrevrange().Key(w.keys.stream(ch)).End(last).Start(first).Count(int64(count)).Build()
		} else {
			list = b().Xrange().Key(w.keys.stream(ch)).Start(first).End("+").Count(int64(count)).Build()
		}
		rs = c.DoMulti(ctx, b().Get().Key(w.keys.cut(ch)).Build(), b().Get().Key(w.keys.tip(ch)).Build(),
			b().Xlen().Key(w.keys.stream(ch)).Build(), list)
	}); full != nil {
		return h, full
	}
	for i, to := range []*message.Position{&h.cut, &h.tip} {
		s, err := rs[i].ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return h, err
		}
		*to, _ = parseStreamID(s)
	}
	if h.length, err = rs[2].AsInt64(); err != nil {
		return h, err
	}
	es, err := rs[3].AsXRange()
	if err != nil {
		return h, err
	}
	h.more = len(es) == count
	h.entries = make([]entry, 0, len(es))
	for _, e := range es {
		if e, ok := readEntry(e, room); ok {
			h.entries = append(h.entries, e)
		}
	}
	return h, nil
}

// readEntry reads an entry of a stream; false: another program put it there.
func readEntry(e rueidis.XRangeEntry, room message.Room) (entry, bool) {
	at, ok := parseStreamID(e.ID)
	prev, ok2 := parseStreamID(e.FieldValues["p"])
	env := e.FieldValues["d"]
	if !ok || !ok2 || env == "" {
		return entry{}, false
	}
	it, err := parseEnv(env, room)
	if err != nil {
		it.m = nil
	}
	return entry{at: at, prev: prev, m: it.m, size: len(env)}, true
}

// fault is what a failed call means for the next.
type fault uint8

const (
	notExecuted fault = iota // try again
	unknown                  // it may have been executed
	hopeless                 // the next one fails the same way
)

// judge tells what an error of a script means.
func judge(err error) fault {
	if e, ok := rueidis.IsRedisErr(err); ok {
		switch text := e.Error(); {
		case strings.HasPrefix(text, "WRONGTYPE"):
			return hopeless
		case strings.HasPrefix(text, "NOPERM"):
			return unknown // the publication comes after the writes
		default:
			return notExecuted
		}
	}
	var op *net.OpError
	if errors.Is(err, errNotDialled) || errors.As(err, &op) && op.Op == "dial" {
		return notExecuted
	}
	return unknown
}

// refused tells an error that no dialling again cures.
func refused(err error) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && (strings.HasPrefix(e.Error(), "WRONGPASS") || strings.HasPrefix(e.Error(), "NOAUTH") ||
		strings.HasPrefix(e.Error(), "NOPERM") || strings.HasPrefix(e.Error(), "ERR AUTH"))
}

func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
