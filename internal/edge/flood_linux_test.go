package edge

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/hub"
)

// flood writes b again and again until the peer's end or the connection's, and returns the close code.
func (c *conn) flood(b string) (code int) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			_ = c.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c.nc, b); err != nil {
				return
			}
		}
	})
	for {
		g, err := c.read(20 * time.Second)
		if err != nil || g.op == 0x88 {
			_ = c.nc.Close()
			wg.Wait()
			return g.code
		}
	}
}

func TestFloodsOfWhatIsNoMessageEndTheSessionAndKeepNothing(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{CloseTimeout: 200 * time.Millisecond}})
		canary := s.connect("/ws/general")
		canary.want("subscribed")
		for name, b := range map[string]string{
			"pings":            string(masked(0x89, "")),
			"pings with bytes": string(masked(0x89, strings.Repeat("x", 125))),
			"pongs":            string(masked(0x8a, "")),
			"empty fragments":  string(masked(0x01, "")) + strings.Repeat(string(masked(0x00, "")), 500),
			"tiny fragments":   string(masked(0x01, "\"")) + strings.Repeat(string(masked(0x00, "x")), 500),
		} {
			before := s.Stats().RateLimited[KindControls]
			c := s.connect("/ws/general")
			c.want("subscribed")
			if code := c.flood(strings.Repeat(b, 8)); code != 4504 {
				t.Errorf("%s: closed %d", name, code)
			}
			if n := s.Stats().RateLimited[KindControls] - before; n != 1 {
				t.Errorf("%s: counted %d times", name, n)
			}
		}
		canary.say(`{"type":"chat","ref":"c"}`)
		canary.want("ack")
		_ = canary.nc.Close()
		until(t, "all are gone", func() bool { return s.sessions.Load() == 0 })
	})
}

// One fragment more than a message may have, one control frame more than a second: the last that is allowed passes.
func TestControlFramesAndFragmentsAreCountedExactly(t *testing.T) {
	for _, more := range []int{0, 1} {
		inBubbleWith(t, Config{Anonymous: true, Limits: Limits{Fragments: 3, SessionControls: 5}}, func(t *testing.T, s *server) {
			fragments, pongs := s.let("/ws/general", ""), s.let("/ws/general", "")
			fragments.want("subscribed")
			pongs.want("subscribed")
			whole := string(masked(0x01, `{"type":`)) + strings.Repeat(string(masked(0x00, "")), 1+more) + string(masked(0x80, `"chat"}`))
			fragments.send(whole)
			pongs.send(strings.Repeat(string(masked(0x8a, "")), 5+more))
			pongs.send(string(text(`{"type":"chat"}`)))
			if more == 0 {
				fragments.want("chat")
				pongs.want("chat")
				return
			}
			for name, c := range map[string]*conn{"fragments": fragments, "pongs": pongs} {
				if code, _ := c.closed(); code != 4504 {
					t.Errorf("%s: closed %d", name, code)
				}
			}
		})
	}
}

func TestOpensAndResetsLeaveNoDescriptorGoroutineOrMemory(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Limits: Limits{Handshakes: -1}}})
	cycle := func(opens, resets int) (heap uint64) {
		for i := range opens + resets {
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			c := &conn{t: t, nc: nc}
			c.send(fmt.Sprintf("GET /ws/room%d HTTP/1.1\r\n", i%7) + strings.Join(upgrade(), "\r\n") + "\r\n\r\n")
			head := make([]byte, 12)
			if _, err := io.ReadFull(nc, head); err != nil || string(head) != "HTTP/1.1 101" {
				t.Fatalf("%q %v", head, err)
			}
			if i < opens {
				c.send(string(text(`{"type":"chat"}`)) + string(masked(0x88, "\x03\xe8")))
				_, _ = io.Copy(io.Discard, nc)
			} else {
				c.send(string(text(`{"type":"chat"}`)[:8]))
				_ = nc.(*net.TCPConn).SetLinger(0)
			}
			_ = nc.Close()
		}
		until(t, "all are gone", func() bool { return s.sessions.Load() == 0 && s.hub.Stats().Sessions == 0 })
		s.bus.mu.Lock()
		clear(s.bus.rooms) // the test's own history
		s.bus.mu.Unlock()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	cycle(200, 50)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	before := cycle(200, 50)
	after := cycle(2000, 500)
	until(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines })
	until(t, "descriptors are back", func() bool { return descriptors(t) <= files })
	t.Logf("heap %d KiB before, %d KiB after 2,000 opens and 500 resets", before>>10, after>>10)
	if after > before+1<<20 {
		t.Errorf("heap %d -> %d", before, after)
	}
}

// A hundred members of another room, and ten of the same, read nothing while they are sent more than they can hold. Whoever
// reads gets everything in order; how long it takes is told, and judged by nobody.
func TestSlowReadersDoNotKeepTheirNeighboursFromAnything(t *testing.T) {
	s := serve(t, fast, setup{hub: hub.Config{WriteTimeout: time.Second, CloseTimeout: 200 * time.Millisecond}, cfg: Config{CloseTimeout: 200 * time.Millisecond}})
	reader := s.connect("/ws/calm")
	reader.want("subscribed")
	const messages = 200
	round := func(name string) {
		var took []time.Duration
		for i := range messages {
			start := time.Now()
			s.bus.put("calm", fmt.Sprintf(`{"n":%d}`, i))
			if f := reader.want("chat"); string(f.Data) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Fatalf("got %s for %d", f.Data, i)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		t.Logf("%s: a message takes %v, one of a hundred %v", name, took[messages/2], took[messages*99/100])
	}
	round("alone")
	for i := range 110 {
		room := "/ws/noise"
		if i >= 100 {
			room = "/ws/calm"
		}
		c := s.connect(room)
		c.want("subscribed")
		_ = c.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	var stop atomic.Bool
	var noise sync.WaitGroup
	noise.Go(func() {
		big := `"` + strings.Repeat("x", 32<<10) + `"`
		for !stop.Load() {
			s.bus.put("noise", big)
			pause(2 * time.Millisecond)
		}
	})
	until(t, "they are blocked", func() bool { return s.hub.Stats().Blocked >= 100 })
	round("beside a hundred that do not read")
	until(t, "they are closed as slow", func() bool { return s.Stats().Closed[CloseSlow] >= 100 })
	stop.Store(true)
	noise.Wait()
	round("after them")
}
