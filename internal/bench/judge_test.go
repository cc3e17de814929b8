package bench

import (
	"testing"
	"time"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// room1 is a room in which two publishers took turns; message n has position n+1.
type room1 struct {
	t        *testing.T
	rm       *room
	w        *watcher
	receipts []receipt
}

func newRoom1(t *testing.T, n int) *room1 {
	r := &room1{t: t, rm: newRoom("r", 0), w: newWatcher()}
	for i := range n {
		r.receipts = append(r.receipts, receipt{by: authorOf(i%2, uint32(i/2)), id: r.id(i)})
	}
	return r
}

func (r *room1) id(n int) message.ID {
	return message.ID{Position: message.Position(n + 1), Low: message.Low(1<<63 | uint64(r.rm.tag)<<48 | uint64(n))}
}

// join is a session that is owed everything.
func (r *room1) join() *session {
	s := &session{room: r.rm, record: newRecord(maxRuns)}
	s.connected(0, 0, message.ID{})
	r.text(s, frame.Payload(frame.Subscribed{Room: "r", LastID: message.ID{Low: 1 << 63}}.Append(nil, 0)))
	s.start, s.begun = 0, true
	return s
}

func (r *room1) text(s *session, p []byte) {
	r.t.Helper()
	if err := r.w.text(s, p, time.Now().UnixNano()); err != nil {
		r.t.Fatal(err)
	}
}

// sees gives a session messages by number.
func (r *room1) sees(s *session, numbers ...int) {
	r.t.Helper()
	for _, n := range numbers {
		r.text(s, r.frame(n, r.receipts[n].id))
	}
}

func (r *room1) frame(n int, id message.ID) []byte {
	m := &message.Message{ID: id, Type: message.TypeChat, Room: "r", Data: appendData(nil, r.receipts[n].by, 1, minSize+10)}
	return frame.Payload(frame.AppendMessage(nil, m))
}

func (r *room1) judge(s *session) faults {
	j := newJudge(r.rm, r.receipts, 2, nil)
	j.session(&s.record)
	return j.sums[0]
}

func TestASessionThatIsWrongFirstDoesNotMakeTheOthersWrong(t *testing.T) {
	r := newRoom1(t, 8)
	wrong, right := r.join(), r.join()
	r.sees(wrong, 0, 2, 1, 5, 5, 6)
	r.sees(right, 0, 1, 2, 3, 4, 5, 6, 7)
	if got, want := r.judge(wrong), (faults{Lost: 3, Duplicated: 1, Reordered: 1}); got != want {
		t.Errorf("wrong: %+v, want %+v", got, want)
	}
	if got := r.judge(right); got != (faults{}) {
		t.Errorf("right: %+v, want nothing", got)
	}
}

func TestTheOrderOfOnePublisherIsThatOfItsNumbers(t *testing.T) {
	r := newRoom1(t, 4)
	// The server gave a publisher's second message the place before its first.
	r.receipts[0].id, r.receipts[2].id = r.receipts[2].id, r.receipts[0].id
	s := r.join()
	r.sees(s, 2, 1, 0, 3)
	if got, want := r.judge(s), (faults{Reordered: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestOneWrongOrderForAllIsStillWrong(t *testing.T) {
	r := newRoom1(t, 6)
	a, b := r.join(), r.join()
	for _, s := range []*session{a, b} {
		r.sees(s, 1, 0, 2, 3, 4, 5)
	}
	if len(a.runs) != 0 || len(b.runs) != 0 {
		t.Errorf("%d and %d runs kept, want none: both saw the order of first sight", len(a.runs), len(b.runs))
	}
	for _, s := range []*session{a, b} {
		if got, want := r.judge(s), (faults{Reordered: 1}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

func TestMessagesOfAnOutageKeepTheirPublishersOrderOnly(t *testing.T) {
	r := newRoom1(t, 6)
	r.receipts[2].loose, r.receipts[4].loose = true, true // of publisher 0
	s := r.join()
	r.sees(s, 0, 1, 3, 5, 2, 4)
	if got := r.judge(s); got != (faults{}) {
		t.Errorf("behind newer ones: %+v, want nothing", got)
	}
	s = r.join()
	r.sees(s, 0, 1, 3, 5, 4, 2)
	if got, want := r.judge(s), (faults{Reordered: 1}); got != want {
		t.Errorf("against their publisher: %+v, want %+v", got, want)
	}
}

func TestOneIdentityForTwoMessagesIsAFault(t *testing.T) {
	r := newRoom1(t, 4)
	r.receipts[3].id.Low = r.receipts[2].id.Low
	j := newJudge(r.rm, r.receipts, 2, nil)
	j.room()
	if got, want := j.sums[0], (faults{Duplicated: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheSameMessageUnderAChangedIDIsNotTheOneThatIsOwed(t *testing.T) {
	r := newRoom1(t, 2)
	s := r.join()
	r.sees(s, 0)
	changed := r.receipts[1].id
	changed.Low ^= 1 << 20
	r.text(s, r.frame(1, changed))
	if got, want := r.judge(s), (faults{Lost: 1, Duplicated: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestAFrameThatOnlyLooksLikeTheNextOneIsNotTaken(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(m *message.Message, r *room1)
		want  faults
		stray int64
	}{
		"another id":      {func(m *message.Message, _ *room1) { m.ID.Low ^= 1 << 20 }, faults{Lost: 1, Duplicated: 1}, 0},
		"another message": {func(m *message.Message, r *room1) { m.Data = appendData(nil, r.receipts[3].by, 1, minSize+10) }, faults{Lost: 1, Duplicated: 1}, 0},
		"another room":    {func(m *message.Message, _ *room1) { m.Room = "s" }, faults{Lost: 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom1(t, 4)
			first, s := r.join(), r.join()
			r.sees(first, 0, 1, 2, 3)
			r.sees(s, 0)
			m := &message.Message{ID: r.receipts[1].id, Type: message.TypeChat, Room: "r", Data: appendData(nil, r.receipts[1].by, 1, minSize+10)}
			tc.spoil(m, r)
			r.text(s, frame.Payload(frame.AppendMessage(nil, m)))
			r.sees(s, 2, 3)
			if got := r.judge(s); got != tc.want || r.w.strays != tc.stray {
				t.Errorf("%+v, %d astray; want %+v, %d", got, r.w.strays, tc.want, tc.stray)
			}
		})
	}
}

func TestASessionIsOwedWhatFollowsItsJoin(t *testing.T) {
	r := newRoom1(t, 6)
	s := r.join()
	s.start = r.id(2).Position
	r.sees(s, 4, 5)
	if got, want := r.judge(s), (faults{Lost: 1}); got != want {
		t.Errorf("joined behind the third of six, saw the last two: %+v, want %+v", got, want)
	}
	s = r.join()
	s.begun = false
	if got := r.judge(s); got != (faults{}) {
		t.Errorf("never joined: %+v, want nothing", got)
	}
}

func TestTheFirstSubscribedSaysFromWhereASessionIsOwed(t *testing.T) {
	r := newRoom1(t, 4)
	s := &session{room: r.rm, record: newRecord(maxRuns)}
	for _, n := range []int{1, 3} {
		s.connected(0, 0, message.ID{})
		r.text(s, frame.Payload(frame.Subscribed{Room: "r", LastID: r.id(n)}.Append(nil, 0)))
	}
	if s.start != r.id(1).Position {
		t.Errorf("start %d, want that of the first, %d", s.start, r.id(1).Position)
	}
}

func TestAGapExcusesWhatLiesInside(t *testing.T) {
	gap := func(g frame.Gap) []byte {
		g.Room, g.Reason = "r", message.GapLimit
		return frame.Payload(g.Append(nil, 0))
	}
	r := newRoom1(t, 10)
	for _, tc := range []struct {
		name string
		gap  frame.Gap
		want faults
	}{
		{"its ends are exclusive", frame.Gap{After: r.id(2), Before: r.id(5)}, faults{Gapped: 2, Lost: 1}},
		{"without an end it reaches to the next message", frame.Gap{After: r.id(2)}, faults{Gapped: 3}},
		{"without a beginning it reaches back to the last message", frame.Gap{Before: r.id(6)}, faults{Gapped: 3}},
		{"it excuses nothing elsewhere", frame.Gap{After: r.id(6), Before: r.id(9)}, faults{Lost: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRoom1(t, 10)
			s := r.join()
			r.sees(s, 0, 1, 2)
			r.text(s, gap(tc.gap))
			r.sees(s, 6, 7, 8, 9)
			if got := r.judge(s); got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
	s := r.join()
	r.sees(s, 0, 1)
	r.text(s, gap(frame.Gap{}))
	if got, want := r.judge(s), (faults{Gapped: 8}); got != want {
		t.Errorf("a gap that nothing follows: %+v, want %+v", got, want)
	}
	s = r.join()
	r.sees(s, 0, 2)
	r.text(s, gap(frame.Gap{Before: r.id(6)}))
	r.sees(s, 6, 7, 8, 9)
	if got, want := r.judge(s), (faults{Gapped: 3, Lost: 1}); got != want {
		t.Errorf("a gap without a beginning behind a loss: %+v, want %+v", got, want)
	}
}
