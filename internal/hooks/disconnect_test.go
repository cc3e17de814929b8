package hooks_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/hooks"
)

// listener takes ended sessions, or does not.
type listener struct {
	mu    sync.Mutex
	away  bool
	calls int
	got   []hooks.Disconnection
	sizes []int
}

func (l *listener) hear(_ context.Context, ended []hooks.Disconnection) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.away {
		return errHook
	}
	l.got = append(l.got, ended...)
	l.sizes = append(l.sizes, len(ended))
	return nil
}

// back has it take what it is told from now on. It returns how often it was told so far.
func (l *listener) back() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = false
	return l.calls
}

func gone(user string, n int) hooks.Disconnection {
	return hooks.Disconnection{Session: hooks.Session{ID: fmt.Sprint(user, n), User: user}, Code: 1000, Time: time.Now()}
}

// live runs a chain in a bubble; end ends it and waits.
func live(t *testing.T, l *listener, elsewhere hooks.Elsewhere) (ch *hooks.Chain, end func()) {
	ch, _, _ = chain(hooks.Hooks{Disconnect: l.hear}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ch.Run(ctx, elsewhere) }()
	return ch, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestEndedSessionsAreToldInOrderUntilTheyAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{away: true}
		ch, end := live(t, l, nil)
		for i := range 1200 {
			ch.Began("ada")
			ch.Ended(gone("ada", i))
		}
		time.Sleep(20 * time.Second)
		if calls := l.back(); calls < 4 || calls > 20 {
			t.Errorf("%d tries in 20 s, want some", calls)
		}
		time.Sleep(10 * time.Second)
		end()
		if len(l.got) != 1200 {
			t.Fatalf("%d were told, want 1200", len(l.got))
		}
		for i, d := range l.got {
			if d.Session.ID != fmt.Sprint("ada", i) {
				t.Fatalf("session %d is %s", i, d.Session.ID)
			}
		}
		for _, n := range l.sizes {
			if n > 500 {
				t.Errorf("a call tells of %d", n)
			}
		}
		if st := ch.Stats(); st.Dropped != 0 {
			t.Errorf("%d dropped", st.Dropped)
		}
	})
}

func TestTheOldestOfTooManyEndedSessionsAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		ch, _, _ := chain(hooks.Hooks{Disconnect: l.hear}, nil)
		for i := range 10_003 {
			ch.Ended(gone("ada", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what waits is told all the same
		if err := ch.Run(ctx, nil); err != nil {
			t.Error(err)
		}
		if len(l.got) != 10_000 || l.got[0].Session.ID != "ada3" || ch.Stats().Dropped != 3 {
			t.Errorf("%d told, from %s on, %d dropped; want 10,000 from ada3 on and 3", len(l.got), l.got[0].Session.ID, ch.Stats().Dropped)
		}
	})
}

func TestACallIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		ch, _, _ := chain(hooks.Hooks{Disconnect: l.hear}, nil)
		const large = 20 << 10
		for i := range 400 {
			d := gone("ada", i)
			d.Session.Data = []byte(strings.Repeat("x", large))
			ch.Ended(d)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = ch.Run(ctx, nil)
		if len(l.got) != 400 || len(l.sizes) != 3 {
			t.Errorf("%d told in calls of %v, want 400 in 3", len(l.got), l.sizes)
		}
		for _, n := range l.sizes {
			if n*large > 3<<20 {
				t.Errorf("a call tells of %d, in more than 3 MiB", n)
			}
		}
	})
}

func TestTheEndWaitsOnlySoLongForWhoDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch, _, _ := chain(hooks.Hooks{Disconnect: func(ctx context.Context, _ []hooks.Disconnection) error {
			<-ctx.Done()
			return nil // too late
		}}, func(c *hooks.Config) { c.Points[hooks.Disconnect].Timeout = time.Hour })
		for i := range 700 {
			ch.Ended(gone("ada", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		begin := time.Now()
		if err := ch.Run(ctx, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin) - time.Minute; took != hooks.DefaultFlushTime || ch.Stats().Dropped != 700 {
			t.Errorf("took %v, dropped %d; want %v and all 700", took, ch.Stats().Dropped, hooks.DefaultFlushTime)
		}
	})
}

func TestTheLastSessionOfAUserIsToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		l := &listener{}
		ch, end := live(t, l, func(_ context.Context, users []string) ([]bool, error) {
			asked = append(asked, users...)
			if users[0] == "fail" {
				return nil, errHook
			}
			there := make([]bool, len(users))
			for i, u := range users {
				there[i] = u == "elsewhere"
			}
			return there, nil
		})
		for _, user := range []string{"ada", "ada", "bob", "elsewhere"} {
			ch.Began(user)
		}
		for i, user := range []string{"ada", "ada", "bob", "elsewhere"} {
			ch.Ended(gone(user, i))
		}
		synctest.Wait()
		ch.Began("fail")
		ch.Ended(gone("fail", 4))
		synctest.Wait()
		end()
		var last []string
		for _, d := range l.got {
			if d.LastOfUser {
				last = append(last, d.Session.ID)
			}
		}
		if fmt.Sprint(last) != "[ada1 bob2]" || fmt.Sprint(asked) != "[ada bob elsewhere fail]" {
			t.Errorf("last are %v, asked about %v; want ada1 and bob2, and all users", last, asked)
		}
	})
}
