package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/message"
)

const (
	reconcileRooms = 64   // compared at once
	reconcilePage  = 1000 // entries read at once
	restoresAtOnce = 4    // scripts: each holds Redis up for some milliseconds
	restoreSuffix  = 500  // entries behind the oldest lost one that a script rewrites at most
	barrierFor     = 300 * time.Millisecond
	kickPause      = 500 * time.Millisecond
)

// barrier holds publications back while what was lost is put in its place, so that little comes behind it; but never for
// longer than barrierFor.
type barrier struct {
	mu sync.Mutex
	up map[<-chan struct{}]slots // where it is up, by what is closed when it is let down
}

// raise returns what lets it down.
func (g *barrier) raise(ctx context.Context, of slots) (lower func()) {
	ctx, cancel := context.WithTimeout(ctx, barrierFor)
	down := ctx.Done()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.up[down] = of
	return func() {
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.up, down)
	}
}

func (g *barrier) wait(ch string) {
	var downs []<-chan struct{}
	g.mu.Lock()
	for down, of := range g.up {
		if of.has(slotOf(ch)) {
			downs = append(downs, down)
		}
	}
	g.mu.Unlock()
	for _, down := range downs {
		<-down
	}
}

// kick says that Redis may have lost something: the journal is compared with it soon. It never waits.
func (b *Broker) kick() { signal(b.kicked) }

// reconcile puts back what a part of Redis has lost of the journal; false: it was not reached. Only watch calls it.
func (b *Broker) reconcile(ctx context.Context, p part) bool {
	names := slices.DeleteFunc(b.journal.names(), func(name message.Room) bool { return !p.slots.has(slotOf(b.keys.channel(name))) })
	if len(names) == 0 {
		return true
	}
	if gone := b.lacks(); p.slots.without(&gone) != (slots{}) { // else nobody publishes
		defer b.barrier.raise(ctx, p.slots)()
	}
	turns := make(chan struct{}, restoresAtOnce)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(reconcileRooms)
	for _, name := range names {
		g.Go(func() error {
			if err := b.reconcileRoom(ctx, name, turns); err != nil {
				return fmt.Errorf("room %q: %w", name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.refused.warn(b.log, "what was stored lately could not be compared with redis yet", "error", err)
		return false
	}
	return true
}

// reconcileRoom puts back what was lost of one room, oldest first. What cannot have its place any more goes to the outbox.
func (b *Broker) reconcileRoom(ctx context.Context, name message.Room, turns chan struct{}) error {
	lost, err := b.missingOf(ctx, name)
	for err == nil && len(lost) > 0 {
		n, size := 0, 0
		for n < len(lost) && n < batchMessages && (n == 0 || size+len(lost[n].env) <= batchBytes) {
			size += len(lost[n].env)
			n++
		}
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		err = b.restore(ctx, name, lost[:n])
		<-turns
		lost = lost[n:]
	}
	if err != nil && judge(err) == hopeless {
		b.log.Error("what was lost of a room cannot be put back: a key of it holds something else", "room", string(name), "error", err)
		b.journal.forget(name, func(*written) bool { return true })
		return nil
	}
	return err
}

// missingOf are those entries of the journal that a room's stream should have and has not. The stream is read and compared
// here: that costs Redis a fraction of what a script would that is sent all of them.
func (b *Broker) missingOf(ctx context.Context, name message.Room) ([]*written, error) {
	ws := b.journal.of(name)
	if len(ws) == 0 {
		return nil, nil
	}
	ch, keep := b.keys.channel(name), b.retention(name)
	stored := make(map[message.Low]struct{}, len(ws))
	var h history
	for from, more := ws[0].pos-1, true; more; {
		var err error
		if h, err = b.wire.read(ctx, name, ch, from, 0, false, reconcilePage); err != nil {
			return nil, err
		}
		for _, e := range h.entries {
			if from = e.at; e.m != nil {
				stored[e.m.ID.Low] = struct{}{}
			}
		}
		more = h.more && len(h.entries) > 0
	}
	b.journal.cut(name, h.cut)
	oldest := max(b.oldest(name), h.cut.Next())
	lost := ws[:0]
	for _, w := range ws {
		if _, ok := stored[w.identity()]; !ok && w.pos >= oldest {
			lost = append(lost, w)
		}
	}
	if len(lost) > 0 && h.length >= int64(keep.Messages) { // what lies before the first one was trimmed
		first, err := b.firstOf(ctx, name, ch)
		if err != nil {
			return nil, err
		}
		for len(lost) > 0 && lost[0].pos < first {
			lost = lost[1:]
		}
	}
	return lost[max(0, len(lost)-keep.Messages):], nil
}

// firstOf is the position of a stream's first entry; 0: it has none that is ours.
func (b *Broker) firstOf(ctx context.Context, name message.Room, ch string) (message.Position, error) {
	h, err := b.wire.read(ctx, name, ch, 0, 0, false, 1)
	if err != nil || len(h.entries) == 0 {
		return 0, err
	}
	return h.entries[0].at, nil
}

// restore puts entries back.
func (b *Broker) restore(ctx context.Context, name message.Room, lost []*written) error {
	ch, keep := b.keys.channel(name), b.retention(name)
	args := []string{ch, b.wire.verb(), seconds(keep.Age + streamSpare), seconds(tipTTL(keep)), strconv.Itoa(restoreSuffix)}
	for _, w := range lost {
		args = append(args, streamID(w.pos), streamID(w.prev), w.env)
	}
	reply, err := b.wire.script(ctx, ScriptRestore, []string{b.keys.stream(ch), b.keys.tip(ch), b.keys.cut(ch)}, args)
	if err != nil {
		return err
	}
	if len(reply) == 0 {
		return errJunk
	}
	if reply[0] == "-1" {
		return b.storeAnew(name, lost)
	}
	n, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return errJunk
	}
	b.restored.Add(n)
	var anew []*written
	for _, s := range reply[1:] {
		i, err := strconv.Atoi(s)
		if err != nil || i < 0 || i >= len(lost) {
			return errJunk
		}
		anew = append(anew, lost[i])
	}
	return b.storeAnew(name, anew)
}

// storeAnew gives the outbox what cannot be put back in its place: it is stored at the room's end, with the position it had
// as the one it was shown at.
func (b *Broker) storeAnew(name message.Room, ws []*written) error {
	var ps []*parked
	for _, w := range ws {
		it, err := parseEnv(w.env, name)
		if err != nil {
			return fmt.Errorf("an envelope of our own: %w", err)
		}
		if it.original == 0 {
			it.original = w.pos
		}
		it.m.ID.Position = it.original
		ps = append(ps, &parked{since: time.Now(), job: job{m: it.m, env: string(appendEnv(nil, it.m, it.original))}, floor: w.pos - 1})
	}
	b.journal.forget(name, func(w *written) bool { return slices.Contains(ws, w) })
	b.outbox.put(name, ps)
	return nil
}
