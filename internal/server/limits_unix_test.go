//go:build unix

package server

import (
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAFileLimitLowersTheSessions(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  int
		files uint64
		fit   int
	}{
		{"there is more than enough", 10_000, 1 << 20, 10_000},
		{"there is no limit", 10_000, unix.RLIM_INFINITY, 10_000},
		{"it is just enough", 10_000, 10_100, 10_000},
		{"one file is missing", 10_000, 10_099, 9_999},
		{"the usual limit of a shell", 10_000, 1024, 924},
		{"one session is left", 10_000, 101, 1},
		{"there is hardly a file", 10_000, 100, 1},
		{"there is none", 10_000, 0, 1},
		{"all that can be asked for", math.MaxInt, 1024, 924},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fitSessions(c.want, c.files); got != c.fit {
				t.Errorf("%d sessions with %d files: %d, want %d", c.want, c.files, got, c.fit)
			}
		})
	}
}

func TestAPersonIsToldThatFewerSessionsAreLetIn(t *testing.T) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Max > math.MaxInt64 {
		t.Skipf("no limit here: %v, %v", l, err)
	}
	log := &journal{}
	s := &Server{cfg: flags(t, "--max-sessions=1000000000000"), log: log.logger(t)}
	got, files := s.sessionCap(), int(l.Max)
	if got != files-spareFiles {
		t.Errorf("%d sessions with %d files", got, files)
	}
	if warned := log.find("WARN", "file limit"); len(warned) != 1 || !strings.Contains(warned[0], `"max_sessions":`) {
		t.Errorf("warned %q, want one line with the sessions there will be", warned)
	}
}
