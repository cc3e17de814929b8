package bench

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/frame"
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
	if r, err := f.command().bench(t); r.Strays != 12 || !errors.Is(err, ErrFaults) {
		t.Errorf("%d astray, %v; want 12 and ErrFaults", r.Strays, err)
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

func TestRefusedSessions(t *testing.T) {
	t.Parallel()
	t.Run("that are all end the run with the reason", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, func(f *fake) { f.refuse = func(int) int { return http.StatusForbidden } })
		err := f.command().Run(t.Context(), &bytes.Buffer{})
		if !errors.Is(err, errNobody) || !strings.Contains(err.Error(), "not_permitted") {
			t.Errorf("Run: %v, want errNobody with the server's code", err)
		}
	})
	t.Run("are not owed anything", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, func(f *fake) { f.refuse = func(n int) int { return map[bool]int{true: http.StatusForbidden}[n < 2] } })
		r, err := f.command().bench(t)
		if err != nil || r.Sessions.Opened != 10 || !strings.Contains(r.Sessions.Problem, "403") {
			t.Errorf("%+v, verdict %v; want 10 opened, a 403, none", r.Sessions, err)
		}
	})
	t.Run("are tried again if the server is busy", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, func(f *fake) {
			f.refuse = func(n int) int { return map[bool]int{true: http.StatusServiceUnavailable}[n < 2] }
		})
		if r, err := f.command().bench(t); err != nil || r.Sessions.Opened != 12 {
			t.Errorf("%d opened, verdict %v; want 12, none", r.Sessions.Opened, err)
		}
	})
}

func TestRunPrintsWhatItFound(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(f *fake) {
		f.send = func(c *fakeConn, i int) {
			if i != 3 {
				c.message(i)
			}
		}
	})
	c := f.command()
	var table, object bytes.Buffer
	if err := c.Run(t.Context(), &table); !errors.Is(err, ErrFaults) || !strings.Contains(err.Error(), "12 lost") {
		t.Errorf("Run: %v, want 12 lost", err)
	}
	for _, row := range []string{"sessions", "12 of 12 opened", "latency", "p999", "lost ", "server CPU", "per session"} {
		if !strings.Contains(table.String(), row) {
			t.Errorf("the table lacks %q:\n%s", row, &table)
		}
	}
	c.JSON = true
	if err := c.Run(t.Context(), &object); !errors.Is(err, ErrFaults) {
		t.Errorf("Run with --json: %v, want ErrFaults", err)
	}
	var got struct {
		Lost int64 `json:"lost"`
		OK   bool  `json:"ok"`
	}
	if err := json.Unmarshal(object.Bytes(), &got); err != nil || got.Lost != 12 || got.OK {
		t.Errorf("JSON: %+v, %v; want 12 lost, not ok\n%s", got, err, &object)
	}
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	c := newFake(t).command()
	c.Addr = []string{"127.0.0.1:1"}
	if err := c.Run(t.Context(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "nothing was published") {
		t.Errorf("without gRPC: %v, want nothing was published", err)
	}
}
