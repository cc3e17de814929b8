package brokertest

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// recorder is a test whose failure is not one of the test around it.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	faults   []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) { r.Error(fmt.Sprintf(format, args...)) }

func (r *recorder) Error(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprint(args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) FailNow() { r.Fatal("FailNow") }

func (r *recorder) Failed() bool { return len(r.all()) > 0 }

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.faults)
}

// record runs a case and returns what it reported.
func record(t *testing.T, run func(t testing.TB)) []string {
	r := &recorder{TB: t}
	apart := func(f func()) { // Fatalf ends the goroutine it is called on
		var wg sync.WaitGroup
		wg.Go(f)
		wg.Wait()
	}
	apart(func() { run(r) })
	for _, f := range slices.Backward(r.cleanups) {
		apart(f)
	}
	return r.all()
}

func sameFunc(a, b contractFunc) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}
