package edge

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestBrokenFramesEndTheSessionWithTheirCode(t *testing.T) {
	attacks := []struct {
		name string
		send []byte
		code int
	}{
		{"unmasked", []byte("\x81\x02{}"), 1002},
		{"compressed", masked(0xc1, "{}"), 1002},
		{"second reserved bit", masked(0xa1, "{}"), 1002},
		{"third reserved bit", masked(0x91, "{}"), 1002},
		{"reserved opcode 3", masked(0x83, ""), 1002},
		{"reserved control opcode 11", masked(0x8b, ""), 1002},
		{"ping in fragments", masked(0x09, "x"), 1002},
		{"ping of 126 bytes", masked(0x89, strings.Repeat("x", 126)), 1002},
		{"continuation of nothing", masked(0x80, "x"), 1002},
		{"message inside a message", append(masked(0x01, "{"), masked(0x81, "{}")...), 1002},
		{"long form of a short length", append([]byte{0x81, 0xfe, 0, 2, 0, 0, 0, 0}, "{}"...), 1002},
		{"64-bit form of a short length", append([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, "{}"...), 1002},
		{"length with the top bit", []byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0}, 1002},
		{"a tebibyte claimed", append([]byte{0x81, 0xff}, append(binary.BigEndian.AppendUint64(nil, 1<<40), 0, 0, 0, 0)...), 1009},
		{"close of one byte", masked(0x88, "x"), 1002},
		{"close with 1005", masked(0x88, "\x03\xed"), 1002},
		{"close with 999", masked(0x88, "\x03\xe7"), 1002},
		{"close with 5000", masked(0x88, "\x13\x88"), 1002},
		{"close reason that is no UTF-8", masked(0x88, "\x03\xe8\xff"), 1007},
		{"text that is no UTF-8", masked(0x81, "\"\xff\""), 1007},
		{"UTF-8 broken over fragments", append(masked(0x01, "\"\xc3"), masked(0x80, "\"")...), 1007},
		{"surrogate", masked(0x81, "\xed\xa0\x80"), 1007},
		{"binary", masked(0x82, "{}"), 1003},
		{"one byte too much", masked(0x81, strings.Repeat("x", 1025)), 1009},
		{"one byte too much in two frames", append(masked(0x01, strings.Repeat("x", 1000)), masked(0x80, strings.Repeat("x", 25))...), 1009},
		{"too many fragments", append(masked(0x01, "\""), []byte(strings.Repeat(string(masked(0x00, "")), 300))...), 4504},
		{"too many pings at once", []byte(strings.Repeat(string(masked(0x89, "x")), 101)), 4504},
		{"too many pongs at once", []byte(strings.Repeat(string(masked(0x8a, "")), 101)), 4504},
		{"honest close", masked(0x88, "\x03\xe8bye"), 1000},
		{"close with an own code", masked(0x88, "\x0f\xa1"), 4001},
		{"close without a code", masked(0x88, ""), 1005},
	}
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{MaxFrameBytes: 1024}})
		canary := s.connect("/ws/general")
		canary.want("subscribed")
		for _, a := range attacks {
			t.Run(a.name, func(t *testing.T) {
				for _, split := range []bool{false, true} {
					c := s.connect("/ws/general")
					c.t = t
					c.want("subscribed")
					if !split {
						c.send(string(a.send))
					} else {
						for i := range min(len(a.send), 40) { // each header and the beginning of the payload, byte by byte
							c.send(string(a.send[i : i+1]))
						}
						c.send(string(a.send[min(len(a.send), 40):]))
					}
					if code, _ := c.closed(); code != a.code {
						t.Errorf("split %v: closed %d, want %d", split, code, a.code)
					}
				}
			})
		}
		canary.say(`{"type":"chat","data":1,"ref":"c"}`)
		canary.want("ack")
		canary.nc.Close()
		until(t, "all sessions are gone", func() bool { return s.sessions.Load() == 0 })
	})
}

func TestRepliesToWhatCameBeforeAreSentBeforeTheClose(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		for _, end := range [][]byte{masked(0x88, "\x03\xe8"), masked(0x82, "x"), masked(0x83, "")} {
			c := s.connect("/ws/general")
			c.want("subscribed")
			c.send(string(text(`{"type":"chat","ref":"1"}`)) + string(text(`{"type":"ping","ref":"2","data":[1]}`)) + string(end))
			c.want("ack")
			if f := c.want("pong"); f.Ref != "2" || string(f.Data) != "[1]" {
				t.Errorf("pong %+v", f)
			}
			if code, _ := c.closed(); code == 1006 {
				t.Error("no close frame")
			}
		}
	})
}

func TestOfThePingsOfOneReadTheLatestIsAnswered(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		c := s.connect("/ws")
		c.next("welcome")
		c.send(string(masked(0x89, "one")) + string(masked(0x89, "two")) + string(masked(0x89, "three")))
		for {
			g, err := c.read(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if g.op == 0x8a && string(g.payload) == "three" {
				return
			}
			if g.op != 0x8a {
				t.Fatalf("got %#x %q", g.op, g.payload)
			}
		}
	})
}

func TestBytesBehindTheHandshakeAreRead(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{AssemblyTimeout: 100 * time.Millisecond}})
		c := s.raw()
		whole := text(`{"type":"chat","data":"early","ref":"e"}`)
		if res := c.ask("/ws/general", whole); res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
		c.want("chat")
		c.nc.Close()

		half := s.raw()
		half.ask("/ws/general", whole[:9])
		half.want("subscribed")
		if code, reason := half.closed(); code != 4001 || reason != "message not complete" {
			t.Errorf("half a message behind the handshake: closed %d %q", code, reason)
		}
	})
}

func TestAMessageMustArriveInTime(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{cfg: Config{AssemblyTimeout: 150 * time.Millisecond}})
		for name, begun := range map[string][]byte{
			"half a header":         {0x81},
			"half a message":        text(`{"type":"chat"}`)[:10],
			"fragments without end": masked(0x01, `{"type":`),
			"a message, then half":  append(text(`{"type":"ping"}`), 0x81),
		} {
			c := s.connect("/ws/general")
			c.want("subscribed")
			c.send(string(begun))
			if code, reason := c.closed(); code != 4001 || reason != "message not complete" {
				t.Errorf("%s: closed %d %q", name, code, reason)
			}
		}
		c := s.connect("/ws/general") // the clock is of a message, not of the session
		c.want("subscribed")
		whole := text(`{"type":"ping"}`)
		for range 4 {
			c.send(string(whole[:5]))
			pause := time.NewTimer(60 * time.Millisecond)
			<-pause.C
			c.send(string(whole[5:]))
			c.want("pong")
		}
	})
}

func TestJSONThatIsNoFrameIsAnsweredAndNotEchoed(t *testing.T) {
	s := serve(t, fast, setup{})
	deep := strings.Repeat("[", 33) + strings.Repeat("]", 33)
	for _, c := range []struct{ name, frame, code string }{
		{"empty", ``, "bad_frame"},
		{"scalar", `7`, "bad_frame"},
		{"array", `[]`, "bad_frame"},
		{"no type", `{"data":1}`, "bad_frame"},
		{"two documents", `{"type":"chat"}{"type":"chat"}`, "bad_frame"},
		{"trailing bytes", `{"type":"chat"}evilbytes`, "bad_frame"},
		{"comment", `{"type":"chat"/*evil*/}`, "bad_frame"},
		{"BOM", "\ufeff" + `{"type":"chat"}`, "bad_frame"},
		{"NaN", `{"type":"chat","data":NaN}`, "bad_frame"},
		{"unclosed", strings.Repeat("[", 30000), "bad_frame"},
		{"too deep", `{"type":"chat","data":` + deep + `}`, "bad_frame"},
		{"deeper", `{"type":"chat","data":` + strings.Repeat("[", 15000) + strings.Repeat("]", 15000) + `}`, "bad_frame"},
		{"duplicate type", `{"type":"chat","type":"system"}`, "bad_frame"},
		{"duplicate in data", `{"type":"chat","data":{"a":1,"a":2}}`, "bad_frame"},
		{"escaped duplicate", `{"type":"chat","t\u0079pe":"system"}`, "bad_frame"},
		{"type of the wrong kind", `{"type":5}`, "bad_frame"},
		{"room of the wrong kind", `{"type":"chat","room":{}}`, "bad_frame"},
		{"ref too long", `{"type":"chat","ref":"` + strings.Repeat("r", 65) + `"}`, "bad_frame"},
		{"capital type", `{"TYPE":"chat"}`, "bad_frame"},
		{"kelvin sign", `{"type":"chat","\u212aey":"x","room":"@x"}`, "not_permitted"},
		{"unknown type", `{"type":"evil"}`, "unknown_type"},
		{"type in capitals", `{"type":"System"}`, "unknown_type"},
		{"escaped system", `{"type":"\u0073ystem"}`, "forbidden_type"},
		{"system", `{"type":"system","data":{"event":"gap"}}`, "forbidden_type"},
		{"notification", `{"type":"notification"}`, "forbidden_type"},
		{"error", `{"type":"error"}`, "forbidden_type"},
		{"ack", `{"type":"ack"}`, "forbidden_type"},
		{"pong", `{"type":"pong"}`, "forbidden_type"},
		{"no such status", `{"type":"presence","data":{"status":"offline"}}`, "bad_frame"},
		{"room not joined", `{"type":"chat","room":"other"}`, "not_joined"},
		{"room that cannot be", `{"type":"chat","room":"a//b"}`, "bad_room"},
		{"to everyone", `{"type":"chat","room":"@global"}`, "not_permitted"},
		{"who of the server's", `{"type":"who","room":"@global"}`, "not_permitted"},
		{"who of a room not joined", `{"type":"who","room":"other"}`, "not_joined"},
		{"history of a room not joined", `{"type":"history","room":"other"}`, "not_joined"},
		{"history of a user's room", `{"type":"history","room":"@user/bob"}`, "not_permitted"},
		{"history of no page", `{"type":"history","data":{"page":"evil"}}`, "bad_frame"},
		{"own notifications of an anonymous session", `{"type":"history","room":"@me"}`, "not_joined"},
		{"subscribe to the server's", `{"type":"subscribe","room":"@global"}`, "not_permitted"},
		{"unsubscribe from elsewhere", `{"type":"unsubscribe","room":"other"}`, "not_joined"},
		{"token", `{"type":"auth","data":{"token":"evil"}}`, "bad_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws := s.connect("/ws/general")
			ws.t = t
			ws.want("subscribed")
			ws.say("%s", c.frame)
			f := ws.next("error " + c.code)
			if strings.Contains(string(f.Data), "evil") {
				t.Errorf("input in %s", f.Data)
			}
			ws.say(`{"type":"chat","ref":"after"}`) // the session goes on
			ws.want("ack")
		})
	}
}

func TestTheRefOfARefusedFrameComesBack(t *testing.T) {
	s := serve(t, fast, setup{})
	ws := s.connect("/ws/general")
	ws.want("subscribed")
	for _, f := range []string{`{"ref":"R","type":"nope"}`, `{"ref":"R","type":"chat","data":{"a":1,"a":2}}`, `{"ref":"R","type":"chat","room":"x"}`} {
		ws.say("%s", f)
		if got := ws.frame(); got.Type != "error" || got.Ref != "R" {
			t.Errorf("%s: answered %+v", f, got)
		}
	}
}

func TestAFloodOfMessagesIsLimitedThenEndedAndOthersAreServed(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		canary, flood := s.connect("/ws/general"), s.connect("/ws/other")
		canary.want("subscribed")
		flood.want("subscribed")
		go func() {
			b := []byte(strings.Repeat(string(text(`{"type":"chat","data":"x"}`)), 40))
			for range 1000 {
				if _, err := flood.nc.Write(b); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		canary.say(`{"type":"chat","ref":"c"}`)
		canary.want("ack")
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the canary waited %v", d)
		}
		var limited, passed int
		for {
			g, err := flood.read(10 * time.Second)
			if err != nil {
				t.Fatalf("no close frame: %v", err)
			}
			switch {
			case g.j.what() == "error rate_limited":
				limited++
				if ms, _ := g.j.field("retry_after_ms").(float64); ms < 1 || ms > 2000 {
					t.Errorf("retry_after_ms %v", g.j.field("retry_after_ms"))
				}
			case g.j.Type == "chat":
				passed++
			}
			if g.op == 0x88 {
				if g.code != 4504 || limited != refusedMax || passed < 40 || passed > 40+20*5 {
					t.Errorf("closed %d after %d passed and %d limited", g.code, passed, limited)
				}
				return
			}
		}
	})
}

func TestPingFramesHaveABudgetOfTheirOwn(t *testing.T) {
	s := serve(t, fast, setup{})
	ws := s.connect("/ws/general")
	ws.want("subscribed")
	for i := range 4 + 1 {
		ws.say(`{"type":"ping","ref":"%d"}`, i)
	}
	for i := range 4 {
		if f := ws.next("pong"); f.Ref != fmt.Sprint(i) {
			t.Errorf("pong %d for %s", i, f.Ref)
		}
	}
	ws.next("error rate_limited")
	ws.say(`{"type":"chat","ref":"c"}`)
	ws.want("ack")
}

func TestResetsInTheMiddleOfAFrameLeaveNothingBehind(t *testing.T) {
	onPaths(t, func(t *testing.T, p path) {
		s := serve(t, p, setup{})
		n := 500
		if p == overTLS {
			n = 50
		}
		for range n {
			c := s.connect("/ws/general")
			c.send(string(text(`{"type":"chat"}`)[:8]))
			if tcp, ok := c.nc.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = c.nc.Close()
		}
		until(t, "all sessions are gone", func() bool { return s.sessions.Load() == 0 && s.hub.Stats().Sessions == 0 })
	})
}
