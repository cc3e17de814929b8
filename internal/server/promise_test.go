package server

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/bench"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// Sixteen publishers, sessions whose connections are cut all the time, some that hardly read: nobody misses a message, sees
// one twice, or out of order. The bench judges; it is tested to see each of these.
func TestFlappingSessionsUnderSixteenPublishersMissNothing(t *testing.T) {
	for name, c := range map[string]struct{ stream, redis bool }{"calls": {}, "streams": {stream: true}, "streams, two nodes": {stream: true, redis: true}} {
		t.Run(name, func(t *testing.T) {
			var nodes []*Running
			if c.redis {
				nodes = shared(t, redistest.Start(t), 2)
			} else {
				nodes = []*Running{StartServer(t)}
			}
			var ws, addrs []string
			for _, r := range nodes {
				ws, addrs = append(ws, strings.TrimPrefix(r.ws, "ws://")), append(addrs, r.rpcAt)
			}
			b := bench.Command{
				WS: ws, Addr: addrs, Sessions: 60, Rooms: 3, Publishers: 16, Stream: c.stream, Rate: 500, Size: 128,
				Warmup: 200 * time.Millisecond, Duration: 3 * time.Second, Settle: 5 * time.Second, Churn: 400 * time.Millisecond, SlowReaders: 6, Seed: 1,
			}
			if err := b.Validate(); err != nil {
				t.Fatal(err)
			}
			var report strings.Builder
			if err := b.Run(t.Context(), io.Writer(&report)); err != nil {
				t.Errorf("%v\n%s", err, report.String())
			}
			left := 0
			for _, r := range nodes {
				left += r.node.Stats().Sessions
			}
			if left > 60 {
				t.Errorf("%d sessions left for 60 users", left)
			}
		})
	}
}

// A session with as many rooms as it may have resumes all of them under the default limits.
func TestASessionWith128RoomsResumesAllOfThem(t *testing.T) { both(t, resumesAllRooms) }

func resumesAllRooms(t *testing.T, args ...string) {
	r := StartServer(t, args...)
	pub := r.publisher()
	publish := func(room int, data string) string {
		resp, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: fmt.Sprintf("r%d", room), Message: &realtimev1.MessageContent{Data: data}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetReceipt().GetId()
	}
	const rooms = 128
	var names, ids []string
	for i := range rooms {
		names = append(names, fmt.Sprintf("room=r%d", i))
		ids = append(ids, publish(i, "0"))
	}
	for i := range rooms { // missed
		publish(i, "1")
		publish(i, "2")
	}
	ws, _, err := websocket.Dial(t.Context(), r.ws+"/ws?"+strings.Join(names, "&")+"&last_id="+strings.Join(ids, ","), nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	defer func() { _ = ws.CloseNow() }()
	s := &guest{t: t, ws: ws}
	got, stood := make(map[string]string), 0
	for stood < rooms {
		switch f, code := s.next(); {
		case code != 0:
			t.Fatalf("closed with %d", code)
		case f.Type == "error":
			t.Fatalf("error %s", f.Data)
		case f.Type == "chat":
			got[f.Room] += string(f.Data)
		case f.event() == "subscribed":
			if stood++; !strings.Contains(string(f.Data), `"recovered":true,"replayed":2`) {
				t.Errorf("%s: %s", f.Room, f.Data)
			}
		}
	}
	for i := range rooms {
		if g := got[fmt.Sprintf("r%d", i)]; g != "12" {
			t.Errorf("room %d brought %q, want 1 and 2", i, g)
		}
	}
}
