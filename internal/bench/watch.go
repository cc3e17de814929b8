package bench

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// watcher takes the frames of one reader's sessions and keeps what they tell. All but the atomic counts belongs to the
// reader.
type watcher struct {
	latency    *hdrhistogram.Histogram // of live deliveries sent at or after from
	gaps       map[message.GapReason]int64
	refused    map[string]int64 // error frames by code
	strays     int64            // frames of other rooms with our mark
	alien      int64            // messages that no publisher here made
	broken     int64            // what was no frame
	causes     map[string]int64 // ends of connections, by close code or reason
	reconnects int64

	from                    atomic.Int64 // nanoseconds: when measuring begins
	liveNow, opened         atomic.Int64 // sessions; opened counts each once
	deliveries, fresh       atomic.Int64 // message frames; those that brought something new
	measured, lastDelivery  atomic.Int64 // frames in latency's window, slow readers' included; when the last one came
	batchAll, batchFresh    int64        // since the last flush
	batchMeasured, batchEnd int64
	batchLate               int64
	lastLate                atomic.Int64 // when a live delivery came last that was late
}

// newHistogram counts microseconds to one minute. Three digits take 136 KiB, two 20.
func newHistogram(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Minute.Microseconds(), digits)
}

// late is a live delivery that took so long: something was wrong.
const late = 250 * time.Millisecond

const latencyDigits, ackDigits = 3, 2

func newWatcher() *watcher {
	return &watcher{latency: newHistogram(latencyDigits), gaps: map[message.GapReason]int64{}, refused: map[string]int64{}, causes: map[string]int64{}}
}

// text takes a frame's JSON, read at now. It keeps nothing of p. The error says that p is no frame of the protocol.
func (w *watcher) text(s *session, p []byte, now int64) error {
	if i := s.next; int64(i) < int64(len(s.room.order)) && !s.mayRepeat {
		if e := &s.room.order[i]; e.is(p, s.room.middle) {
			fresh := s.fresh(i)
			s.next++
			s.own = false
			w.count(s, e, fresh, now)
			return nil
		}
	}
	out, err := frame.DecodeOut(p)
	if err != nil {
		return fmt.Errorf("a text that is no frame: %w", err)
	}
	if mark, by, sent, ok := readMark(out.Data); ok {
		w.message(s, out, entry{mark: mark, size: uint32(len(p)), sent: sent}, by, p, now)
		return nil
	}
	if !out.ID.IsZero() {
		s.id, s.own = out.ID, true
	}
	switch out.Type {
	case message.TypeSystem:
		w.system(s, out, now)
	case message.TypeError:
		w.refused[word(out.Data, "code")]++
	case message.TypeChat:
		w.alien++
	}
	return nil
}

// message takes one of the publishers' messages that does not simply follow.
func (w *watcher) message(s *session, out frame.Out, e entry, by author, p []byte, now int64) {
	if out.Room != s.room.name {
		w.strays++
		return
	}
	if s.mayRepeat && !s.replaying && !s.room.disturbed(now) {
		s.split()
		s.mayRepeat = false
	}
	out.ID.AppendTo(e.id[:0])
	i := s.room.place(sight{out.ID, by}, e, p)
	fresh := s.fresh(i)
	s.step(i, out.ID.Position, s.mayRepeat)
	s.id, s.own = out.ID, s.next == unknown
	w.count(s, &s.room.order[i], fresh, now)
}

// count counts a delivery. Replays and slow readers say nothing about the server's latency.
func (w *watcher) count(s *session, e *entry, fresh bool, now int64) {
	w.batchAll++
	if fresh {
		w.batchFresh++
	}
	timely := fresh && s.state == live && !s.slow
	if timely && now-e.sent > int64(late) {
		w.batchLate = now
	}
	if e.sent < w.from.Load() {
		return
	}
	w.batchMeasured++
	w.batchEnd = now
	if timely {
		_ = w.latency.RecordValue(min(max((now-e.sent)/1000, 1), time.Minute.Microseconds())) // it is in range
	}
}

// flush shows what was counted since the last flush.
func (w *watcher) flush() {
	if w.batchAll == 0 {
		return
	}
	w.deliveries.Add(w.batchAll)
	w.fresh.Add(w.batchFresh)
	w.measured.Add(w.batchMeasured)
	if w.batchEnd != 0 {
		w.lastDelivery.Store(w.batchEnd)
	}
	if w.batchLate != 0 {
		w.lastLate.Store(w.batchLate)
	}
	w.batchAll, w.batchFresh, w.batchMeasured = 0, 0, 0
}

// system takes the server's own news.
func (w *watcher) system(s *session, out frame.Out, now int64) {
	event := word(out.Data, "event")
	switch event {
	case "welcome":
		s.attempt = 0
	case "degraded", "restored":
		s.room.away = now
	}
	if out.Room != s.room.name {
		return
	}
	switch event {
	case "subscribed":
		w.subscribed(s, out, now)
	case "gap":
		w.gap(s, out)
	}
}

// subscribed: the session has all it missed, and is owed everything from here on.
func (w *watcher) subscribed(s *session, out frame.Out, now int64) {
	if !s.begun {
		s.begun, s.start = true, out.ID.Position
		if id, ok := message.ParseID(word(out.Data, "last_id")); ok {
			s.start = id.Position
		}
	}
	if s.mayRepeat {
		s.split()
	}
	// Who reconnects in an outage may have been told at another node already what comes here when it is over.
	s.replaying, s.mayRepeat = false, s.mayRepeat && s.room.disturbed(now)
	if s.state != opening {
		return
	}
	s.state, s.due = live, 0
	w.liveNow.Add(1)
	if !s.opened {
		s.opened = true
		w.opened.Add(1)
		s.room.members.Add(1)
	}
}

func (w *watcher) gap(s *session, out frame.Out) {
	w.gaps[message.GapReason(word(out.Data, "reason"))]++
	after, known := message.ParseID(word(out.Data, "after"))
	if i := s.lastSeen(); !known && i != unknown {
		after, _ = message.ParseID(s.room.order[i].id[:])
	}
	before, _ := message.ParseID(word(out.Data, "before"))
	s.gap(after.Position, before.Position)
}

// word is the string of that name in an object; empty if there is none.
func word(object jsontext.Value, name string) string {
	var members map[string]any
	if json.Unmarshal(object, &members) != nil {
		return ""
	}
	text, _ := members[name].(string)
	return text
}
