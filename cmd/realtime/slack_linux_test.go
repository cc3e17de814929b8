package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Every thread, the monitor among them, is as late with its timers as asked for; and what the program was told it still knows.
func TestServeIsRelaxedAboutItsTimers(t *testing.T) {
	for option, want := range map[string]string{"--timer-slack=3ms": "3000000", "--timer-slack=0": "50000"} {
		t.Run(option, func(t *testing.T) {
			p := launch(t, append(onFreePorts, option)...)
			until(t, "it serves", func() bool { return sessionsLine.MatchString(p.out.String()) })
			threads, err := filepath.Glob("/proc/" + strconv.Itoa(p.Process.Pid) + "/task/*")
			if err != nil || len(threads) < 3 {
				t.Fatalf("threads %v, %v", threads, err)
			}
			for _, thread := range threads {
				b, err := os.ReadFile("/proc/" + filepath.Base(thread) + "/timerslack_ns")
				if errors.Is(err, syscall.EPERM) {
					t.Skip("only root may see another process's timer slack") // CI is root
				}
				if errors.Is(err, os.ErrNotExist) {
					continue // it has ended meanwhile
				}
				if got := strings.TrimSpace(string(b)); err != nil || got != want {
					t.Errorf("thread %s: %q, %v, want %s", filepath.Base(thread), got, err, want)
				}
			}
		})
	}
}
