package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relaxTimers lets the kernel be so late with all timers of this process. Go's monitor thread, which sleeps 20 µs at a time
// while there is work, then wakes some hundred times a second instead of some ten thousand: a tenth of a busy node's CPU.
//
// Each thread has its slack from the one that made it, and the monitor is there before main: so the program is begun anew,
// in the same process, and finds its slack set. It returns if that is so already, or could not be done.
func relaxTimers(slack time.Duration) error {
	runtime.LockOSThread() // the slack is this thread's, and it is this thread that stays
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if time.Duration(now) >= slack {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	return fmt.Errorf("exec: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
