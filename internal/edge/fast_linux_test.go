package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Numbers are given out again at once, so one call too late would reach a stranger. The ledger knows whose each is.
func TestReusedDescriptorsAreNeverMistaken(t *testing.T) {
	l := &ledger{owner: make(map[int32]*session)}
	before := descriptors(t)
	s := serve(t, fast, setup{
		cfg: Config{ledger: l, MaxSessions: 1000, CloseTimeout: 300 * time.Millisecond},
		hub: hub.Config{Shards: 2, WriteTimeout: 200 * time.Millisecond, CloseTimeout: 100 * time.Millisecond},
	})
	inside := descriptors(t)
	var wg sync.WaitGroup
	var opened, own atomic.Int64
	start := time.Now()
	going := func() bool { // three seconds, or what a busy machine needs to have tried something
		d := time.Since(start)
		return d < 3*time.Second || d < 30*time.Second && (opened.Load() < 300 || own.Load() == 0)
	}
	for k := range 2 {
		wg.Go(func() {
			pad := strings.Repeat("p", 300)
			for i := 0; going(); i++ {
				room := (k + 2*i) % 16
				s.bus.put(message.Room(fmt.Sprint("room", room)), fmt.Sprintf(`"to room%d. %s"`, room, pad))
				if i%20 == 0 {
					pause(time.Millisecond)
				}
			}
		})
	}
	for c := range 24 {
		wg.Go(func() {
			for i := 0; going(); i++ {
				opened.Add(1)
				own.Add(churn(t, s.addr, rand.IntN(16), fmt.Sprintf("%d-%d", c, i)))
			}
		})
	}
	wg.Wait()
	until(t, "every session is released", func() bool { return s.sessions.Load() == 0 })
	until(t, "every descriptor is closed", func() bool { return descriptors(t) <= inside })
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults[:min(5, len(l.faults))] {
		t.Error(f)
	}
	if len(l.owner) > 0 {
		t.Errorf("%d descriptors still owned", len(l.owner))
	}
	if opened.Load() < 300 || own.Load() == 0 {
		t.Errorf("%d sessions, %d answers: nothing was tried", opened.Load(), own.Load())
	}
	t.Logf("%d sessions, %d answers, descriptors %d -> %d", opened.Load(), own.Load(), before, inside)
}

// churn is one short and rude life. It checks that every byte was meant for it, and counts its answers.
func churn(t *testing.T, addr string, room int, me string) (answers int64) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return 0
	}
	defer func() { _ = nc.Close() }()
	c := &conn{t: t, nc: nc, r: bufio.NewReader(nc)}
	c.send(fmt.Sprintf("GET /ws/room%d HTTP/1.1\r\n%s\r\n\r\n", room, strings.Join(upgrade(), "\r\n")))
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
		return 0
	}
	reads := rand.IntN(20) > 0
	for i := range rand.IntN(60) {
		if i == 0 || rand.IntN(8) == 0 {
			c.send(string(text(`{"type":"ping","data":"`+me+`"}`)) + string(masked(0x89, me)))
		}
		if !reads {
			pause(time.Millisecond)
			continue
		}
		g, err := c.read(100 * time.Millisecond)
		if err != nil {
			break
		}
		switch {
		case g.j.Type == "chat" && !strings.HasPrefix(string(g.j.Data), fmt.Sprintf(`"to room%d. `, room)),
			g.j.Type == "pong" && string(g.j.Data) != `"`+me+`"`, g.op == 0x8a && string(g.payload) != me:
			t.Errorf("%s in room%d got %.80q", me, room, g.payload)
		case g.j.Type == "pong":
			answers++
		}
	}
	switch rand.IntN(3) {
	case 0:
		_ = nc.(*net.TCPConn).SetLinger(0)
	case 1:
		c.send(string(masked(0x88, "\x03\xe8")))
	}
	return answers
}

func TestADescriptorUsedByAStrangerIsSeenByTheLedger(t *testing.T) {
	l := &ledger{owner: make(map[int32]*session)}
	e := &Edge{cfg: Config{ledger: l}}
	a, b := &session{e: e, fd: 9}, &session{e: e, fd: 9}
	l.own(a)
	a.owned()
	b.owned()
	l.own(b)
	if len(l.faults) != 2 {
		t.Errorf("faults %q", l.faults)
	}
}

func TestNothingOfTheLibraryOutlivesTheHandshake(t *testing.T) {
	r := httptest.NewRequest("GET", "/ws/x", nil)
	for _, h := range upgrade() {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	for _, released := range []bool{true, false} {
		us, _ := net.Pipe()
		l := lents.Get().(*lent)
		l.ResponseWriter = &hijackable{httptest.NewRecorder(), us}
		ws, err := websocket.Accept(l, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		w := weak.Make(ws)
		if released {
			_ = ws.CloseNow()
		}
		ws = nil
		runtime.GC()
		// Without CloseNow a finalizer keeps it for one more collection: that shows that the test can fail.
		if alive := w.Value() != nil; alive == released {
			t.Errorf("CloseNow %v: alive %v after one collection", released, alive)
		}
		runtime.KeepAlive(l)
	}
}

func TestAnIdleSessionIsAFewHundredBytesAndNoGoroutine(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 208 {
		t.Errorf("a session takes %d bytes", n)
	}
	with := tokens(t)
	with.cfg.Presence = presence.New(presence.Config{}, presence.NewMemory(presence.MemoryConfig{}), func(message.Room, presence.Update) {}, slog.New(slog.DiscardHandler))
	run(t, with.cfg.Presence.Run)
	t.Run("without a token", func(t *testing.T) {
		holdIdle(t, setup{}, func(i int) string { return fmt.Sprint("X-Number: ", i) }, 1792)
	})
	t.Run("with a token and presence", func(t *testing.T) {
		holdIdle(t, with, func(i int) string { return fmt.Sprint("Authorization: Bearer user-", i) }, 2560)
	})
}

// holdIdle measures what one of many sessions holds: the hub's and presence's share, and the test's bus and client, included.
func holdIdle(t *testing.T, with setup, header func(int) string, most uint64) {
	with.cfg.MaxSessions = 5000
	s := serve(t, fast, with)
	first := s.connect("/ws/general", header(-1))
	first.want("subscribed")
	measure := func() (int, uint64) {
		until(t, "handshakes have ended", func() bool { return s.handshaking() == 0 })
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	const n = 1000
	var held []*conn
	goroutines, heap := measure()
	for i := range n {
		c := s.connect("/ws/general", header(i))
		c.want("subscribed")
		c.r = nil // the client's own buffer is not what is measured
		held = append(held, c)
	}
	goroutines2, heap2 := measure()
	if goroutines2 > goroutines {
		t.Errorf("goroutines %d -> %d", goroutines, goroutines2)
	}
	t.Logf("%d bytes of heap per session", (heap2-heap)/n)
	if (heap2-heap)/n > most {
		t.Errorf("%d bytes of heap per session, want at most %d", (heap2-heap)/n, most)
	}
	runtime.KeepAlive(held)
}

// handshaking counts net/http's connections that are not yet a session's.
func (s *server) handshaking() int {
	b := make([]byte, 1<<20)
	return bytes.Count(b[:runtime.Stack(b, true)], []byte("net/http.(*conn).serve"))
}
