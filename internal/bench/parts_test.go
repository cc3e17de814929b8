package bench

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/wire"
)

func TestDataIsJSONOfTheSizeAskedForAndReadsBack(t *testing.T) {
	for _, size := range []int{minSize, minSize + 1, 128, 5000} {
		data := appendData(nil, authorOf(maxPublishers-1, 0xfedcba98), 1234567890123456789, size)
		if len(data) != size {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
		if err := message.CheckJSON(data); err != nil {
			t.Errorf("%s: %v", data, err)
		}
		_, a, sent, ok := readMark(data)
		if !ok || a.publisher() != maxPublishers-1 || a.seq() != 0xfedcba98 || sent != 1234567890123456789 {
			t.Errorf("%s reads as %d, %d, %d, %t", data, a.publisher(), a.seq(), sent, ok)
		}
	}
	for _, s := range []string{"", "null", `{"bench":1}`, `{"bench":"` + strings.Repeat("z", 60) + `"}`, strings.Repeat("x", 80)} {
		if _, _, _, ok := readMark([]byte(s)); ok {
			t.Errorf("%q was taken for ours", s)
		}
	}
}

func TestFramesAreTakenWholeAndOnlyIfTheyAreLegal(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 100000} {
		b := wire.AppendHeader(nil, wire.OpText, size)
		b = append(append(b, bytes.Repeat([]byte("a"), size)...), "next"...)
		for _, cut := range []int{0, 1, 2, 3, 5, 9, len(b) - 5} {
			if _, _, n, err := nextFrame(b[:min(cut, len(b)-5)]); n != 0 || err != nil {
				t.Errorf("%d of %d bytes: a frame of %d, %v; want to wait", cut, len(b)-4, n, err)
			}
		}
		op, payload, n, err := nextFrame(b)
		if op != wire.OpText || len(payload) != size || n != len(b)-4 || err != nil {
			t.Errorf("size %d: opcode %d, %d bytes, %d taken, %v", size, op, len(payload), n, err)
		}
	}
	for name, b := range map[string][]byte{
		"masked": {0x81, 0x80, 0, 0, 0, 0}, "fragment": {0x01, 0}, "reserved bit": {0xc1, 0},
		"larger than is believed": wire.AppendHeader(nil, wire.OpText, maxFrame+1),
	} {
		if _, _, _, err := nextFrame(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, want errFrame", name, err)
		}
	}
}

func TestControlFramesAreMaskedAsThePeerNeedsThem(t *testing.T) {
	var p wire.Parser
	p.Allow(1)
	e, _ := p.Next(appendMasked(nil, wire.OpPong, []byte("hello")), &wire.Limits{})
	if e.Kind != wire.Pong || string(e.Data) != "hello" {
		t.Errorf("%+v, want a pong with hello", e)
	}
}

func TestWhoComesBackAfterWhichClose(t *testing.T) {
	for code, want := range map[int][2]bool{
		0: {true, false}, 1001: {true, false}, 1005: {true, false}, 1006: {true, false}, 1011: {true, false}, 1013: {true, false},
		4000: {true, false}, 4499: {true, false}, 1012: {true, true},
		1000: {}, 1002: {}, 1003: {}, 1007: {}, 1009: {}, 4500: {}, 4501: {}, 4999: {},
	} {
		if again, atOnce := comesBack(code); again != want[0] || atOnce != want[1] {
			t.Errorf("comesBack(%d) = %t, %t, want %v", code, again, atOnce, want)
		}
	}
}

func TestBackOffDoublesToThirtySecondsWithFullJitter(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for attempt, most := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		most *= time.Second
		var high, low time.Duration = 0, time.Hour
		for range 1000 {
			d := backoff(attempt, rng)
			high, low = max(high, d), min(low, d)
		}
		if high > most || high < most*9/10 || low > most/10 {
			t.Errorf("attempt %d: %v to %v, want 0 to %v", attempt, low, high, most)
		}
	}
}

func TestTargets(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.1:8080": "127.0.0.1:8080/ws/", "ws://127.0.0.1:9/ws": "127.0.0.1:9/ws/", "ws://127.0.0.1/a/b/": "127.0.0.1:80/a/b/", "[::1]:8080": "[::1]:8080/ws/",
	} {
		got, err := parseTarget(s)
		if err != nil || got.addr.String()+got.path != want {
			t.Errorf("parseTarget(%q) = %+v, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", ":", "wss://127.0.0.1:8080", "http://127.0.0.1", "ws://127.0.0.1/?token=x"} {
		if _, err := parseTarget(s); err == nil || !strings.Contains(err.Error(), "--ws") {
			t.Errorf("parseTarget(%q): %v, want an error that names --ws", s, err)
		}
	}
}

func TestEveryBadOptionIsNamed(t *testing.T) {
	c := Command{Sessions: 5, Rooms: 6, Publishers: maxPublishers + 1, Rate: -1, Size: minSize - 1, Warmup: -1, Churn: -1, SlowReaders: 6}
	err := c.Validate()
	for _, name := range []string{"--ws", "--addr", "--rooms", "--publishers", "--rate", "--size", "--warmup", "--duration", "--settle", "--churn", "--slow-readers"} {
		if err == nil || !strings.Contains(err.Error(), name+" ") {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

func TestTheDefaultsAreARunAgainstADevelopmentNode(t *testing.T) {
	var c struct {
		Bench Command `cmd:""`
	}
	k, err := kong.New(&c, kong.DefaultEnvars("REALTIME"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse([]string{"bench"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Bench.WS, []string{"127.0.0.1:8080"}) || !slices.Equal(c.Bench.Addr, []string{"127.0.0.1:9090"}) || c.Bench.Validate() != nil {
		t.Errorf("%+v: %v", c.Bench, c.Bench.Validate())
	}
	args := []string{"bench", "--ws", "a:1", "--ws", "b:2", "--pid", "1", "--pid", "2", "--slow-readers", "3", "--churn", "4s", "--json", "--rate", "0.5"}
	if _, err := k.Parse(args); err != nil || len(c.Bench.WS) != 2 || len(c.Bench.PID) != 2 || c.Bench.SlowReaders != 3 || c.Bench.Churn != 4*time.Second || !c.Bench.JSON || c.Bench.Rate != 0.5 {
		t.Errorf("%v: %+v", err, c.Bench)
	}
}

func TestAProcessThatCannotBeReadIsAnError(t *testing.T) {
	c := Command{WS: []string{"127.0.0.1:1"}, Sessions: 1, Rooms: 1, PID: []int{1 << 30}}
	if _, err := c.prepare(); err == nil || !strings.Contains(err.Error(), "--pid") {
		t.Errorf("%v, want an error that names --pid", err)
	}
}

func TestAServerOnThisMachineIsFoundByItsPortAndMeasured(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here := &target{addr: l.Addr().(*net.TCPAddr)}
	if pids := servers([]*target{here}); !slices.Equal(pids, []int{os.Getpid()}) {
		t.Errorf("processes %v, want this one, %d", pids, os.Getpid())
	}
	elsewhere := &target{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: here.addr.Port}}
	if pids := servers([]*target{elsewhere}); len(pids) != 0 {
		t.Errorf("an address of another machine: processes %v, want none", pids)
	}
	before, ok := usageOf([]int{os.Getpid()})
	for deadline := time.Now().Add(5 * time.Second); ; {
		after, _ := usageOf([]int{os.Getpid()})
		if after.cpu > before.cpu {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no CPU time went by while this loop ran: %+v", after)
		}
	}
	if !ok || before.rss < 1<<20 || before.rss > 1<<40 {
		t.Errorf("%+v, %t, want a resident size of some MB", before, ok)
	}
	if _, ok := usageOf([]int{1 << 30}); ok {
		t.Error("a process that does not exist was measured")
	}
	if _, ok := usageOf(nil); ok {
		t.Error("no process was measured")
	}
}
