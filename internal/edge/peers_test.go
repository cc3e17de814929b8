package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/slack5/realtime/internal/hub"
)

// library is a session of the library's, as programs have it.
func (s *server) library(t *testing.T, target string, o *websocket.DialOptions) *websocket.Conn {
	t.Helper()
	if o == nil {
		o = &websocket.DialOptions{}
	}
	scheme := "ws"
	if s.http.TLS != nil {
		scheme = "wss"
	}
	o.HTTPClient = s.http.Client()
	ws, _, err := websocket.Dial(t.Context(), scheme+"://"+s.addr+target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

// until reads to a frame of this type.
func readType(ctx context.Context, ws *websocket.Conn, typ string) (shown, error) {
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			return shown{}, err
		}
		var f shown
		if err := json.Unmarshal(b, &f); err != nil {
			return shown{}, err
		}
		if f.Type == typ {
			return f, nil
		}
	}
}

func TestALibrarysSessionsTalkAndLeave(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{PingInterval: 50 * time.Millisecond, PongTimeout: 5 * time.Second}})
		const n, each = 10, 15
		var wg sync.WaitGroup
		var joined sync.WaitGroup
		joined.Add(n)
		for i := range n {
			ws := s.library(t, "/ws/general", &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"realtime"}})
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if _, err := readType(ctx, ws, "system"); err != nil {
					t.Error(err)
				}
				joined.Done()
				joined.Wait()
				for k := range each {
					if err := ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"chat","data":[%d,%d]}`, i, k)); err != nil {
						t.Error(err)
					}
				}
				seen := make(map[int]int)
				for range n * each { // every member's messages come in its own order
					f, err := readType(ctx, ws, "chat")
					var d [2]int
					if err != nil || json.Unmarshal(f.Data, &d) != nil || d[1] != seen[d[0]] {
						t.Errorf("session %d got %s %v", i, f.Data, err)
						return
					}
					seen[d[0]]++
				}
				if err := ws.Close(websocket.StatusNormalClosure, "done"); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
		until(t, "all have left", func() bool { return s.sessions.Load() == 0 })
		if got := s.Stats().Closed[CloseNormal]; got != n {
			t.Errorf("%d closed with 1000", got)
		}
	})
}

func TestALibrarySeesTheCloseCode(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		ws := s.library(t, "/ws/general", nil)
		ws.SetReadLimit(1 << 20)
		if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("x")); err != nil {
			t.Fatal(err)
		}
		_, err := readType(t.Context(), ws, "never")
		if got := websocket.CloseStatus(err); got != websocket.StatusUnsupportedData {
			t.Errorf("closed %d: %v", got, err)
		}
	})
}

func TestACloseFollowedByTheEndIsStillAnswered(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		for range 20 {
			c := s.connect("/ws/general")
			c.want("subscribed")
			c.send(string(text(`{"type":"chat","ref":"r"}`)) + string(masked(0x88, "\x03\xe8")))
			_ = c.nc.(interface{ CloseWrite() error }).CloseWrite()
			c.want("ack")
			if g, err := c.read(5 * time.Second); err != nil || g.code != 1000 && g.j.Type != "chat" {
				t.Errorf("got %#x %v", g.op, err)
			}
		}
	})
}

func TestWhoLeavesWhileAJoinWaitsLeavesNothing(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{hub: hub.Config{JoinTimeout: 300 * time.Millisecond}, bus: func(b *bus) { b.late["never"] = true }})
		for range 10 {
			c := s.connect("/ws/never")
			c.next("welcome")
			c.say(`{"type":"ping"}`)
			_ = c.nc.(interface{ CloseWrite() error }).CloseWrite()
			_ = c.nc.Close()
			d := s.connect("/ws")
			d.next("welcome")
			d.say(`{"type":"subscribe","room":"never"}`)
			_ = d.nc.Close()
		}
		until(t, "all sessions are gone", func() bool { return s.sessions.Load() == 0 })
		until(t, "all handlers have ended", func() bool {
			b := make([]byte, 1<<20)
			return !strings.Contains(string(b[:runtime.Stack(b, true)]), "(*session).handle(")
		})
	})
}

func TestTwoThousandOpensGiveEverythingBack(t *testing.T) {
	s := serve(t, fast, setup{})
	cycle := func(n int) uint64 {
		for range n {
			c := s.connect("/ws/general")
			c.want("subscribed")
			c.send(string(masked(0x88, "\x03\xe8")))
			c.closed()
			if tcp, ok := c.nc.(*net.TCPConn); ok {
				_ = tcp.Close()
			}
		}
		until(t, "all are gone", func() bool { return s.sessions.Load() == 0 })
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	cycle(200)
	goroutines := runtime.NumGoroutine()
	before := cycle(1000)
	after := cycle(1000)
	// t.Cleanup keeps each connection's closure: some hundred bytes that are the test's
	if after > before+1000*4096 {
		t.Errorf("heap %d -> %d after 1,000 more", before, after)
	}
	until(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines+1 })
}
