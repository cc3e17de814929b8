package redis

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/message"
)

// wire asks the Port. Each call has a deadline of its own.
type wire struct {
	port       Port
	unanswered func()      // called when a call was not answered: perhaps another server will answer the next
	opened     atomic.Bool // Redis was reached for the first time
	keys       keys
	call       time.Duration
	reads      time.Duration
}

// open dials, if that was not done yet.
func (w *wire) open(ctx context.Context, redialled func()) error {
	if w.opened.Load() {
		return nil
	}
	if err := w.port.Open(ctx, redialled); err != nil {
		return err
	}
	w.opened.Store(true)
	return nil
}

func (w *wire) close() {
	w.opened.Store(false)
	w.port.Close()
}

// do runs f with a deadline.
func (w *wire) do(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	if !w.opened.Load() {
		return errNotDialled
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(ctx)
	if _, ok := answered(err); err != nil && !ok {
		w.unanswered()
	}
	return err
}

// script runs a script whose reply is a list of texts.
func (w *wire) script(ctx context.Context, s Script, keys, args []string) (reply []string, err error) {
	err = w.do(ctx, w.call, func(ctx context.Context) (err error) {
		reply, err = w.port.Script(ctx, s, keys, args)
		return err
	})
	return reply, err
}

// run runs a script whose reply does not matter.
func (w *wire) run(ctx context.Context, s Script, keys, args []string) error {
	_, err := w.script(ctx, s, keys, args)
	return err
}

// publish publishes on a channel that is no room's.
func (w *wire) publish(ctx context.Context, ch, text string) error {
	return w.do(ctx, w.call, func(ctx context.Context) error { return w.port.Publish(ctx, ch, text) })
}

// listen opens a connection for subscriptions.
func (w *wire) listen(ctx context.Context, on Events) (l Listener, err error) {
	err = w.do(ctx, w.reads, func(ctx context.Context) (err error) {
		l, err = w.port.Listen(ctx, on)
		return err
	})
	return l, err
}

// queries tells whether query does anything.
func (w *wire) queries() bool {
	_, ok := w.port.(*server)
	return ok
}

// query asks what is not about order and so no part of Port: only a real server answers.
func (w *wire) query(ctx context.Context, f func(context.Context, rueidis.Client) error) error {
	s, ok := w.port.(*server)
	if !ok {
		return broker.ErrUnavailable
	}
	return w.do(ctx, w.reads, func(ctx context.Context) error {
		return s.do(ctx, "", func(c rueidis.Client) error { return f(ctx, c) })
	})
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
	if err := w.do(ctx, w.reads, func(ctx context.Context) (err error) {
		values, err = w.port.Values(ctx, keys)
		return err
	}); err != nil {
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
	r := StreamRange{Stream: w.keys.stream(ch), Tip: w.keys.tip(ch), Cut: w.keys.cut(ch), From: "-", To: "+", Backward: backward, Count: count}
	if oldest != 0 {
		r.From = streamID(oldest)
	}
	switch {
	case from == 0:
	case backward:
		r.To = "(" + streamID(from)
	case from >= oldest:
		r.From = "(" + streamID(from)
	}
	var part StreamPart
	if err := w.do(ctx, w.reads, func(ctx context.Context) (err error) {
		part, err = w.port.Range(ctx, r)
		return err
	}); err != nil {
		return h, err
	}
	h.tip, _ = parseStreamID(part.Tip)
	h.cut, _ = parseStreamID(part.Cut)
	h.length, h.more = part.Length, len(part.Entries) == count
	h.entries = make([]entry, 0, len(part.Entries))
	for _, e := range part.Entries {
		if e, ok := readEntry(e, room); ok {
			h.entries = append(h.entries, e)
		}
	}
	return h, nil
}

// readEntry reads an entry of a stream; false: another program put it there.
func readEntry(e StreamEntry, room message.Room) (entry, bool) {
	at, ok := parseStreamID(e.ID)
	prev, ok2 := parseStreamID(e.Prev)
	if !ok || !ok2 || e.Env == "" {
		return entry{}, false
	}
	it, err := parseEnv(e.Env, room)
	if err != nil {
		it.m = nil
	}
	return entry{at: at, prev: prev, m: it.m, size: len(e.Env)}, true
}

func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
