package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// procRoot is where Linux tells of processes. Elsewhere nothing is found there, and the figures are left out.
const procRoot = "/proc"

// tick is the unit of the CPU times in /proc: fixed at 100 a second for every program on Linux.
const tick = 10 * time.Millisecond

// usage is what processes have used so far.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// usageOf adds up the processes; false if there are none or one of them cannot be read, as after its end.
func usageOf(pids []int) (sum usage, ok bool) {
	for _, pid := range pids {
		cpu, err := cpuOf(pid)
		if err != nil {
			return usage{}, false
		}
		rss, err := rssOf(pid)
		if err != nil {
			return usage{}, false
		}
		sum.cpu += cpu
		sum.rss += rss
	}
	return sum, len(pids) > 0
}

func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets and may hold anything; utime and stime are the 14th and 15th.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("process %d: stat has no times", pid)
	}
	return time.Duration(user+system) * tick, nil
}

// rssOf is exact where smaps_rollup may be read; statm lags by some pages per thread.
func rssOf(pid int) (int64, error) {
	dir := filepath.Join(procRoot, strconv.Itoa(pid))
	if b, err := os.ReadFile(filepath.Join(dir, "smaps_rollup")); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Rss:"); ok {
				kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				return kb << 10, err
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("process %d: statm has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// servers finds the processes on this machine that listen on the targets' ports. It is empty when they are elsewhere or
// belong to somebody else.
func servers(targets []*target) []int {
	inodes := map[string]bool{}
	for _, t := range targets {
		if t.addr.IP.IsLoopback() || ownAddress(t.addr.IP) {
			listening(t.addr.Port, inodes)
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	var pids []int
	descriptors, _ := filepath.Glob(filepath.Join(procRoot, "[0-9]*", "fd", "[0-9]*")) // the pattern is well formed
	for _, d := range descriptors {
		to, err := os.Readlink(d)
		if err != nil || !inodes[to] {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(d))))
		if err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// listening adds the sockets that listen on a port, as links to them read.
func listening(port int, inodes map[string]bool) {
	const listen = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(procRoot, "net", name))
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) > 9 && fields[3] == listen && strings.HasSuffix(fields[1], suffix) {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
}

func ownAddress(ip net.IP) bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}
