package snippets

import (
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEveryLanguagePublishesOnceAndReceivesAcrossACut(t *testing.T) {
	n, all := serve(t), languages(t)
	t.Run("in", func(t *testing.T) {
		for _, l := range all {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				t.Run("a repeat with the same idempotency key is told its first receipt", func(t *testing.T) { publishes(t, n, l) })
				t.Run("a session renews its token, resumes, and stays away when it must", func(t *testing.T) { receives(t, n, l) })
			})
		}
	})
}

func publishes(t *testing.T, n node, l language) {
	room := "publish-" + l.name
	run := func(credential string) *program {
		env := append([]string{"ADDR=" + n.backends, "KEY=" + credential}, l.env...)
		p := start(t, env, append(slices.Clone(l.publish), room, `{"text":"Hello"}`, "once"))
		p.end()
		return p
	}
	first, again, refused := run(key), run(key), run("a-key-that-nobody-knows")
	id, duplicate, _ := strings.Cut(first.out.String(), " ")
	if first.code != 0 || len(id) != 36 || duplicate != "false\n" {
		t.Errorf("the first call: exit code %d, %q", first.code, first.out.String())
	}
	if again.code != 0 || again.out.String() != id+" true\n" {
		t.Errorf("the repeat: exit code %d, %q", again.code, again.out.String())
	}
	if refused.code == 0 || !strings.Contains(strings.ToLower(refused.err.String()), "unauthenticated") {
		t.Errorf("with a wrong key: exit code %d, %q", refused.code, refused.err.String())
	}
	if kept := n.backend(t).kept(room); !slices.Equal(kept, []string{`{"text":"Hello"}`}) {
		t.Errorf("the room keeps %q", kept)
	}
}

func receives(t *testing.T, n node, l language) {
	room, file, b, way := "session-"+l.name, filepath.Join(t.TempDir(), "token"), n.backend(t), newWay(t, n.sessions)
	giveToken(t, file, -time.Minute, `"expired"`)
	s := start(t, append([]string{"URL=ws://" + way.addr + "/ws/" + room, "TOKEN_FILE=" + file}, l.env...), l.session)
	told := func(want string) {
		t.Helper()
		eventually(t, "it receives "+want, func() bool { return strings.HasSuffix(withoutPresence(s), want) })
	}

	eventually(t, "an expired token is refused", func() bool { return strings.Contains(s.err.String(), "4500") })
	giveToken(t, file, 62*time.Second, `"first"`)
	eventually(t, "a good one is taken", func() bool { return slices.Equal(b.infos(room), []string{`"first"`}) })
	giveToken(t, file, time.Hour, `"second"`)
	eventually(t, "a running session gets another", func() bool { return slices.Equal(b.infos(room), []string{`"second"`}) })

	b.publish(room, `{"n":1}`)
	told(room + " test {\"n\":1}\n")
	way.close()
	b.publish(room, `{"n":2}`)
	way.open()
	told(room + " test {\"n\":2}\n")
	b.publish(room, `{"n":3}`)
	told(room + " test {\"n\":3}\n")
	want := room + " test {\"n\":1}\n" + room + " test {\"n\":2}\n" + room + " test {\"n\":3}\n"
	if got := withoutPresence(s); got != want {
		t.Errorf("it received\n%swant\n%s", got, want)
	}

	replace(t, file, "no.good.token")
	way.close()
	way.open()
	if code := s.end(); code != 1 || !strings.Contains(s.err.String(), "4502") {
		t.Errorf("with a bad token: exit code %d, %q", code, s.err.String())
	}
}

// withoutPresence is what a session has printed, but for who is there.
func withoutPresence(s *program) string {
	var kept strings.Builder
	for line := range strings.Lines(s.out.String()) {
		if !strings.Contains(line, `"user_id"`) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// way is a road to the node that can be closed.
type way struct {
	addr, to string
	mu       sync.Mutex
	closed   bool
	conns    map[net.Conn]struct{}
}

func newWay(t *testing.T, to string) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{addr: l.Addr().String(), to: to, conns: make(map[net.Conn]struct{})}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.close()
		work.Wait()
	})
	return w
}

// carry brings bytes both ways until one side ends.
func (w *way) carry(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer to.Close()
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.conns[from], w.conns[to] = struct{}{}, struct{}{}
	w.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
	back.Wait()
}

// close cuts what goes over the way and lets nothing more in.
func (w *way) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *way) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = false
}
