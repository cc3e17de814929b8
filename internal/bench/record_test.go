package bench

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestARepeatIsAllowedInAnInexactReplayOnly(t *testing.T) {
	r := newRoom1(t, 8)
	subscribed := frame.Payload(frame.Subscribed{Room: "r", Resumed: true, Recovered: true}.Append(nil, 0))
	s := r.join()
	r.sees(s, 0, 1, 2, 3)
	foreign := message.ID{Position: r.id(3).Position, Low: message.Low(1<<63 | uint64(r.rm.tag^1)<<48)}
	s.connected(0, 0, foreign)
	r.sees(s, 2, 3, 4)
	r.text(s, subscribed)
	r.sees(s, 5, 5, 6)
	s.connected(0, 0, s.resume())
	if s.resume() != r.id(6) {
		t.Errorf("resumes from %v, want the last message seen, %v", s.resume(), r.id(6))
	}
	r.sees(s, 6, 7)
	r.text(s, subscribed)
	if got, want := r.judge(s), (faults{Repeated: 2, Duplicated: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestOnlyTheReplayItselfMayRepeat(t *testing.T) {
	subscribed := frame.Payload(frame.Subscribed{Room: "r", Resumed: true, Recovered: true}.Append(nil, 0))
	r := newRoom1(t, 8)
	foreign := message.ID{Position: r.id(3).Position, Low: message.Low(1<<63 | uint64(r.rm.tag^1)<<48)}
	s := r.join()
	r.sees(s, 0, 1, 2, 3, 4, 5)
	s.connected(0, 0, foreign)
	r.sees(s, 2)
	r.text(s, subscribed)
	r.sees(s, 3, 4, 5, 6, 7)
	if got, want := r.judge(s), (faults{Repeated: 1, Duplicated: 3}); got != want {
		t.Errorf("a repeat that goes on behind the replay: %+v, want %+v", got, want)
	}
	s = r.join()
	r.sees(s, 0, 1, 2, 3, 4, 5, 4)
	s.connected(0, 0, foreign)
	r.sees(s, 5, 6)
	r.text(s, subscribed)
	r.sees(s, 7)
	if got, want := r.judge(s), (faults{Repeated: 1, Duplicated: 1}); got != want {
		t.Errorf("a repeat that went on into the replay: %+v, want %+v", got, want)
	}
}

func TestAReplayDuringAnOutageMayRepeat(t *testing.T) {
	r := newRoom1(t, 4)
	s := r.join()
	r.sees(s, 0, 1)
	r.text(s, frame.Payload(frame.Outage{}.Append(nil, 0)))
	r.sees(s, 2)
	r.text(s, frame.Payload(frame.Outage{Restored: true}.Append(nil, 0)))
	s.connected(0, time.Now().UnixNano(), r.id(2))
	r.sees(s, 2, 3)
	if got, want := r.judge(s), (faults{Repeated: 1}); got != want {
		t.Errorf("right after it: %+v, want %+v", got, want)
	}
	r.text(s, frame.Payload(frame.Subscribed{Room: "r", Resumed: true, Recovered: true}.Append(nil, 0)))
	r.sees(s, 3)
	if got, want := r.judge(s), (faults{Repeated: 2}); got != want {
		t.Errorf("behind the replay: %+v, want %+v", got, want)
	}
	r.rm.away -= int64(afterOutage)
	r.sees(s, 3)
	if got, want := r.judge(s), (faults{Repeated: 2, Duplicated: 1}); got != want {
		t.Errorf("long after it: %+v, want %+v", got, want)
	}
}

func TestAnOwnFrameMovesTheResumePoint(t *testing.T) {
	r := newRoom1(t, 2)
	s := r.join()
	r.sees(s, 0, 1)
	b := frame.Pong{}.Append(nil, 0)
	own := message.ID{Position: 77, Low: message.Low(1<<63 | 1<<61 | uint64(r.rm.tag)<<48)}
	frame.Stamp(b, own)
	r.text(s, frame.Payload(b))
	if got := s.resume(); got != own {
		t.Errorf("resumes from %v, want the frame seen last, %v", got, own)
	}
	s = r.join()
	r.sees(s, 0)
	r.text(s, frame.Payload(b))
	r.sees(s, 1)
	if got := s.resume(); got != r.id(1) {
		t.Errorf("resumes from %v, want the message behind it, %v", got, r.id(1))
	}
}

func TestRunsThatMeetBecomeOne(t *testing.T) {
	r := newRoom1(t, 6)
	a, b := r.join(), r.join()
	r.sees(a, 0, 1, 2, 3, 4, 5)
	r.sees(b, 0, 1, 2)
	b.split() // as a gap frame does
	r.sees(b, 3, 4, 5)
	b.split()
	if want := []run{{0, 6, false}}; !cmp.Equal(b.runs, want, cmp.AllowUnexported(run{})) {
		t.Errorf("runs %v, want %v", b.runs, want)
	}
}

func TestTooManyFaultsEndTheRecordButNotTheVerdict(t *testing.T) {
	r := newRoom1(t, maxRuns+100)
	a, s := r.join(), r.join()
	for n := range maxRuns + 100 {
		r.sees(a, n)
	}
	for n := range maxRuns/2 + 50 {
		r.sees(s, 2*n+1, 2*n)
	}
	got := r.judge(s)
	if got.Spilled < 50 || got.Reordered < maxRuns/4 || got.Lost > 2 || got.none() {
		t.Errorf("%+v, want some unjudged, the others reordered, and nothing lost for not being recorded", got)
	}
}
