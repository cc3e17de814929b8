package bench

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestACorrectServerPasses(t *testing.T) {
	t.Parallel()
	r, err := newFake(t).command().bench(t)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(r.Messages.Published) * 6; r.Messages.Published < 60 || r.Deliveries.Total != want {
		t.Errorf("%d deliveries of %d messages, want %d of at least 60", r.Deliveries.Total, r.Messages.Published, want)
	}
	if r.Sessions.Opened != 12 || r.Sessions.Held != 12 || r.Deliveries.PerSecond <= 0 || r.Deliveries.Latency.P50 <= 0 || r.Messages.Ack.P99 <= 0 {
		t.Errorf("figures missing: %+v", r)
	}
	if r.Server == nil || r.Server.RSS < 1 {
		t.Errorf("the server on this machine was not found: %+v", r.Server)
	}
}

// dealt is how often something happens to a connection: every fifth message, of every other connection.
func dealt(c *fakeConn, i int) bool { return i >= 0 && i%5 == 2 && c.number%2 == 0 }

// times is how often it happened to sessions of one room, with n messages of which the last ones do not count.
func times(n, last, sessions int) int64 { return int64(max(0, n-last+2) / 5 * sessions / 2) }

func TestEveryFaultIsCountedExactly(t *testing.T) {
	t.Parallel()
	const sessions = 12
	for _, tc := range []struct {
		name string
		send func(c *fakeConn, i int)
		want func(n int) faults
	}{
		{
			"a message that is not sent is lost",
			func(c *fakeConn, i int) {
				if !dealt(c, i) {
					c.message(i)
				}
			},
			func(n int) faults { return faults{Lost: times(n, 0, sessions)} },
		},
		{
			"a message that is sent twice is duplicated",
			func(c *fakeConn, i int) {
				c.message(i)
				if dealt(c, i) {
					c.message(i)
				}
			},
			func(n int) faults { return faults{Duplicated: times(n, 0, sessions)} },
		},
		{
			"a message that is sent again later is duplicated",
			func(c *fakeConn, i int) {
				c.message(i)
				if dealt(c, i-2) {
					c.message(i - 2)
				}
			},
			func(n int) faults { return faults{Duplicated: times(n, 2, sessions)} },
		},
		{
			"a message that is sent behind the next one is reordered, and lost if there is no next one",
			func(c *fakeConn, i int) {
				if dealt(c, i) {
					return
				}
				c.message(i)
				if dealt(c, i-1) {
					c.message(i - 1)
				}
			},
			func(n int) faults {
				return faults{Reordered: times(n, 1, sessions), Lost: times(n, 0, sessions) - times(n, 1, sessions)}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(f *fake) { f.send = tc.send })
			c := f.command()
			c.Sessions, c.Rooms = sessions, 1
			r, err := c.bench(t)
			if want := tc.want(r.Messages.Published); r.faults != want || want.none() {
				t.Errorf("faults %+v, want %+v", r.faults, want)
			}
			if !errors.Is(err, ErrFaults) {
				t.Errorf("verdict: %v, want ErrFaults", err)
			}
		})
	}
}

func TestAMessageThatNobodyGetsIsLostToAll(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			if i != 3 {
				c.message(i)
			}
		}
	})
	r, err := f.command().bench(t)
	if r.faults != (faults{Lost: 12}) || !errors.Is(err, ErrFaults) {
		t.Errorf("faults %+v, %v; want 12 lost", r.faults, err)
	}
}

func TestAMessageUnderASecondIDIsDuplicated(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if i == 3 {
				again := *c.at(i)
				again.ID.Low++
				c.write(frame.AppendMessage(nil, &again))
			}
		}
	})
	if r, _ := f.command().bench(t); r.faults != (faults{Duplicated: 12}) {
		t.Errorf("faults %+v, want 12 duplicated", r.faults)
	}
}

func TestOneIdentityForAllMessagesIsAFault(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.id = func(m *message.Message) { m.ID.Low = 1<<63 | message.Low(m.Room.Tag())<<48 }
	})
	c := f.command()
	c.Rooms = 1
	r, _ := c.bench(t)
	if want := (faults{Duplicated: int64(r.Messages.Published) - 1}); r.faults != want {
		t.Errorf("faults %+v, want %+v", r.faults, want)
	}
}

func TestARepeatThatComesAfterEverythingIsStillSeen(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if c.later != nil {
				c.later.Stop()
			}
			c.later = time.AfterFunc(beat/3, func() { c.message(i) })
		}
	})
	c := f.command()
	c.Sessions, c.Rooms = 1, 1
	if r, _ := c.bench(t); r.Duplicated == 0 {
		t.Errorf("faults %+v, want the repeat", r.faults)
	}
}

func TestAServerMayTakeItsTime(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			if i == 10 {
				select {
				case <-time.After(1200 * time.Millisecond): // past the end of publishing by more than a beat
				case <-c.ctx.Done():
				}
			}
			c.message(i)
		}
	})
	c := f.command()
	c.Settle = 2 * time.Second
	if r, err := c.bench(t); err != nil {
		t.Errorf("%+v, %v; want nothing lost", r.faults, err)
	}
}

func TestAMessageInAnotherRoomIsAstray(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			c.message(i)
			if i == 3 {
				astray := *c.at(i)
				astray.Room += "x"
				c.write(frame.AppendMessage(nil, &astray))
			}
		}
	})
	if r, err := f.command().bench(t); r.Strays != 12 || r.faults != (faults{}) || !errors.Is(err, ErrFaults) {
		t.Errorf("%d astray, %+v, %v; want 12, nothing else, and ErrFaults", r.Strays, r.faults, err)
	}
}

func TestAMessageWithoutReceiptIsNotOwed(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.taken = func(n int, r *realtimev1.PublishResponse) (*realtimev1.PublishResponse, error) {
			if n%10 == 4 {
				return nil, status.Error(codes.Unavailable, "try again")
			}
			return r, nil
		}
	})
	r, err := f.command().bench(t)
	if err != nil || r.Messages.Failed == 0 || !strings.Contains(r.Messages.Problem, "try again") {
		t.Errorf("%d failed, first %q, verdict %v; want some, try again, none", r.Messages.Failed, r.Messages.Problem, err)
	}
}

func TestSlowReadersGetEverythingInTheEnd(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	c := f.command()
	c.SlowReaders, c.Size, c.Duration = 4, 4096, 600*time.Millisecond
	r, err := c.bench(t)
	if want := int64(r.Messages.Published) * 6; err != nil || r.Deliveries.Total != want {
		t.Errorf("%d deliveries, want %d; verdict %v", r.Deliveries.Total, want, err)
	}
}
