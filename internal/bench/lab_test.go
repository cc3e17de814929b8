package bench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOptionsOfFaultsAreChecked(t *testing.T) {
	t.Parallel()
	c := Command{
		Sessions: 10, Rooms: 1, Publishers: 1, Size: 128, Duration: 1, Settle: 1,
		Flap: 11, Nodes: maxNodes + 1, Fault: []string{"flood"}, FaultEvery: 1, FaultFor: 2,
	}
	err := c.Validate()
	for _, want := range []string{"--flap:", "--flap-every", "--nodes must", `"flood" is none of kill-pubsub`, "--fault-every"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate: %v, want %q in it", err, want)
		}
	}
	c.Nodes, c.NodeArg = 0, []string{"--dev"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--fault needs --nodes") || !strings.Contains(err.Error(), "--node-arg is for --nodes") {
		t.Errorf("without --nodes: %v", err)
	}
}

// Each fault happens to a Redis that is really there, and is over afterwards; what is started ends.
func TestEveryFaultEndsAndRedisAnswersThroughTheRelay(t *testing.T) {
	t.Parallel()
	for _, f := range allFaults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			started := 0
			c := &Command{Nodes: 2, RedisServer: "redis-server", Fault: []string{f.name}, StartNode: func(context.Context, string) (*Node, error) {
				started++
				return &Node{Stop: func() error { started--; return nil }}, nil
			}}
			l, err := newLab(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			dir := l.dir
			defer func() {
				if err := l.close(); err != nil || started != 0 {
					t.Errorf("close: %v, %d nodes left", err, started)
				}
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", dir, err)
				}
			}()
			if _, err := l.primary.ask(t.Context(), "SET", "kept", "1"); err != nil {
				t.Fatal(err)
			}
			for l.replica != nil { // else it may be the tail that a failover loses
				if got, err := l.replica.ask(t.Context(), "EXISTS", "kept"); err != nil {
					t.Fatal(err)
				} else if got == "1" {
					break
				}
				wait(t.Context(), time.Millisecond)
			}
			if err := f.do(l, t.Context(), 10*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			for _, r := range l.relays {
				through := redisServer{addr: r.addr}
				got, err := through.ask(t.Context(), "EXISTS", "kept")
				if want := map[bool]string{true: "0", false: "1"}[f.name == "restart-empty"]; err != nil || got != want {
					t.Errorf("EXISTS: %q, %v; want %s", got, err, want)
				}
			}
		})
	}
}

func TestARelayLetsNothingThroughAndCutsAfterwards(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(c, c); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	r, err := newRelay(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	echo := func() (net.Conn, error) {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, said(c, "hello")
	}
	c, err := echo()
	if err != nil {
		t.Fatal(err)
	}
	r.set(true, 0)
	if _, err := c.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	r.cut()
	r.set(false, 0)
	if b, err := io.ReadAll(c); err == nil && len(b) > 0 {
		t.Errorf("%q came through", b)
	}
	if _, err := echo(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// said sends text and reads it back.
func said(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if !bytes.Equal(b, []byte(text)) {
		return errors.New(string(b))
	}
	return nil
}
