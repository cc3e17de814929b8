//go:build unix

package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is the command as a process of its own.
type process struct {
	*exec.Cmd
	out, err text
	ended    chan struct{}
	failure  error
}

func launch(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(exe, args...), ended: make(chan struct{})}
	p.Env = append(os.Environ(), asProcess+"=1")
	p.Stdout, p.Stderr = &p.out, &p.err
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.failure = p.Wait()
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
	})
	return p
}

// wait returns how it ended.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("it does not end:\n%s", p.err.String())
	}
	return p.failure
}

var sessionsLine = regexp.MustCompile(`(?m)^sessions +ws://([^/]+)/`)

// silent is a session whose peer answers nothing.
func silent(t *testing.T, p *process) {
	t.Helper()
	until(t, "serve says where sessions connect", func() bool { return sessionsLine.MatchString(p.out.String()) })
	until(t, "a session is let in", func() bool {
		conn, err := net.Dial("tcp", sessionsLine.FindStringSubmatch(p.out.String())[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write([]byte("GET /ws/general HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusSwitchingProtocols
	})
}

func TestWrongOptionsAreOneLineAndExitWithTwo(t *testing.T) {
	p := launch(t, "serve")
	err := p.wait(t)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("ended with %v, want exit status 2", err)
	}
	if got := p.err.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "realtime: ") || !strings.Contains(got, "--dev") {
		t.Errorf("said %q, want one line that names --dev", got)
	}
}

func TestSIGTERMEndsInOrderAndWithoutAnError(t *testing.T) {
	p := launch(t, append(onFreePorts, "--log-level=info", "--drain-timeout=500ms", "--drain-delay=0s", "--drain-window=0s")...)
	silent(t, p)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("ended with %v, want exit status 0:\n%s", err, p.err.String())
	}
	if log := p.err.String(); !strings.Contains(log, `"draining"`) || !strings.Contains(log, `"stopped"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	p := launch(t, append(onFreePorts, "--log-level=info", "--drain-timeout=10m")...)
	silent(t, p)
	begin := time.Now()
	_ = p.Process.Signal(syscall.SIGTERM)
	until(t, "it drains", func() bool { return strings.Contains(p.err.String(), `"draining"`) })
	until(t, "another signal ends it", func() bool { // the first one's handler may still be on its way out
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	})
	var exit *exec.ExitError
	if err := p.wait(t); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM { //nolint:forcetypeassert // on unix
		t.Errorf("ended with %v, want the signal", err)
	}
	// A peer that answers nothing is waited for longer than that.
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}
