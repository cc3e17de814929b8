package redis

import (
	"cmp"
	"context"
	_ "embed" // the scripts
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

var (
	//go:embed presence.lua
	presenceLua string
	//go:embed presence_user.lua
	presenceUserLua string

	presenceScript     = newPipedScript(presenceLua)
	presenceUserScript = newPipedScript(presenceUserLua)

	errPresenceAway = errors.New("redis is away")
)

const (
	// A node calls at most so many scripts a round, and with more to write begins one each 100 ms: 5,000 a second.
	roundScripts = 500
	roundBytes   = 2 << 20
	roundEvery   = 100 * time.Millisecond
	// A script carries at most so much of a room: it blocks Redis, and so does its frame all who get it.
	presenceScriptChanges = 200
	presenceScriptBytes   = 48 << 10

	// Of users who came and went while Redis is away it is remembered when they were last seen, but not of more.
	maxUnwrittenSeen = 100_000

	// So long it is remembered who was gone, and of so many: a replica that takes over may not know it yet.
	buriedFor = 15 * time.Second
	maxBuried = 100_000
)

// ownRooms is what this node has to say.
type ownRooms struct {
	mu    sync.Mutex
	rooms map[message.Room]*ownRoom
	queue []*ownRoom // with something to write
	touch []string   // users' channels whose keys are to live on
	dead  []buried   // in the order in which it was written that they are gone
}

// buried is a user who was gone.
type buried struct {
	at    time.Time
	room  message.Room
	user  string
	state presence.State
}

// ownRoom is what this node has in a room.
type ownRoom struct {
	name   message.Room
	totals presence.Totals
	wait   map[string]presence.State // not written yet, the last of each user
	there  map[string]struct{}       // users that Redis has, or may have
	queued bool
	listed bool // Redis has it among the node's rooms
}

// Put implements presence.Store.
func (p *Presence) Put(room message.Room, changes []presence.Field, own presence.Totals) {
	if p.left.Load() {
		return
	}
	o := &p.own
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.room(room)
	r.totals = own
	for _, c := range changes {
		_, there := r.there[c.User]
		if c.Status != presence.Offline || there || room == message.Global && len(r.wait) < maxUnwrittenSeen {
			r.wait[c.User] = c.State
		} else {
			delete(r.wait, c.User) // nobody has heard of him
		}
	}
	o.enqueue(r)
	signal(p.flush)
}

func (o *ownRooms) room(name message.Room) *ownRoom {
	r := o.rooms[name]
	if r == nil {
		r = &ownRoom{name: name, wait: make(map[string]presence.State), there: make(map[string]struct{})}
		o.rooms[name] = r
	}
	return r
}

func (o *ownRooms) enqueue(r *ownRoom) {
	if !r.queued {
		r.queued = true
		o.queue = append(o.queue, r)
	}
}

// bury remembers who it was written of that he is gone.
func (o *ownRooms) bury(w presenceWrite) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for _, c := range w.changes {
		if c.Status == presence.Offline {
			o.dead = append(o.dead, buried{now, w.room.name, c.User, c.State})
		}
	}
	old := max(0, len(o.dead)-maxBuried)
	for old < len(o.dead) && now.Sub(o.dead[old].at) > buriedFor {
		old++
	}
	o.dead = o.dead[old:]
}

// again prepares for all to be put anew: who was gone of late and has not come back is gone again, and rooms are listed
// with their next write.
func (o *ownRooms) again() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.rooms {
		r.listed = false
	}
	for _, d := range o.dead {
		r := o.room(d.room)
		_, there := r.there[d.user]
		if _, newer := r.wait[d.user]; !newer && !there && time.Since(d.at) < buriedFor {
			r.wait[d.user] = d.state
			o.enqueue(r)
		}
	}
	o.dead = nil
}

// refresh has all that Redis has of this node live on.
func (o *ownRooms) refresh(k keys) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.rooms {
		r.listed = false
		o.enqueue(r)
	}
	o.touch = o.touch[:0]
	if r := o.rooms[message.Global]; r != nil {
		for u := range r.there {
			o.touch = append(o.touch, k.channel(message.UserRoom(u)))
		}
	}
}

// presenceWrite is what one script does, of one room.
type presenceWrite struct {
	room    *ownRoom
	changes []presence.Field
	totals  presence.Totals
	list    bool // tell Redis whether the room is among the node's
	cmds    int  // how many of the round's commands are its
}

// take takes a round's work.
func (o *ownRooms) take() (writes []presenceWrite, touch []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(roundScripts, len(o.touch))
	touch, o.touch = o.touch[:n:n], o.touch[n:]
	for n, bytes := 0, 0; n < roundScripts && bytes < roundBytes && len(o.queue) > 0; n++ {
		r := o.queue[0]
		o.queue = o.queue[1:]
		w := presenceWrite{room: r, totals: r.totals}
		size := 0
		for u, s := range r.wait {
			w.changes = append(w.changes, presence.Field{User: u, State: s})
			delete(r.wait, u)
			if s.Status == presence.Offline {
				delete(r.there, u)
			} else {
				r.there[u] = struct{}{}
			}
			if size += len(u) + len(s.Info) + 64; size > presenceScriptBytes || len(w.changes) == presenceScriptChanges {
				break
			}
		}
		bytes += size
		if r.name == message.Global {
			n += len(w.changes) // each user has a script of his own
		}
		w.list = r.name.Ordinary() && (r.totals.Users() == 0 || !r.listed)
		r.listed = r.totals.Users() > 0
		r.queued = false
		if len(r.wait) > 0 {
			o.enqueue(r)
		} else if len(r.there) == 0 && r.totals == (presence.Totals{}) {
			delete(o.rooms, r.name)
		}
		writes = append(writes, w)
	}
	return writes, touch
}

// restore takes back what was not written, or may not have been.
func (o *ownRooms) restore(w presenceWrite) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.rooms[w.room.name]
	if r == nil {
		r = w.room
		o.rooms[r.name] = r
	}
	for _, c := range w.changes {
		if _, newer := r.wait[c.User]; !newer {
			r.wait[c.User] = c.State
		}
		r.there[c.User] = struct{}{}
	}
	r.listed = r.listed && !w.list
	o.enqueue(r)
}

// waits tells whether something of a user is to be written.
func (o *ownRooms) waits(user string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.rooms[message.Global]
	if r == nil {
		return false
	}
	_, ok := r.wait[user]
	return ok
}

func (o *ownRooms) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) == 0 && len(o.touch) == 0
}

// flusher writes what is put, as long as Redis answers.
func (p *Presence) flusher(ctx context.Context) {
	refresh := time.NewTicker(p.cfg.TTL / 3)
	defer refresh.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.flush:
		case <-refresh.C:
			p.own.refresh(p.keys)
		}
		for ctx.Err() == nil && !p.Stale() {
			began := time.Now()
			more, err := p.round(ctx)
			if err == nil && !more {
				if p.left.Load() {
					p.goodbye(context.WithoutCancel(ctx)) // it has a deadline of its own
				}
				break
			}
			pause.Reset(max(0, roundEvery-time.Since(began)))
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
		}
	}
}

// goodbye writes what is left to write, and then gives the lease up.
func (p *Presence) goodbye(ctx context.Context) {
	if c := p.conn.Load(); p.bus.lease.over() || c == nil || p.Stale() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	for !p.own.idle() {
		if _, err := p.round(ctx); err != nil {
			p.log.Warn("what was last put may not be known to other nodes", "error", err)
			return
		}
	}
	if err := p.bus.lease.end(ctx, p.cfg.Grace); err != nil {
		p.log.Warn("this node's users leave with its lease instead of after the grace", "error", err)
	}
}

// round writes a part of what waits; more tells whether it was as much as a round may write.
func (p *Presence) round(ctx context.Context) (more bool, err error) {
	c := p.conn.Load()
	if c == nil {
		return false, errPresenceAway
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	writes, touch := p.own.take()
	if len(writes) == 0 && len(touch) == 0 {
		return false, nil
	}
	writes, late := p.postpone(writes)
	if late {
		defer func() { err = cmp.Or(err, errPresenceAway) }()
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	inc, ttl := p.inc, seconds(p.cfg.TTL)
	var calls []pipedCall
	for i := range writes {
		from := len(calls)
		calls = p.render(calls, &writes[i], inc, ttl)
		writes[i].cmds = len(calls) - from
	}
	rooms := p.keys.roomsOf(inc)
	calls = append(calls, pipedCall{cmd: []string{"EXPIRE", rooms, ttl}})
	for _, ch := range touch {
		calls = append(calls, pipedCall{cmd: []string{"EXPIRE", p.keys.users(ch), ttl}})
	}
	errs := runPiped(ctx, c.command, calls)
	for _, w := range writes {
		p.own.bury(w)
		for _, e := range errs[:w.cmds] {
			switch code := errorCode(e); {
			case e == nil:
				continue
			case code == "WRONGTYPE":
				p.junk("a key of presence has another type", e)
				continue
			case code != "":
				p.junk("redis refuses what presence writes, it is tried again", e)
			}
			p.own.restore(w)
			err = e
			break
		}
		errs = errs[w.cmds:]
	}
	return len(writes)+len(touch) > 0 && !p.own.idle(), err
}

// postpone takes back what lies in parts of a cluster that are away, so that nothing waits for them.
func (p *Presence) postpone(writes []presenceWrite) (now []presenceWrite, late bool) {
	for _, w := range writes {
		var wait []presence.Field
		switch room := w.room.name; {
		case p.bus.isPartAway(p.keys.channel(room)):
			p.own.restore(w)
			late = true
			continue
		case room == message.Global:
			all := w.changes
			w.changes = nil
			for _, c := range all {
				if p.bus.isPartAway(p.keys.channel(message.UserRoom(c.User))) {
					wait = append(wait, c)
				} else {
					w.changes = append(w.changes, c)
				}
			}
		}
		if len(wait) > 0 {
			p.own.restore(presenceWrite{room: w.room, changes: wait})
			late = true
		}
		now = append(now, w)
	}
	return now, late
}

// render appends what writes a write: the room, each user of the room where everyone is, and the list of the node's rooms.
func (p *Presence) render(calls []pipedCall, w *presenceWrite, inc, ttl string) []pipedCall {
	room := w.room.name
	ch := p.keys.channel(room)
	args := make([]string, 7, 7+2*len(w.changes))
	args[0], args[2], args[3], args[4] = ch, inc, ttl, formatTotals(w.totals)
	if len(w.changes) > 0 && room != message.Global { // nobody follows that: who wants to know of a user follows his room
		args[1], args[5] = p.bus.wire.verb(), presenceFrameOf(inc, w.changes)
	}
	gone := 0
	for _, c := range w.changes {
		if c.Status == presence.Offline {
			args = append(args, fieldName(inc, c.User))
			gone++
		}
	}
	args[6] = strconv.Itoa(gone)
	for i := range w.changes {
		if c := &w.changes[i]; c.Status != presence.Offline {
			args = append(args, fieldName(inc, c.User), string(appendState(nil, &c.State)))
		}
	}
	calls = append(calls, pipedCall{script: presenceScript, keys: []string{p.keys.fields(ch), p.keys.totals(ch), p.keys.tip(ch)}, args: args})
	if room == message.Global {
		for i := range w.changes {
			calls = append(calls, p.renderUser(&w.changes[i], inc, ttl))
		}
	}
	if w.list {
		rooms := p.keys.roomsOf(inc)
		if w.totals.Users() > 0 {
			calls = append(calls, pipedCall{cmd: []string{"ZADD", rooms, "0", string(room)}})
		} else {
			calls = append(calls, pipedCall{cmd: []string{"ZREM", rooms, string(room)}})
		}
	}
	return calls
}

func (p *Presence) renderUser(f *presence.Field, inc, ttl string) pipedCall {
	ch := p.keys.channel(message.UserRoom(f.User))
	value := ""
	if f.Status != presence.Offline {
		value = string(appendState(nil, &f.State))
	}
	return pipedCall{
		script: presenceUserScript,
		keys:   []string{p.keys.users(ch), p.keys.seen(ch), p.keys.tip(ch)},
		args: []string{
			ch, p.bus.wire.verb(), inc, ttl, value, strconv.FormatInt(f.Active, 10), seconds(p.cfg.SeenFor),
			presenceFrameOf(inc, []presence.Field{*f}),
		},
	}
}

// The keys of presence, by a room's channel.
func (k keys) fields(ch string) string { return string(k) + "rt:p:{" + ch + "}" }
func (k keys) totals(ch string) string { return string(k) + "rt:pc:{" + ch + "}" }
func (k keys) users(ch string) string  { return string(k) + "rt:u:{" + ch + "}" }
func (k keys) seen(ch string) string   { return string(k) + "rt:seen:{" + ch + "}" }

// roomsOf is the key of the list of rooms with users of a node.
func (k keys) roomsOf(inc string) string { return string(k) + "rt:rooms:" + inc }

// errorCode is the first word of Redis' own error, "" for all others.
func errorCode(err error) string {
	e, ok := rueidis.IsRedisErr(err)
	if !ok || e.IsNil() {
		return ""
	}
	code, _, _ := strings.Cut(e.Error(), " ")
	return code
}
