package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/server"
	"github.com/slack5/realtime/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "the-key-of-the-example"

// journal is what a program prints.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

// await waits until a pattern is printed, and returns its groups.
func (j *journal) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); ; {
		j.mu.Lock()
		found := re.FindStringSubmatch(j.buf.String())
		j.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s is not printed", pattern)
		}
	}
}

// start runs a program until the test's end.
func start(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// together are the example and a node that asks it.
func together(t *testing.T) (url string, backend *journal) {
	t.Helper()
	backend = &journal{}
	start(t, func(ctx context.Context) error {
		return run(ctx, []string{"--addr=127.0.0.1:0", "--staff=alice", "--banned=mallory"}, key, backend)
	})
	t.Setenv("MODERATION_KEY", key)
	var c config.Serve
	k, err := kong.New(&c)
	if err == nil {
		_, err = k.Parse([]string{
			"--dev", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--hooks-timeout=connect=10s",
			"--hooks-addr=" + backend.await(t, `asked at (\S+)`)[1], "--hooks-key=env:MODERATION_KEY",
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	node := &journal{}
	s, err := server.New(t.Context(), &c, node, telemetry.NewLogger(t.Output(), nil))
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.Run)
	return node.await(t, `ws://(\S+)/ws`)[1], backend
}

// token is a user's.
func token(t *testing.T, addr, user string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/dev/token?user="+user, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var got struct{ Token string }
	b, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return got.Token
}

// want reads on to a frame with a text in it.
func want(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	for {
		_, b, err := ws.Read(t.Context())
		if err != nil {
			t.Fatalf("%v before %s", err, text)
		}
		if strings.Contains(string(b), text) {
			return
		}
	}
}

func TestTheExampleKeepsStrangersAndBadWordsOut(t *testing.T) {
	addr, backend := together(t)
	dial := func(user, target string) (*websocket.Conn, error) {
		ws, _, err := websocket.Dial(t.Context(), "ws://"+addr+target+"?refuse=close&token="+token(t, addr, user), nil) //nolint:bodyclose // the library's
		return ws, err
	}
	for user, c := range map[string]struct {
		target, frame string
		code          websocket.StatusCode
	}{
		"mallory": {"/ws/general", "you are banned", 4700},
		"bob":     {"/ws/staff-room", "this room is for staff", 4502},
	} {
		ws, err := dial(user, c.target)
		if err != nil {
			t.Fatal(err)
		}
		want(t, ws, c.frame)
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != c.code {
			t.Errorf("%s: %v, want a close with %d", user, err, c.code)
		}
		_ = ws.CloseNow()
	}
	ws, err := dial("alice", "/ws/staff-room")
	if err != nil {
		t.Fatal(err)
	}
	for say, answer := range map[string]string{
		`{"type":"chat","data":{"text":"oh dear"}}`:                  `"data":{"text":"oh dear"}`,
		`{"type":"chat","data":{"text":"darn it"}}`:                  `"data":{"text":"**** it"}`,
		`{"type":"chat","data":{"text":"darn darn darn"},"ref":"1"}`: `"hook_denied","error":"3 bad words: calm down"`,
		`{"type":"subscribe","room":"staff"}`:                        `"subscribed"`,
	} {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(say)); err != nil {
			t.Fatal(err)
		}
		want(t, ws, answer)
	}
	if err := ws.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
	backend.await(t, `session ended.* user=alice code=1000 rooms=2 last_of_user=true`)

	bob, err := dial("bob", "/ws")
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe","room":"staff"}`)); err != nil {
		t.Fatal(err)
	}
	want(t, bob, `"hook_denied","error":"this room is for staff"`)
	_ = bob.CloseNow()
}
