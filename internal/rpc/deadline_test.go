package rpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestABoundedContextEndsInTime(t *testing.T) {
	waits := map[string]func(context.Context) error{
		"asked": func(ctx context.Context) error {
			time.Sleep(5*time.Second - time.Nanosecond)
			if ctx.Err() != nil {
				t.Errorf("ended early: %v", ctx.Err())
			}
			time.Sleep(time.Nanosecond)
			return ctx.Err()
		},
		"waited for": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"waited for, having been asked": func(ctx context.Context) error {
			if ctx.Err() != nil {
				t.Errorf("ended early: %v", ctx.Err())
			}
			<-ctx.Done()
			return ctx.Err()
		},
		"derived from": func(ctx context.Context) error {
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			<-child.Done()
			return child.Err()
		},
		"waited for after the end": func(ctx context.Context) error {
			time.Sleep(6 * time.Second)
			<-ctx.Done()
			return ctx.Err()
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				b := bound(t.Context(), 5*time.Second)
				defer b.release()
				if end, ok := b.Deadline(); !ok || end.Sub(begin) != 5*time.Second {
					t.Errorf("deadline %v, %v", end, ok)
				}
				if err := wait(b); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error %v, want DeadlineExceeded", err)
				}
				if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
					t.Errorf("after %v", took)
				}
				if err := context.Cause(b); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("cause %v", err)
				}
			})
		})
	}
}

func TestABoundedContextEndsWithItsParent(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
		b := bound(parent, time.Hour)
		if waiting {
			select {
			case <-b.Done():
				t.Error("ended at once")
			default:
			}
		}
		if b.Err() != nil || b.Value(key{}) != "v" {
			t.Errorf("err %v, value %v", b.Err(), b.Value(key{}))
		}
		cancel()
		<-b.Done()
		if !errors.Is(b.Err(), context.Canceled) {
			t.Errorf("error %v, want Canceled", b.Err())
		}
		b.release()
	}
}

type key struct{}

// What still waits when the call is over must not stay.
func TestReleaseLetsGoWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bound(t.Context(), time.Hour)
		begin, let := time.Now(), make(chan struct{})
		go func() { <-b.Done(); close(let) }()
		synctest.Wait()
		b.release()
		b.release()
		<-let
		if took := time.Since(begin); took != 0 {
			t.Errorf("after %v", took)
		}
	})
}

func TestWithoutAWaitNoTimerIsSet(t *testing.T) {
	b := bound(t.Context(), time.Hour)
	_, _, _ = b.Err(), b.Value(key{}), b.end
	b.Deadline()
	b.release()
	if b.timed != nil {
		t.Error("a timer is set though nobody waits")
	}
}

func TestABoundIsRenewedUnlessSomebodyWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := new(bounded).renew(t.Context(), time.Second)
		time.Sleep(900 * time.Millisecond)
		if first.Err() != nil {
			t.Error(first.Err())
		}
		second := first.renew(t.Context(), time.Second)
		time.Sleep(900 * time.Millisecond)
		if second != first || second.Err() != nil {
			t.Errorf("renewed: %v, %v; want the same, with its time from now", second == first, second.Err())
		}
		<-second.Done()
		third := second.renew(t.Context(), time.Second)
		if third == second || third.Err() != nil || second.Err() == nil {
			t.Errorf("renewed after a wait: %v, %v, %v", third == second, third.Err(), second.Err())
		}
		third.release()
		second.release()
	})
}
