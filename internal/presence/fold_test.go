package presence_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

// known is what somebody who is told of a user knows of him.
type known struct {
	Status presence.Status
	Since  int64
	Info   string
}

func knownOf(r *presence.Roster) map[string]known {
	users := make(map[string]known)
	for _, u := range r.Users {
		users[u.ID] = known{u.Status, u.Since, string(u.Info)}
	}
	return users
}

// told is a member that adds up what it is told of a room.
type told struct {
	t      *testing.T
	mu     sync.Mutex
	log    []presence.Update // since the last page
	users  map[string]known  // nil: not known, a page must be asked for
	counts *presence.Totals  // in counts mode
}

// take takes what was emitted.
func (f *told) take(u presence.Update) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case u.Mode == presence.Counts:
		if len(u.Changes) > 0 {
			f.t.Errorf("changes in counts mode: %+v", u)
		}
		f.users, f.counts = nil, &u.Totals
	case len(u.Changes) == 0:
		if f.counts == nil {
			f.t.Error("told to be back at events, but was there")
		}
		f.users, f.counts = nil, nil
	default:
		if f.counts != nil {
			f.t.Error("changes, but no word that the mode is events again")
		}
		if f.users != nil {
			apply(f.users, u)
		}
	}
	f.log = append(f.log, u)
}

func apply(users map[string]known, u presence.Update) {
	for _, c := range u.Changes {
		if c.Status == presence.Offline {
			delete(users, c.User)
		} else {
			users[c.User] = known{c.Status, c.Since, string(c.Info)}
		}
	}
}

// begin is before who is asked.
func (f *told) begin() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

// page is the answer: what came meanwhile is newer.
func (f *told) page(before int, r *presence.Roster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts != nil {
		return
	}
	f.users = knownOf(r)
	for _, u := range f.log[before:] {
		apply(f.users, u)
	}
	f.log = nil
}

// asks tells whether who has to be asked.
func (f *told) asks() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.users == nil && f.counts == nil
}

func (f *told) check(where string, mode presence.Mode, r *presence.Roster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil != (mode == presence.Events) {
		f.t.Errorf("%s: told another mode than %v", where, mode)
	}
	if n := len(r.Users); n > 4 && mode == presence.Events || n < 3 && mode == presence.Counts {
		f.t.Errorf("%s: mode %v with %d users", where, mode, n)
	}
	if f.counts != nil {
		if *f.counts != r.Totals {
			f.t.Errorf("%s: told counts %v, there are %v", where, *f.counts, r.Totals)
		}
		return
	}
	if diff := cmp.Diff(knownOf(r), f.users); diff != "" {
		f.t.Errorf("%s: is so (-), was told (+):\n%s", where, diff)
	}
}

// watcher adds up what a Watch brings, and checks that each event fits what it knows.
type watcher struct {
	t      *testing.T
	p      *presence.Presence
	target presence.Target
	run    sync.WaitGroup
	stop   context.CancelFunc

	mu    sync.Mutex    // guards what follows
	gate  chan struct{} // not nil: the watcher does not read until it is closed
	token string
	users map[message.Room]map[string]known
	whole bool
}

func (m *model) watch(node int, target presence.Target) *watcher {
	w := &watcher{t: m.t, p: m.nodes[node].Presence, target: target}
	w.begin()
	return w
}

func (w *watcher) begin() {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.stop = cancel
	watch := w.p.Watch(w.target, w.token)
	if w.token == "" {
		w.whole = false
	}
	w.run.Go(func() {
		defer watch.Close()
		for {
			w.mu.Lock()
			gate := w.gate
			w.mu.Unlock()
			if gate != nil {
				<-gate
			}
			events, err := watch.Next(ctx)
			if errors.Is(err, context.Canceled) {
				return
			}
			if err != nil {
				w.t.Errorf("Next: %v", err)
				return
			}
			w.mu.Lock()
			for _, e := range events {
				w.take(e)
			}
			w.mu.Unlock()
		}
	})
}

func (w *watcher) take(e presence.Event) {
	w.token = e.Token
	if e.Kind == presence.Snapshot {
		if e.First {
			w.users, w.whole = make(map[message.Room]map[string]known), false
		} else if w.whole || w.users == nil {
			w.t.Errorf("a part of a snapshot that is not the first: %+v", e)
		}
		for _, u := range e.Users {
			w.in(e.Room)[u.ID] = known{u.Status, u.Since, string(u.Info)}
		}
		w.whole = e.Last
		return
	}
	if !w.whole {
		w.t.Errorf("a change before the snapshot: %+v", e)
		return
	}
	u := e.Users[0]
	_, there := w.in(e.Room)[u.ID]
	if there == (e.Kind == presence.Joined) {
		w.t.Errorf("event of kind %d for %s in %q, who was known: %v", e.Kind, u.ID, e.Room, there)
	}
	if e.Kind == presence.Left {
		delete(w.users[e.Room], u.ID)
	} else {
		w.in(e.Room)[u.ID] = known{u.Status, u.Since, string(u.Info)}
	}
}

func (w *watcher) in(room message.Room) map[string]known {
	if w.users[room] == nil {
		w.users[room] = make(map[string]known)
	}
	return w.users[room]
}

// cut ends the stream and resumes it.
func (w *watcher) cut() {
	w.end()
	w.begin()
}

func (w *watcher) end() {
	w.pause(false)
	w.stop()
	w.run.Wait()
}

// pause has the watcher not read, or read again.
func (w *watcher) pause(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case on && w.gate == nil:
		w.gate = make(chan struct{})
	case !on && w.gate != nil:
		close(w.gate)
		w.gate = nil
	}
}

func (w *watcher) check(where string, room message.Room, r *presence.Roster) {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := knownOf(r)
	if len(w.target.Users) > 0 {
		of := make(map[string]bool)
		for _, u := range w.target.Users {
			of[u] = true
		}
		maps.DeleteFunc(want, func(u string, _ known) bool { return !of[u] })
	}
	got := w.users[room]
	if got == nil {
		got = map[string]known{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: is so (-), was told (+):\n%s", where, diff)
	}
}
