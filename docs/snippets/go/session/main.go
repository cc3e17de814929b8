// Command session holds a session and prints what it receives, a line for each message: room, sender, data.
//
// From the environment: URL, such as ws://127.0.0.1:8080/ws/general, and TOKEN_FILE, which holds a token. A program asks its
// backend for one instead.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

const silence = time.Minute // the node pings every 25 s: without a sign of it for so long the connection is dead

type frame struct {
	ID   string          `json:"id"`
	Type string          `json:"type"`
	Room string          `json:"room"`
	From string          `json:"from"`
	Data json.RawMessage `json:"data"`
}

type session struct {
	url    string
	lastID string        // of the last frame, whichever it was
	wait   time.Duration // before the next attempt, at most
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s := session{url: cmp.Or(os.Getenv("URL"), "ws://127.0.0.1:8080/ws/general"), wait: time.Second}
	for {
		err := s.run(ctx)
		code := websocket.CloseStatus(err) // -1: the connection broke, or there was none
		fmt.Fprintln(os.Stderr, "closed:", err)
		if final(code) || ctx.Err() != nil {
			os.Exit(1)
		}
		if code != websocket.StatusServiceRestart { // 1012: come back at once
			select {
			case <-time.After(rand.N(s.wait)):
			case <-ctx.Done():
			}
			s.wait = min(2*s.wait, 30*time.Second)
		}
	}
}

// final tells the codes after which a session must not come back. 4500 is not among them: the token has expired, and the next
// attempt brings a new one.
func final(code websocket.StatusCode) bool {
	switch code {
	case 1000, 1002, 1003, 1007, 1009:
		return true
	}
	return code > 4500
}

func token() (string, error) {
	b, err := os.ReadFile(os.Getenv("TOKEN_FILE"))
	return strings.TrimSpace(string(b)), err
}

// run is one connection. It returns why it ended.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(silence, func() { cancel(errors.New("no sign of life")) })
	defer watch.Stop()
	t, err := token()
	if err != nil {
		return err
	}
	ws, _, err := websocket.Dial(ctx, s.url+"?refuse=close&last_id="+url.QueryEscape(s.lastID), &websocket.DialOptions{
		HTTPHeader:     http.Header{"Authorization": {"Bearer " + t}},
		OnPingReceived: func(context.Context, []byte) bool { watch.Reset(silence); return true },
	})
	if err != nil {
		return err
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(1 << 20)
	for {
		var f frame
		if err := wsjson.Read(ctx, ws, &f); err != nil {
			return err
		}
		watch.Reset(silence)
		s.lastID = f.ID
		if err := s.take(ctx, ws, f); err != nil {
			return err
		}
	}
}

func (s *session) take(ctx context.Context, ws *websocket.Conn, f frame) error {
	switch f.Type {
	case "system":
	case "error":
		fmt.Fprintln(os.Stderr, "error:", string(f.Data))
		return nil
	default:
		fmt.Println(f.Room, f.From, string(f.Data))
		return nil
	}
	var data struct {
		Event string `json:"event"`
	}
	_ = json.Unmarshal(f.Data, &data) // a backend's own system message may be any JSON
	switch data.Event {
	case "welcome":
		s.wait = time.Second
	case "gap": // messages are missing here: fetch the state anew
		fmt.Fprintln(os.Stderr, "gap:", string(f.Data))
	case "expiring":
		t, err := token()
		if err != nil {
			return err
		}
		return wsjson.Write(ctx, ws, map[string]any{"type": "auth", "data": map[string]string{"token": t}})
	}
	return nil
}
