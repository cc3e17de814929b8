package bench

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

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
	t.Run("are not tried forever", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, func(f *fake) { f.refuse = func(int) int { return http.StatusServiceUnavailable } })
		c := f.command()
		c.Sessions, c.Rooms = 1, 1
		err := c.Run(t.Context(), &bytes.Buffer{})
		f.mu.Lock()
		defer f.mu.Unlock()
		if !errors.Is(err, errNobody) || f.joined != openAttempts {
			t.Errorf("Run: %v after %d tries, want errNobody after %d", err, f.joined, openAttempts)
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
