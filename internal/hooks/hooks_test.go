package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal keeps what is logged.
type journal struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) lines() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), "\n")
}

// tried counts how questions ended.
type tried struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *tried) observe(_ context.Context, p hooks.Point, r hooks.Result, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[p.String()+" "+r.String()]++
}

func (c *tried) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.n)
}

func chain(h hooks.Hooks, change func(*hooks.Config)) (*hooks.Chain, *tried, *journal) {
	var count tried
	var log journal
	cfg := hooks.Config{Hooks: h, Observe: count.observe}
	if change != nil {
		change(&cfg)
	}
	return hooks.New(cfg, slog.New(slog.NewTextHandler(&log, nil))), &count, &log
}

func opened(c *hooks.Config) {
	for i := range c.Points {
		c.Points[i].Open = true
	}
}

var (
	errHook = errors.New("as the test wants")
	fits    = func(*hooks.Admission) error { return nil }
	said    = func() *message.Message {
		return &message.Message{Type: message.TypeChat, Room: "a", From: "ada", Data: []byte(`1`), Ephemeral: true}
	}
)

// hang answers when its context ends.
func hang(ctx context.Context) error { <-ctx.Done(); return errHook }

func unavailable(err error) bool {
	away, ok := errors.AsType[*hooks.Unavailable](err)
	return ok && away.Retry > 0
}

func TestAChainThatIsNotThereAsksNobody(t *testing.T) {
	var none *hooks.Chain
	some, _, _ := chain(hooks.Hooks{Subscribe: func(context.Context, *hooks.Session, message.Room) error { return nil }}, nil)
	for _, p := range hooks.Points() {
		if none.Asks(p) || some.Asks(p) != (p == hooks.Subscribe) {
			t.Errorf("%v: Asks = %t and %t", p, none.Asks(p), some.Asks(p))
		}
		if got, err := hooks.ParsePoint(p.String()); got != p || err != nil {
			t.Errorf("ParsePoint(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := hooks.ParsePoint("publish"); err == nil {
		t.Error("publish is a hook")
	}
	none.Began("ada")
	none.Ended(hooks.Disconnection{})
	if err := none.Run(t.Context(), nil); err != nil || none.Stats() != (hooks.Stats{}) {
		t.Errorf("Run = %v, Stats = %+v", err, none.Stats())
	}
}

func TestAnAdmissionIsHeldToItsRules(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		a    hooks.Admission
		good bool
	}{
		"nothing said":        {hooks.Admission{}, true},
		"all of it":           {hooks.Admission{User: "ada", Rooms: []message.Room{"a", "b"}, Grants: map[string]string{"*": "r"}, Data: []byte(`{}`), Info: []byte(`{ "a": 1 }`), Expires: time.Now().Add(time.Hour)}, true},
		"a user that is none": {hooks.Admission{User: "a\nb"}, false},
		"a room that is none": {hooks.Admission{Rooms: []message.Room{"a", "@me"}}, false},
		"data no JSON":        {hooks.Admission{Data: []byte(`{`)}, false},
		"the largest data":    {hooks.Admission{Data: []byte(`"` + long[:4094] + `"`)}, true},
		"data too large":      {hooks.Admission{Data: []byte(`"` + long[:4095] + `"`)}, false},
		"info no JSON":        {hooks.Admission{Info: []byte(`1 2`)}, false},
		"the largest info":    {hooks.Admission{Info: []byte(`"` + long[:1022] + `"`)}, true},
		"info too large":      {hooks.Admission{Info: []byte(`"` + long[:1023] + `"`)}, false},
		"an end in the past":  {hooks.Admission{Expires: time.Now().Add(-time.Second)}, false},
		"grants that are bad": {hooks.Admission{Grants: map[string]string{"bad": "r"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ch, count, _ := chain(hooks.Hooks{Connect: func(context.Context, *hooks.Attempt) (*hooks.Admission, error) { return &c.a, nil }}, nil)
			got, err := ch.Connect(t.Context(), &hooks.Attempt{}, func(a *hooks.Admission) error {
				if a.Grants["bad"] != "" {
					return errHook
				}
				return nil
			})
			if (err == nil) != c.good || err != nil && !unavailable(err) {
				t.Errorf("Connect = %+v, %v; good: %t", got, err, c.good)
			}
			if want := map[bool]string{true: "map[connect ok:1]", false: "map[connect failed:1]"}[c.good]; count.String() != want {
				t.Errorf("counted %v, want %s", count, want)
			}
			if name == "all of it" && string(got.Info) != `{"a":1}` {
				t.Errorf("info is %s, want it compact", got.Info)
			}
		})
	}
}

func TestANoIsANoWhateverIsWrongWithIt(t *testing.T) {
	for code, want := range map[int]int{0: 4502, 4502: 4502, 4400: 4400, 4499: 4499, 4700: 4700, 4999: 4999, 1000: 4502, 4399: 4502, 4500: 4502, 4699: 4502, 5000: 4502, -1: 4502} {
		ch, count, _ := chain(hooks.Hooks{Connect: func(context.Context, *hooks.Attempt) (*hooks.Admission, error) {
			return nil, &hooks.Denied{Code: code, Reason: strings.Repeat("ä", 100)}
		}}, opened)
		_, err := ch.Connect(t.Context(), &hooks.Attempt{}, fits)
		no, ok := errors.AsType[*hooks.Denied](err)
		if !ok || no.Code != want || no.Reason != strings.Repeat("ä", 61) || count.String() != "map[connect denied:1]" {
			t.Errorf("code %d: %+v, %v, counted %v; want %d and a reason of at most 123 bytes", code, no, err, count, want)
		}
	}
	no := &hooks.Denied{Reason: strings.Repeat("x", 600)}
	ch, _, _ := chain(hooks.Hooks{
		Subscribe: func(context.Context, *hooks.Session, message.Room) error { return no },
		Message:   func(context.Context, *hooks.Session, *message.Message) (*message.Message, error) { return nil, no },
	}, opened)
	_, err := ch.Message(t.Context(), &hooks.Session{}, said())
	for what, err := range map[string]error{"message": err, "subscribe": ch.Subscribe(t.Context(), &hooks.Session{}, []message.Room{"a"})[0]} {
		if no, ok := errors.AsType[*hooks.Denied](err); !ok || len(no.Reason) != 512 {
			t.Errorf("%s: %v, want a denial whose reason has 512 bytes", what, err)
		}
	}
}

func TestAMessageIsPublishedAsTheHookWants(t *testing.T) {
	big := []byte(`"` + strings.Repeat("x", 64<<10) + `"`)
	for name, c := range map[string]struct {
		got  *message.Message
		want string
	}{
		"another":           {&message.Message{Type: "vote", Room: "elsewhere", From: "eve", Data: []byte(`2`)}, "vote a eve 2 true"},
		"suppressed":        {nil, "nothing"},
		"no JSON":           {&message.Message{Type: "chat", Data: []byte(`{`)}, "failed"},
		"no data":           {&message.Message{Type: "chat"}, "failed"},
		"a duplicate key":   {&message.Message{Type: "chat", Data: []byte(`{"a":1,"a":2}`)}, "failed"},
		"too large":         {&message.Message{Type: "chat", Data: big}, "failed"},
		"a type of nobody":  {&message.Message{Type: "A", Data: []byte(`1`)}, "failed"},
		"a server's type":   {&message.Message{Type: "presence", Data: []byte(`1`)}, "failed"},
		"a backend's type":  {&message.Message{Type: "notification", Data: []byte(`1`)}, "failed"},
		"from out of order": {&message.Message{Type: "chat", From: "a\x00", Data: []byte(`1`)}, "failed"},
	} {
		for _, open := range []bool{false, true} {
			change := func(*hooks.Config) {}
			if open {
				change = opened
			}
			ch, _, _ := chain(hooks.Hooks{Message: func(context.Context, *hooks.Session, *message.Message) (*message.Message, error) { return c.got, nil }}, change)
			m := said()
			out, err := ch.Message(t.Context(), &hooks.Session{}, m)
			got := "nothing"
			switch {
			case unavailable(err) || open && out == m:
				got = "failed"
			case err != nil:
				got = err.Error()
			case out != nil:
				got = fmt.Sprintf("%s %s %s %s %t", out.Type, out.Room, out.From, out.Data, out.Ephemeral)
			}
			if got != c.want || string(m.Data) != "1" {
				t.Errorf("%s, open %t: %s (the original: %+v), want %s", name, open, got, m, c.want)
			}
		}
	}
}

func TestAFailingHookRefusesOrLetsPassAndIsLoggedOnceAMinute(t *testing.T) {
	for _, open := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var change func(*hooks.Config)
			if open {
				change = opened
			}
			ch, count, log := chain(hooks.Hooks{
				Connect:   func(context.Context, *hooks.Attempt) (*hooks.Admission, error) { return nil, errHook },
				Subscribe: func(context.Context, *hooks.Session, message.Room) error { return errHook },
				Message: func(context.Context, *hooks.Session, *message.Message) (*message.Message, error) {
					return nil, errHook
				},
			}, change)
			const times = 200 // what comes at once, though bad, opens no breaker
			for range times {
				a, err := ch.Connect(t.Context(), &hooks.Attempt{}, fits)
				if open != (err == nil) || !open && !unavailable(err) || open && (a.User != "" || a.Grants != nil) {
					t.Fatalf("Connect = %+v, %v", a, err)
				}
				if err := ch.Subscribe(t.Context(), &hooks.Session{}, []message.Room{"a"})[0]; open != (err == nil) || !open && !unavailable(err) {
					t.Fatalf("Subscribe = %v", err)
				}
				m := said()
				if out, err := ch.Message(t.Context(), &hooks.Session{}, m); open != (err == nil && out == m) || !open && !unavailable(err) {
					t.Fatalf("Message = %v, %v", out, err)
				}
			}
			if want := "map[connect failed:200 message failed:200 subscribe failed:200]"; count.String() != want {
				t.Errorf("counted %v, want %s", count, want)
			}
			passed := ch.Stats().Passed
			if want := map[bool]uint64{true: times}[open]; passed[hooks.Connect] != want || passed[hooks.Subscribe] != want || passed[hooks.Message] != want {
				t.Errorf("passed %v, want %d each", passed, want)
			}
			if log.lines() != 3 {
				t.Errorf("%d lines, want one for each hook:\n%s", log.lines(), &log.buf)
			}
			time.Sleep(time.Minute)
			_, _ = ch.Connect(t.Context(), &hooks.Attempt{}, fits)
			_, _ = ch.Connect(t.Context(), &hooks.Attempt{}, fits)
			if log.lines() != 4 || !strings.Contains(log.buf.String(), "failures=200") {
				t.Errorf("a minute later:\n%s", &log.buf)
			}
		})
	}
}

func TestAHookHasItsTimeAndWaitingForATurnIsPartOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		begin := time.Now()
		ch, count, _ := chain(hooks.Hooks{Message: func(ctx context.Context, _ *hooks.Session, _ *message.Message) (*message.Message, error) {
			if time.Since(begin) == 0 { // at the end a turn may come at the last moment
				asked.Add(1)
			}
			return nil, hang(ctx)
		}}, func(c *hooks.Config) {
			c.Points[hooks.Message] = hooks.Rules{Timeout: 3 * time.Second, Concurrency: 2}
		})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := ch.Message(t.Context(), &hooks.Session{}, said()); !unavailable(err) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != 3*time.Second || asked.Load() != 2 || count.String() != "map[message timeout:5]" {
			t.Errorf("took %v, %d were asked, counted %v; want 3 s, 2, 5 timeouts", took, asked.Load(), count)
		}
	})
}

func TestAnAnswerThatComesTooLateIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch, count, _ := chain(hooks.Hooks{Message: func(_ context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
			time.Sleep(2 * time.Second) // whatever its context says
			return m, nil
		}}, nil)
		if _, err := ch.Message(t.Context(), &hooks.Session{}, said()); !unavailable(err) || count.String() != "map[message timeout:1]" {
			t.Errorf("%v, counted %v", err, count)
		}
	})
}

func TestABreakerOpensWhenNobodyAnswersAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		var well atomic.Bool
		ch, count, _ := chain(hooks.Hooks{Subscribe: func(context.Context, *hooks.Session, message.Room) error {
			asked.Add(1)
			if well.Load() {
				return nil
			}
			return fmt.Errorf("dial: %w", hooks.ErrNoAnswer)
		}}, nil)
		ask := func() error { return ch.Subscribe(t.Context(), &hooks.Session{}, []message.Room{"a"})[0] }
		for range 100 {
			if err := ask(); !unavailable(err) {
				t.Fatal(err)
			}
		}
		if asked.Load() != 20 || count.String() != "map[subscribe failed:20 subscribe shed:80]" {
			t.Errorf("%d asked, counted %v; want 20, then none", asked.Load(), count)
		}
		time.Sleep(3 * time.Second)
		_ = ask() // the one that tries
		_ = ask()
		if asked.Load() != 21 {
			t.Errorf("%d asked, want one more", asked.Load())
		}
		well.Store(true)
		time.Sleep(3 * time.Second)
		for range 5 {
			if err := ask(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWhoHangsUpIsNobodysFailure(t *testing.T) {
	ch, count, log := chain(hooks.Hooks{Connect: func(ctx context.Context, _ *hooks.Attempt) (*hooks.Admission, error) {
		return nil, hang(ctx)
	}}, opened)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if a, err := ch.Connect(ctx, &hooks.Attempt{}, fits); !errors.Is(err, context.Canceled) {
			t.Fatalf("Connect = %v, %v, want it canceled", a, err)
		}
	}
	if count.String() != "map[connect canceled:100]" || log.lines() != 0 || ch.Stats().Passed[hooks.Connect] != 0 {
		t.Errorf("counted %v, logged %s", count, &log.buf)
	}
}

func TestRoomsOfOneFrameAreAskedSixteenAtOnceWithinOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		rooms := make([]message.Room, 60)
		for i := range rooms {
			rooms[i] = message.Room(fmt.Sprint("r", i))
		}
		ch, _, _ := chain(hooks.Hooks{Subscribe: func(ctx context.Context, _ *hooks.Session, room message.Room) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
			if room == "r7" {
				return &hooks.Denied{Reason: "not there"}
			}
			return nil
		}}, nil)
		begin := time.Now()
		errs := ch.Subscribe(t.Context(), &hooks.Session{}, rooms)
		if took := time.Since(begin); took != time.Second || most.Load() != 16 {
			t.Errorf("took %v, %d at once, want 1 s and 16", took, most.Load())
		}
		yes, no, away := 0, 0, 0
		for i, err := range errs {
			_, denied := errors.AsType[*hooks.Denied](err)
			switch {
			case err == nil:
				yes++
			case denied && i == 7:
				no++
			case unavailable(err):
				away++
			default:
				t.Errorf("%s: %v", rooms[i], err)
			}
		}
		if yes != 47 || no != 1 || away != 12 { // three rounds of 16 in a second
			t.Errorf("%d allowed, %d denied, %d without an answer; want 47, 1, 12", yes, no, away)
		}
	})
}

func TestHooksOfTheProgramAroundHaveAllTheirTimeAndTheirErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch, _, log := chain(hooks.Hooks{Message: func(ctx context.Context, _ *hooks.Session, m *message.Message) (*message.Message, error) {
			time.Sleep(time.Hour)
			if string(m.Data) == "1" {
				return nil, errHook
			}
			return m, ctx.Err()
		}}, func(c *hooks.Config) { c.Inside = true })
		if _, err := ch.Message(t.Context(), &hooks.Session{}, said()); !errors.Is(err, errHook) {
			t.Errorf("Message = %v, want the hook's own", err)
		}
		m := said()
		m.Data = []byte(`2`)
		if out, err := ch.Message(t.Context(), &hooks.Session{}, m); out != m || err != nil || log.lines() != 0 {
			t.Errorf("Message = %v, %v", out, err)
		}
	})
}
