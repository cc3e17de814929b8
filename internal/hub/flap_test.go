package hub

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// flapper is a user whose connection is cut again and again and who resumes from what he saw last.
type flapper struct {
	peer  *peer
	rooms []message.Room
	last  map[message.Room]message.ID // per room, of its own frames
	only  message.ID                  // of the last frame, whatever it was: all that a simple client keeps
	seen  map[message.Low]int
	order map[message.Room][]message.Low // first sights
	read  int                            // frames of peer.all looked at
}

func seeds(t *testing.T) (from, n uint64) {
	if s := os.Getenv("HUB_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v, 1
	}
	return 1, 15
}

// Sessions flap at random, with sockets that fill up, logs that fall off, history that is read page by page and rooms that
// become live late. With an id per room everyone has every message exactly once and in order; with the last frame's id
// alone, every message, and repeats only of what he has seen.
func TestFlappingSessionsMissNothing(t *testing.T) {
	from, n := seeds(t)
	for seed := from; seed < from+n; seed++ {
		for _, simple := range []bool{false, true} {
			cfg := Config{RoomBytes: 2 << 10, LogBytes: 1 << 20, Linger: 300 * time.Millisecond, WriteTimeout: time.Hour, BehindTimeout: time.Hour}
			inBubble(t, cfg, func(r *rig) { flap(r, seed, simple) })
			if t.Failed() {
				t.Fatalf("seed %d, simple %v: run again with HUB_SEED=%d", seed, simple, seed)
			}
		}
	}
}

func flap(r *rig, seed uint64, simple bool) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	rooms := []message.Room{"a", "b", "c"}
	sent := make(map[message.Room][]message.Low)
	publish := func() {
		room := rooms[rnd.IntN(len(rooms))]
		if rnd.IntN(8) == 0 {
			room = message.Global
		}
		if rnd.IntN(4) == 0 {
			r.publish(room, `"hint"`, func(m *message.Message) { m.Ephemeral = true }) // who is there gets it, if it has not fallen off
			return
		}
		sent[room] = append(sent[room], r.publish(room, strconv.Itoa(len(sent[room]))).Low)
	}
	for range 20 {
		publish()
	}
	r.set(func() { r.page = 1 + rnd.IntN(20) })
	start := make(map[message.Room]int)
	for room, s := range sent {
		start[room] = len(s)
	}
	var fs []*flapper
	for i := range 4 {
		f := &flapper{rooms: append([]message.Room{message.Global}, rooms[:1+i%3]...), last: make(map[message.Room]message.ID), seen: make(map[message.Low]int), order: make(map[message.Room][]message.Low)}
		fs = append(fs, f)
		f.connect(r, rnd, simple)
	}
	for range 400 {
		time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		for range rnd.IntN(6) {
			publish()
		}
		f := fs[rnd.IntN(len(fs))]
		switch rnd.IntN(6) {
		case 0:
			f.look(f.peer.take(rnd.IntN(3000)))
			f.peer.w.s.Gone() // cut: what lies in the socket is gone
			f.connect(r, rnd, simple)
		case 1:
			synctest.Wait()
		default:
			f.look(f.peer.take(rnd.IntN(4000)))
		}
	}
	for i, f := range fs {
		f.look(f.peer.drain())
		for _, room := range f.rooms {
			want := sent[room][start[room]:]
			got := slices.DeleteFunc(f.order[room], func(low message.Low) bool { // an inexact replay may begin earlier
				return slices.Contains(sent[room][:start[room]], low)
			})
			if fmt.Sprint(got) != fmt.Sprint(want) {
				r.t.Errorf("session %d, room %s: saw %d of %d messages, or in another order", i, room, len(got), len(want))
			}
		}
		for low, n := range f.seen {
			if n > 1 && !simple {
				r.t.Errorf("session %d saw %x %d times", i, low, n)
			}
		}
	}
}

// connect opens a session as a simple client would (one last_id for all), or with an id per room.
func (f *flapper) connect(r *rig, rnd *rand.Rand, simple bool) {
	w := &socket{limit: 400 + rnd.IntN(2000)}
	o := Open{ID: "s", User: "s", Writer: w, Fallback: message.Global, Anchor: f.rooms[1]}
	for _, room := range f.rooms {
		j := Join{Room: room}
		switch id, ok := f.last[room]; {
		case simple && f.only.IsZero(), !simple && !ok:
		case simple && f.only.Low.Tag() == room.Tag():
			j.From, j.Resume = f.only, true
		case simple:
			j.From, j.Resume = message.ID{Position: f.only.Position.Before(Inexact)}, true
		default:
			j.From, j.Resume = id, true
		}
		o.Joins = append(o.Joins, j)
	}
	s, err := r.h.Open(o)
	if err != nil {
		r.t.Fatal(err)
	}
	w.s = s
	f.peer, f.read = &peer{t: r.t, w: w}, 0
	if len(f.seen) == 0 { // the first time: from here on everything counts
		synctest.Wait()
	}
	if f.last[message.Global].IsZero() {
		for _, room := range f.rooms {
			f.last[room] = message.ID{Position: max(r.room(room).tip, r.Now()), Low: r.minter.Low(room.Tag(), true)}
		}
		f.only = f.last[f.rooms[1]]
	}
}

func (f *flapper) look(gs []got) {
	for _, g := range gs[f.read:] {
		f.read++
		if g.Event == "gap" {
			f.peer.t.Errorf("gap told: %s", g.Data)
		}
		f.only = g.ID
		if g.Type != "chat" || string(g.Data) == `"hint"` {
			continue
		}
		room := message.Room(g.Room)
		f.last[room] = g.ID
		if f.seen[g.ID.Low]++; f.seen[g.ID.Low] == 1 {
			f.order[room] = append(f.order[room], g.ID.Low)
		}
	}
}
