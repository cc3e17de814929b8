package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

const (
	maxPresenceFrames = 8192    // that wait for the loop; of rooms whose frames do not fit in all is read anew
	maxPresenceBytes  = 8 << 20 // of them
	maxQueued         = 4096    // fields of a room that wait for its roster
	readRooms         = 32      // rosters read at once

	// A room whose subscription is not confirmed so soon gets what is known, as with a Redis that is away.
	confirmPatience = 2 * time.Second
)

// presenceInbox is what waits for the loop.
type presenceInbox struct {
	mu sync.Mutex
	presenceMail
}

type presenceMail struct {
	wishes map[message.Room]wish
	frames []presenceFrame
	bytes  int
	live   map[string]bool // channels whose subscription was confirmed
	missed map[string]bool // channels of which frames were dropped
	read   []rosterRead
}

type presenceFrame struct{ channel, payload string }

// wish is what was last said about a room. anew: in between it was not followed.
type wish struct{ follow, anew bool }

func newPresenceMail() presenceMail {
	return presenceMail{wishes: make(map[message.Room]wish), live: make(map[string]bool), missed: make(map[string]bool)}
}

// Follow implements presence.Store.
func (p *Presence) Follow(room message.Room) {
	b := &p.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	w, ok := b.wishes[room]
	b.wishes[room] = wish{follow: true, anew: ok && (!w.follow || w.anew)}
	signal(p.news)
}

// Unfollow implements presence.Store.
func (p *Presence) Unfollow(room message.Room) {
	b := &p.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wishes[room] = wish{}
	signal(p.news)
}

// subscribed notes that from now on all frames of the channel come.
func (p *Presence) subscribed(channel string) {
	b := &p.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	b.live[channel] = true
	signal(p.news)
}

// changes notes what a presence frame has brought. It never waits: what is too much is dropped, and its room read anew.
func (p *Presence) changes(channel, payload string) {
	b := &p.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frames) >= maxPresenceFrames || b.bytes+len(payload) > maxPresenceBytes {
		b.missed[channel] = true
		p.stats.dropped.Add(1)
	} else {
		b.frames = append(b.frames, presenceFrame{channel, payload})
		b.bytes += len(payload)
	}
	signal(p.news)
}

func (b *presenceInbox) post(reads []rosterRead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read = append(b.read, reads...)
}

// take takes all that waits.
func (b *presenceInbox) take() presenceMail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.presenceMail
	b.presenceMail = newPresenceMail()
	return m
}

// followed is a room that is followed. The loop owns it, but for room, channel and key.
type followed struct {
	room         message.Room
	channel, key string
	since        time.Time
	known        bool             // the Sink has a roster of it
	reading      bool             // one is being read
	anew         bool             // and is to be read again afterwards
	queue        []presence.Field // what has changed while it is read
}

// rosterRead is what reading a room's roster has brought.
type rosterRead struct {
	room   *followed
	fields []presence.Field
	doubt  bool // Redis has not this node's lease, so it may have lost more
	err    error
}

// follower is the loop's own state.
type follower struct {
	p     *Presence
	sink  presence.Sink
	rooms map[string]*followed // by channel
	bare  map[*followed]bool   // without a roster yet
	due   map[*followed]bool   // to be read
	busy  bool                 // the reader is
}

// loop is the one goroutine that calls the Sink.
func (p *Presence) loop(ctx context.Context, sink presence.Sink, reads chan<- []*followed) {
	f := &follower{p: p, sink: sink, rooms: make(map[string]*followed), bare: make(map[*followed]bool), due: make(map[*followed]bool)}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.news:
		}
		f.turn()
		if batch := f.nextReads(); len(batch) > 0 {
			select {
			case <-ctx.Done():
				return
			case reads <- batch: // the reader is idle
			}
		}
	}
}

// turn takes all that has come.
func (f *follower) turn() {
	in := f.p.inbox.take()
	gone, again, thawed := f.p.nodes.take()
	for room, w := range in.wishes {
		if !w.follow || w.anew {
			f.unfollow(room)
		}
		if w.follow {
			f.follow(room)
		}
	}
	for ch := range in.live {
		f.wants(f.rooms[ch])
	}
	for ch := range in.missed {
		f.wants(f.rooms[ch])
	}
	for _, fr := range in.frames {
		f.frame(fr)
	}
	for _, r := range in.read {
		f.busy = false
		f.roster(r)
	}
	for _, inc := range gone {
		f.sink.Gone(inc)
	}
	if thawed {
		for _, r := range f.rooms {
			f.wants(r)
		}
	}
	if again {
		f.p.own.again()
		signal(f.p.flush)
		f.sink.Again()
	}
	f.comfort()
}

// take takes what is to be told.
func (n *liveNodes) take() (gone []string, again, thawed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone, again, thawed = n.gone, n.again, n.thawed
	n.gone, n.again, n.thawed = nil, false, false
	return gone, again, thawed
}

func (f *follower) follow(room message.Room) {
	ch := f.p.keys.channel(room)
	if f.rooms[ch] != nil {
		return
	}
	r := &followed{room: room, channel: ch, key: f.p.keys.fields(ch), since: time.Now()}
	if _, ofUser := room.User(); ofUser {
		r.key = f.p.keys.users(ch)
	}
	f.rooms[ch] = r
	f.bare[r] = true
	f.p.bus.place(ch).want(ch, byPresence)
}

func (f *follower) unfollow(room message.Room) {
	ch := f.p.keys.channel(room)
	r := f.rooms[ch]
	if r == nil {
		return
	}
	delete(f.rooms, ch)
	delete(f.bare, r)
	delete(f.due, r)
	f.p.bus.place(ch).leave(ch, byPresence)
}

// wants has the room's roster be read.
func (f *follower) wants(r *followed) {
	switch {
	case r == nil:
	case r.reading:
		r.anew = true
	default:
		f.due[r] = true
	}
}

// frame takes what has changed. While the room is read it waits: what it says may be in what is read, or newer.
func (f *follower) frame(fr presenceFrame) {
	r := f.rooms[fr.channel]
	if r == nil {
		return
	}
	fields, inc, ok := parseChanges(fr.payload)
	if user, ofUser := r.room.User(); ok && ofUser {
		for _, c := range fields {
			ok = ok && c.User == user
		}
	}
	switch {
	case !ok:
		f.p.junk("a frame of presence", nil)
		return
	case inc == f.p.inc || len(fields) == 0:
		return
	}
	f.p.nodes.hear(inc)
	switch {
	case r.known && !r.reading:
		f.sink.Changed(r.room, fields)
	case len(r.queue)+len(fields) > maxQueued:
		r.queue = nil
		f.p.stats.dropped.Add(1)
		r.anew = r.reading
	default:
		r.queue = append(r.queue, fields...)
	}
}

// roster takes what was read.
func (f *follower) roster(read rosterRead) {
	r := read.room
	r.reading = false
	if f.rooms[r.channel] != r {
		return
	}
	// What a beat that is under way will tell may put what was read in doubt.
	doubt := read.doubt || f.p.beating.Load()
	if read.doubt {
		signal(f.p.bus.hurry)
	}
	if read.err != nil || r.anew || doubt && r.known {
		f.due[r] = true
	}
	r.anew = false
	if read.err != nil {
		if r.known {
			f.unqueue(r)
		}
		return
	}
	n := 0
	for _, c := range read.fields {
		if f.p.nodes.isLive(c.Node) {
			read.fields[n] = c
			n++
		}
	}
	f.tell(r, read.fields[:n], doubt)
}

// tell tells the Sink of a room. While others may still have to put anew what Redis has lost it only adds.
func (f *follower) tell(r *followed, fields []presence.Field, doubt bool) {
	switch {
	case !r.known || !doubt && !f.p.nodes.isFrozen():
		f.sink.Roster(r.room, fields)
	case len(fields) > 0:
		f.sink.Changed(r.room, fields)
	}
	r.known = true
	delete(f.bare, r)
	f.unqueue(r)
}

// unqueue tells what has changed while the room was read.
func (f *follower) unqueue(r *followed) {
	if len(r.queue) > 0 {
		f.sink.Changed(r.room, r.queue)
		r.queue = nil
	}
}

// comfort gives rooms that nothing can be read of what is known, which is nothing: they are waited for.
func (f *follower) comfort() {
	away := f.p.Stale()
	for r := range f.bare {
		if away || f.p.bus.isPartAway(r.channel) || !f.due[r] && !r.reading && time.Since(r.since) > confirmPatience {
			f.tell(r, nil, true)
		}
	}
}

// nextReads are the rooms to read now.
func (f *follower) nextReads() []*followed {
	if f.busy || len(f.due) == 0 || f.p.Stale() {
		return nil
	}
	var batch []*followed
	for r := range f.due {
		if f.p.bus.isPartAway(r.channel) {
			continue // it is read when that is back
		}
		delete(f.due, r)
		r.reading = true
		if batch = append(batch, r); len(batch) == readRooms {
			break
		}
	}
	f.busy = len(batch) > 0
	return batch
}

// reader reads rosters for the loop, a batch at a time.
func (p *Presence) reader(ctx context.Context, batches <-chan []*followed) {
	const again = 100 * time.Millisecond // behind a batch that failed
	for {
		var batch []*followed
		select {
		case <-ctx.Done():
			return
		case batch = <-batches:
		}
		reads, err := p.readRosters(ctx, batch)
		if err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(again):
			}
		}
		p.inbox.post(reads)
		signal(p.news)
	}
}

// readRosters reads rosters, and returns one of the errors that are in them.
func (p *Presence) readRosters(ctx context.Context, batch []*followed) (reads []rosterRead, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.ReadTimeout)
	defer cancel()
	c := p.conn.Load().cached // large replies must not delay what is put
	inc := p.inc
	cmds := make([]rueidis.Completed, 0, len(batch)+1)
	cmds = append(cmds, c.B().Zmscore().Key(p.keys.shared("nodes")).Member(inc, inc+draining).Build())
	for _, r := range batch {
		cmds = append(cmds, c.B().Hgetall().Key(r.key).Build())
	}
	replies := c.DoMulti(ctx, cmds...)
	doubt := true
	if scores, err := replies[0].ToArray(); err == nil {
		for _, s := range scores {
			doubt = doubt && s.IsNil()
		}
	}
	reads = make([]rosterRead, len(batch))
	nodes := make(map[string]bool)
	for i, r := range batch {
		fields, failed := p.decode(r.room, replies[i+1])
		reads[i] = rosterRead{room: r, fields: fields, doubt: doubt, err: failed}
		for _, f := range fields {
			nodes[f.Node] = true
		}
	}
	alive, asked := p.alive(ctx, nodes)
	for i := range reads {
		r := &reads[i]
		if r.err == nil {
			r.err = asked
		}
		if r.err != nil {
			err = r.err
			continue
		}
		p.noteGarbage(r.room.room, r.room.key, r.fields, alive)
	}
	return reads, err
}
