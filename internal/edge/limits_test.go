package edge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slack5/realtime/internal/auth"
)

// knock is a handshake from an address ("": 192.0.2.1) over a pipe: a session, or the refusal.
func (s *server) knock(target, from string, headers ...string) (*conn, *http.Response) {
	s.t.Helper()
	r := httptest.NewRequest("GET", target, nil)
	if from != "" {
		r.RemoteAddr = from
	}
	for _, h := range upgrade(headers...) {
		k, v, _ := strings.Cut(h, ": ")
		if k != "Host" {
			r.Header.Add(k, v)
		}
	}
	us, them := net.Pipe()
	s.t.Cleanup(func() { _ = us.Close() })
	w := httptest.NewRecorder()
	s.ServeHTTP(&hijackable{w, them}, r)
	if w.Code != http.StatusOK { // what a recorder says of a hijacked connection
		return nil, w.Result()
	}
	c := &conn{t: s.t, nc: us, r: bufio.NewReader(us)}
	c.deadline(10 * time.Second)
	if res, err := http.ReadResponse(c.r, r); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("GET %s: %v %v", target, res, err)
	}
	return c, nil
}

// let insists on a session.
func (s *server) let(target, from string, headers ...string) *conn {
	s.t.Helper()
	c, res := s.knock(target, from, headers...)
	if c == nil {
		s.t.Fatalf("GET %s from %q: %s, want a session", target, from, res.Status)
	}
	return c
}

// turned insists on a refusal that tells when to come again.
func (s *server) turned(target, from, code string, headers ...string) (after time.Duration) {
	s.t.Helper()
	c, res := s.knock(target, from, headers...)
	if c != nil {
		s.t.Fatalf("GET %s from %q: a session, want %s", target, from, code)
	}
	body := new(strings.Builder)
	_ = res.Write(body)
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if res.StatusCode != http.StatusTooManyRequests || err != nil || seconds < 1 || !strings.Contains(body.String(), `"code":"`+code+`"`) {
		s.t.Fatalf("GET %s from %q: want 429 %s with Retry-After:\n%s", target, from, code, body)
	}
	return time.Duration(seconds) * time.Second
}

// limited is what was refused so far, by kind; kinds without any are left out.
func (s *server) limited() map[Kind]uint64 {
	all := s.Stats().RateLimited
	for k, n := range all {
		if n == 0 {
			delete(all, k)
		}
	}
	return all
}

func (s *server) wantLimited(kind Kind, n uint64) {
	s.t.Helper()
	if got := s.limited(); len(got) != 1 || got[kind] != n {
		s.t.Errorf("counted %v, want %d of %v", got, n, kind)
	}
}

// bounded lets anybody be who he says, but "bad".
func bounded(l Limits) Config {
	return Config{Limits: l, PingInterval: time.Hour, Verify: func(token string) (auth.Identity, error) {
		switch token {
		case "bad":
			return auth.Identity{}, errors.New("bad")
		case "old":
			return auth.Identity{}, auth.ErrExpired
		case "revoked":
			return auth.Identity{}, ErrRevoked
		}
		return auth.Identity{User: token, Grants: everything}, nil
	}}
}

// Each rate admits its burst, refuses one more, and admits the next when it said it would.
func TestASessionIsHeldToEachOfItsRates(t *testing.T) {
	frames := func(typ, data string) func(int) string {
		return func(i int) string { return fmt.Sprintf(`{"type":%q,"ref":"%d","data":%s}`, typ, i, data) }
	}
	kilo := func(i int) string { // 1,000 bytes
		f := fmt.Sprintf(`{"type":"chat","ref":"%d","data":""}`, i)
		return f[:len(f)-2] + strings.Repeat("x", 1000-len(f)) + `"}`
	}
	for _, c := range []struct {
		kind   Kind
		limits Limits
		frame  func(i int) string
		burst  int
		retry  time.Duration
	}{
		{KindFrames, Limits{}, frames("chat", "1"), 40, 50 * time.Millisecond},
		{KindFrames, Limits{SessionFrames: 5}, frames("chat", "1"), 10, 200 * time.Millisecond},
		{KindPings, Limits{}, frames("ping", "1"), 4, 500 * time.Millisecond},
		{KindStatuses, Limits{}, frames("presence", `{"status":"away"}`), 4, 500 * time.Millisecond},
		{KindSubscribes, Limits{SessionSubscribes: 4, UserNewRooms: -1}, func(i int) string { return fmt.Sprintf(`{"type":"subscribe","ref":"%d","room":"r%d"}`, i, i) }, 16, 250 * time.Millisecond},
		{KindNewRooms, Limits{SessionSubscribes: -1, UserNewRooms: 4}, func(i int) string { return fmt.Sprintf(`{"type":"subscribe","ref":"%d","room":"r%d"}`, i, i) }, 16, 250 * time.Millisecond},
		{KindBytes, Limits{SessionBytes: 5000}, kilo, 10, 200 * time.Millisecond},
		{KindUserFrames, Limits{UserFrames: 5}, frames("chat", "1"), 10, 200 * time.Millisecond},
		{KindUserBytes, Limits{UserBytes: 5000}, kilo, 10, 200 * time.Millisecond},
		{KindAddressFrames, Limits{AddressFrames: 5}, frames("chat", "1"), 10, 200 * time.Millisecond},
		{KindAddressBytes, Limits{AddressBytes: 5000}, kilo, 10, 200 * time.Millisecond},
	} {
		t.Run(fmt.Sprint(c.kind, c.burst), func(t *testing.T) {
			cfg := bounded(c.limits)
			cfg.MaxRooms = 8
			inBubbleWith(t, cfg, func(t *testing.T, s *server) {
				ws := s.let("/ws/general?token=alice", "")
				ws.want("subscribed")
				time.Sleep(time.Minute) // the room of the URL is paid for
				ask := func(i int) (refused bool, retry time.Duration) {
					ws.say("%s", c.frame(i))
					_, want, _ := strings.Cut(c.frame(i), `"ref":"`)
					want, _, _ = strings.Cut(want, `"`)
					for {
						if f := ws.frame(); f.Ref == want {
							ms, _ := f.field("retry_after_ms").(float64)
							return f.what() == "error rate_limited", time.Duration(ms) * time.Millisecond
						}
					}
				}
				for i := range c.burst {
					if refused, _ := ask(i); refused {
						t.Fatalf("frame %d of %d is refused", i+1, c.burst)
					}
					if strings.Contains(c.frame(i), "subscribe") { // MaxRooms is another limit
						ws.say(`{"type":"unsubscribe","room":"r%d"}`, i)
						ws.want("unsubscribed")
					}
				}
				refused, retry := ask(c.burst)
				if !refused || retry > c.retry || retry <= c.retry-5*time.Millisecond {
					t.Fatalf("one more: refused %v, again after %v, want %v", refused, retry, c.retry)
				}
				s.wantLimited(c.kind, 1)
				time.Sleep(retry)
				if refused, _ := ask(c.burst + 1); refused {
					t.Error("refused after the time that was named")
				}
				if refused, _ := ask(c.burst + 2); !refused {
					t.Error("two pass in the time of one")
				}
			})
		})
	}
}

func TestRatesThatAreTurnedOffLetEverythingPass(t *testing.T) {
	inBubbleWith(t, Config{Anonymous: true, Limits: Limits{SessionFrames: -1, SessionBytes: -1, SessionPings: -1, SessionStatuses: -1, UserFrames: -1, SessionControls: -1}}, func(t *testing.T, s *server) {
		ws := s.let("/ws/general", "")
		ws.want("subscribed")
		for i := range 300 {
			ws.say(`{"type":"chat","ref":"%d"}`, i)
			ws.want("ack")
			ws.say(`{"type":"ping"}`)
			ws.want("pong")
			ws.say(`{"type":"presence","ref":"x","data":{"status":"away"}}`)
			ws.want("ack")
			ws.send(string(masked(0x8a, "")))
		}
		if got := s.limited(); len(got) != 0 {
			t.Errorf("refused %v", got)
		}
	})
}

func TestSessionsOfAUserShareHisRateAlsoAfterTheyCameAgain(t *testing.T) {
	cfg := bounded(Limits{UserFrames: 5})
	cfg.UserNodes = func(user string) int {
		if user == "everywhere" {
			return 5
		}
		return 1
	}
	inBubbleWith(t, cfg, func(t *testing.T, s *server) {
		refused := func(user string, sessions int) uint64 {
			before := s.limited()[KindUserFrames]
			for range sessions {
				ws := s.let("/ws/general?token="+user, "")
				ws.want("subscribed")
				for i := range 4 {
					ws.say(`{"type":"chat","room":"nowhere","ref":"%d"}`, i)
					for ws.frame().Ref != fmt.Sprint(i) {
						continue
					}
				}
				_ = ws.nc.Close()
			}
			return s.limited()[KindUserFrames] - before
		}
		for _, c := range []struct {
			user     string
			sessions int
			refused  uint64
		}{{"alice", 5, 10}, {"bob", 2, 0}, {"alice", 1, 4}, {"everywhere", 1, 2}} {
			if n := refused(c.user, c.sessions); n != c.refused {
				t.Errorf("%d frames of %d sessions of %s are refused, want %d", n, c.sessions, c.user, c.refused)
			}
		}
	})
}

func TestRefusedFramesAreCountedAgainstTheSessionAndEndIt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server) {
		ws := s.let("/ws", "")
		ws.want("welcome")
		for i := range refusedMax - 1 {
			ws.say(`{"type":"chat","room":"a//b","ref":"%d"}`, i)
			if f := ws.frame(); f.Type != "error" {
				t.Fatalf("frame %d: %+v", i, f)
			}
			if i%20 == 19 {
				time.Sleep(time.Second * 9 / 10)
			}
		}
		ws.say(`{"type":"chat","room":"a//b"}`)
		if code, _ := ws.closed(); code != 4504 {
			t.Errorf("closed %d, want 4504 after %d", code, refusedMax)
		}
		calm := s.let("/ws", "")
		calm.want("welcome")
		for i := range 2 * refusedMax { // fewer in 10 s
			calm.say(`{"type":"chat","room":"a//b","ref":"%d"}`, i)
			calm.want("error bad_room")
			time.Sleep(time.Second / 19)
		}
	})
}

func TestAFrameIsRefusedOnceHoweverManyRoomsItNames(t *testing.T) {
	inBubbleWith(t, Config{Anonymous: true, MaxRooms: 1, Limits: Limits{SessionSubscribes: -1}}, func(_ *testing.T, s *server) {
		ws := s.let("/ws/general", "")
		ws.want("subscribed")
		rooms := make([]string, 50)
		for i := range rooms {
			rooms[i] = fmt.Sprintf(`"r%d":null`, i)
		}
		for range 5 { // 250 rooms
			ws.say(`{"type":"subscribe","data":{"rooms":{%s}}}`, strings.Join(rooms, ","))
			for range rooms {
				ws.next("error room_limit")
			}
			time.Sleep(1900 * time.Millisecond)
		}
		ws.say(`{"type":"chat","ref":"r"}`)
		ws.want("ack")
	})
}

func TestANewRoomIsPaidForByTheUserAlsoInTheURL(t *testing.T) {
	cfg := bounded(Limits{UserNewRooms: 1})
	cfg.MaxRooms = 4
	inBubbleWith(t, cfg, func(t *testing.T, s *server) {
		first := s.let("/ws?token=alice&room=a&room=b&room=c&room=d", "")
		first.want("welcome")
		again := s.let("/ws?token=alice&room=a&room=b&room=c&room=d", "") // they are not new
		again.want("welcome")
		some := s.let("/ws?token=alice&room=e&room=f&room=g", "")
		some.want("welcome")
		some.want("subscribed")
		part := s.let("/ws?token=alice&room=h&room=i&room=a", "")
		for range 1 { // h is the last of eight
			if f := part.want("error rate_limited"); f.Room != "i" || f.field("retry_after_ms").(float64) < 1 {
				t.Errorf("refused %q %s, want i", f.Room, f.Data)
			}
		}
		if after := s.turned("/ws/j?token=alice&refuse=close", "", "rate_limited"); after != time.Second {
			t.Errorf("Retry-After %v", after)
		}
		s.let("/ws/k?token=bob", "").want("subscribed")
		time.Sleep(time.Second)
		s.let("/ws/j?token=alice", "").want("subscribed")
	})
}

func TestUsersAndAddressesHaveSoManySeats(t *testing.T) {
	inBubbleWith(t, bounded(Limits{UserSessions: 2, AddressSessions: 3}), func(t *testing.T, s *server) {
		here, there := "192.0.2.1:1", "[2001:db8:1:2::3]:1"
		a := s.let("/ws?token=alice", here)
		s.let("/ws?token=alice", there)
		s.turned("/ws?token=alice", here, "session_limit")
		s.turned("/ws?token=alice", there, "session_limit")
		b := s.let("/ws?token=bob", here)
		s.let("/ws?token=eve", here)
		s.turned("/ws?token=mallory&refuse=close", here, "session_limit")
		s.let("/ws?token=mallory", "[2001:db8:1:2:ffff::9]:1")
		s.let("/ws?token=carol", "[2001:db8:1:2::4]:1")
		s.turned("/ws?token=dave", "[2001:db8:1:2::5]:1", "session_limit") // one /64 is one address
		s.let("/ws?token=dave", "[2001:db8:1:3::5]:1")
		for range 5 { // this host has no limits by address, and sessions without a user are not of one
			s.let("/ws?token=local", "127.0.0.1:1").nc.Close()
			synctest.Wait()
		}

		_ = a.nc.Close()
		_ = b.nc.Close()
		synctest.Wait()
		s.let("/ws?token=alice", here)
		s.let("/ws?token=zoe", here)
		s.turned("/ws?token=zoe", here, "session_limit")

		// refuse=close tells a browser
		r := httptest.NewRequest("GET", "/ws?token=alice&refuse=close", nil)
		r.RemoteAddr = "198.51.100.7:1"
		for _, h := range upgrade() {
			k, v, _ := strings.Cut(h, ": ")
			r.Header.Set(k, v)
		}
		us, them := net.Pipe()
		go s.ServeHTTP(&hijackable{httptest.NewRecorder(), them}, r)
		c := &conn{t: t, nc: us, r: bufio.NewReader(us)}
		c.deadline(10 * time.Second)
		if _, err := http.ReadResponse(c.r, r); err != nil {
			t.Fatal(err)
		}
		c.next("error session_limit")
		if code, _ := c.closed(); code != 4502 {
			t.Errorf("closed %d", code)
		}
	})
}

func TestSeatsAreGivenBackHoweverASessionEnds(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		set := tokens(t)
		set.cfg.Limits = Limits{UserSessions: 3}
		s := serve(t, p, set)
		for i := range 30 {
			c := s.connect("/ws?token=alice")
			switch i % 3 {
			case 0:
				c.send(string(masked(0x88, "\x03\xe8")))
				c.closed()
			case 1:
				c.send(string(masked(0x82, "")))
				c.closed()
			}
			_ = c.nc.Close()
			until(t, "it is gone", func() bool { return s.sessions.Load() == 0 })
		}
	})
}

// A bad token costs its address; where it has sent too many, no token of it is looked at.
func TestBadTokensHoldUpTheirAddressOnly(t *testing.T) {
	inBubbleWith(t, bounded(Limits{}), func(t *testing.T, s *server) {
		guess := func(token, from string) *http.Response {
			t.Helper()
			c, res := s.knock("/ws?token="+token, from)
			if c != nil {
				t.Fatalf("%s is let in", token)
			}
			return res
		}
		for range 100 { // neither is a guess
			guess("old", "")
			guess("revoked", "")
		}
		for i := range 20 {
			if res := guess("bad", ""); res.StatusCode != http.StatusUnauthorized {
				t.Fatalf("guess %d: %s", i+1, res.Status)
			}
		}
		s.turned("/ws?token=bad", "", "rate_limited")
		s.turned("/ws?token=alice", "", "rate_limited")
		s.wantLimited(KindAddressFailures, 2)
		s.let("/ws?token=alice", "198.51.100.7:1")
		s.let("/ws?token=alice", "127.0.0.1:1")
		time.Sleep(time.Second)
		if res := guess("bad", ""); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("after a second: %s", res.Status)
		}
		s.turned("/ws?token=bad", "", "rate_limited")
		for range 100 {
			if res := guess("bad", "127.0.0.1:1"); res.StatusCode != http.StatusUnauthorized {
				t.Fatalf("this host: %s", res.Status)
			}
		}
		time.Sleep(time.Minute)

		ws := s.let("/ws?token=alice", "")
		ws.want("welcome")
		for range 20 {
			ws.say(`{"type":"auth","data":{"token":"bad"}}`)
			ws.want("error bad_token")
		}
		ws.say(`{"type":"auth","data":{"token":"alice"}}`)
		ws.want("error rate_limited")
		s.turned("/ws?token=alice", "", "rate_limited")
	})
}

func TestAnAddressMakesSoManyHandshakesASecond(t *testing.T) {
	inBubbleWith(t, Config{Anonymous: true, Limits: Limits{AddressHandshakes: 2}}, func(_ *testing.T, s *server) {
		for range 4 {
			s.let("/ws", "")
		}
		s.turned("/ws", "", "rate_limited")
		s.wantLimited(KindAddressHandshakes, 1)
		s.let("/ws", "192.0.2.2:1")
		for range 10 {
			s.let("/ws", "[::1]:1")
			s.let("/ws", "@") // no address at all
		}
		time.Sleep(time.Second / 2)
		s.let("/ws", "")
		s.turned("/ws", "", "rate_limited")
	})
}

// A thousand come back at once: a part is let in, some wait a moment, the rest are told when to come, and all are in soon.
func TestAHerdIsLetInAtABoundedRate(t *testing.T) {
	const herd, rate = 1000, 100
	inBubbleWith(t, Config{Anonymous: true, Limits: Limits{Handshakes: rate}}, func(t *testing.T, s *server) {
		start := time.Now()
		var mu sync.Mutex
		in := make(map[int]int) // sessions by the second
		tries := 0
		var wg sync.WaitGroup
		for range herd {
			wg.Go(func() {
				for {
					c, res := s.knock("/ws", "")
					mu.Lock()
					tries++
					if c != nil {
						in[int(time.Since(start)/time.Second)]++
						mu.Unlock()
						return
					}
					mu.Unlock()
					after, err := strconv.Atoi(res.Header.Get("Retry-After"))
					if res.StatusCode != http.StatusTooManyRequests || err != nil || after < 1 {
						t.Errorf("refused with %s, Retry-After %d %v", res.Status, after, err)
						return
					}
					time.Sleep(time.Duration(after) * time.Second)
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		t.Logf("%d in after %v, %d tries, by the second: %v", herd, took, tries, in)
		if took > 2*herd/rate*time.Second {
			t.Errorf("the last was in after %v", took)
		}
		for second, n := range in {
			if n > rate+rate/4+1 {
				t.Errorf("%d were let in in second %d", n, second)
			}
		}
		if tries > 3*herd {
			t.Errorf("%d tries of %d", tries, herd)
		}
		s.wantLimited(KindHandshakes, uint64(tries-herd))
	})
}

func TestWhoLeavesWhileHeWaitsIsNotLetIn(t *testing.T) {
	inBubbleWith(t, Config{Anonymous: true, Limits: Limits{Handshakes: 1}}, func(t *testing.T, s *server) {
		s.let("/ws", "")
		r := httptest.NewRequest("GET", "/ws", nil)
		for _, h := range upgrade() {
			k, v, _ := strings.Cut(h, ": ")
			r.Header.Set(k, v)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		done := make(chan struct{})
		go func() { defer close(done); s.ServeHTTP(w, r.WithContext(ctx)) }()
		synctest.Wait()
		cancel()
		<-done
		if w.Code != http.StatusTooManyRequests || s.sessions.Load() != 1 {
			t.Errorf("answered %d with %d sessions", w.Code, s.sessions.Load())
		}
	})
}
