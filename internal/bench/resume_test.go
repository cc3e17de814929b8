package bench

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestSessionsThatDropTheirConnectionsResumeWithoutAFault(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c := f.command()
	c.Churn, c.Duration = 150*time.Millisecond, time.Second
	r, err := c.bench(t)
	if err != nil || r.Reconnects < 6 || r.Causes["own"] < r.Reconnects || r.Repeated != 0 {
		t.Fatalf("%d reconnects, ends %v, %+v, verdict %v", r.Reconnects, r.Causes, r.faults, err)
	}
	if want := int64(r.Messages.Published) * 6; r.Deliveries.Total != want {
		t.Errorf("%d deliveries, want %d: each message once to each session, live or replayed", r.Deliveries.Total, want)
	}
}

func TestAReplayIsHeldToItsPromises(t *testing.T) {
	t.Parallel()
	global := func(c *fakeConn, i int) { // the id seen last is one of another room
		c.message(i)
		b := frame.Pong{}.Append(nil, 0)
		c.stamped(b, message.Global)
	}
	for _, tc := range []struct {
		name string
		send func(c *fakeConn, i int)
		from func(c *fakeConn, last message.ID) int
		ok   func(f faults) bool
	}{
		{"nothing replayed is lost", nil, func(c *fakeConn, _ message.ID) int { return len(c.room.messages) }, func(f faults) bool {
			return f.Lost > 0 && f.Duplicated == 0 && f.Reordered == 0 && f.Gapped == 0
		}},
		{"the last one replayed again is duplicated", nil, func(c *fakeConn, last message.ID) int { return max(0, c.after(last)-1) }, func(f faults) bool {
			return f.Duplicated > 0 && f.Lost == 0 && f.Reordered == 0 && f.Repeated == 0
		}},
		{"what an inexact id brings back is repeated", global, (*fakeConn).after, func(f faults) bool {
			return f.Repeated > 0 && f.none() && f.Gapped == 0
		}},
		{"what an inexact id does not bring back is lost", global, func(c *fakeConn, _ message.ID) int { return len(c.room.messages) }, func(f faults) bool {
			return f.Lost > 0 && f.Duplicated == 0 && f.Reordered == 0
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(f *fake) {
				f.from = tc.from
				if tc.send != nil {
					f.send = tc.send
				}
			})
			c := f.command()
			c.Churn, c.Duration = 200*time.Millisecond, time.Second
			r, err := c.bench(t)
			if !tc.ok(r.faults) || (err == nil) != r.faults.none() {
				t.Errorf("faults %+v, verdict %v", r.faults, err)
			}
		})
	}
}

func TestWhatAGapFrameTellsIsNotLost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		after, before bool
	}{{"with both ends", true, true}, {"without ends", false, false}, {"without its end", true, false}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(f *fake) {
				f.send = func(c *fakeConn, i int) {
					switch i {
					case 5, 6: // told
					case 8: // withheld in silence
					case 7:
						g := frame.Gap{Room: c.room.name, Reason: message.GapExpired}
						if tc.after {
							g.After = c.at(4).ID
						}
						if tc.before {
							g.Before = c.at(7).ID
						}
						c.own(g.Append(nil, 0))
						c.message(7)
					default:
						c.message(i)
					}
				}
			})
			r, err := f.command().bench(t)
			if want := (faults{Lost: 12, Gapped: 24}); r.faults != want || r.Gaps["expired"] != 12 || !errors.Is(err, ErrFaults) {
				t.Errorf("%+v, gaps %v, verdict %v; want %+v, 12 gaps, ErrFaults", r.faults, r.Gaps, err, want)
			}
		})
	}
}

func TestSessionsComeBackAtOnceAfter1012(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if i == 10 && !c.resume {
				_ = c.ws.Close(websocket.StatusServiceRestart, "drain")
			}
		}
	})
	c := f.command()
	r, err := c.bench(t)
	if err != nil || r.Causes["1012"] != 12 || r.Reconnects != 12 || r.Sessions.Held != 12 {
		t.Errorf("ends %v, %d reconnects, %d held, verdict %v; want 12 of each and none", r.Causes, r.Reconnects, r.Sessions.Held, err)
	}
}

func TestSessionsThatMayNotComeBackAreStillOwed(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if i == 10 && c.number == 0 {
				_ = c.ws.Close(4501, "kicked")
			}
		}
	})
	r, err := f.command().bench(t)
	if r.Causes["4501"] != 1 || r.Sessions.Held != 11 || r.Lost == 0 || !errors.Is(err, ErrFaults) || !strings.Contains(r.Sessions.Problem, "4501") {
		t.Errorf("ends %v, %d held, %d lost, problem %q, verdict %v", r.Causes, r.Sessions.Held, r.Lost, r.Sessions.Problem, err)
	}
}
