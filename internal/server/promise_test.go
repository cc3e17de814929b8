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
)

// Sixteen publishers, sessions whose connections are cut all the time, some that hardly read: nobody misses a message, sees
// one twice, or out of order. The bench judges; it is tested to see each of these.
func TestFlappingSessionsUnderSixteenPublishersMissNothing(t *testing.T) {
	for name, stream := range map[string]bool{"calls": false, "streams": true} {
		t.Run(name, func(t *testing.T) {
			r := StartServer(t)
			b := bench.Command{
				WS: []string{strings.TrimPrefix(r.ws, "ws://")}, Addr: []string{r.rpcAt}, Sessions: 60, Rooms: 3, Publishers: 16, Stream: stream, Rate: 500, Size: 128,
				Warmup: 200 * time.Millisecond, Duration: 3 * time.Second, Settle: 5 * time.Second, Churn: 400 * time.Millisecond, SlowReaders: 6, Seed: 1,
			}
			if err := b.Validate(); err != nil {
				t.Fatal(err)
			}
			var report strings.Builder
			if err := b.Run(t.Context(), io.Writer(&report)); err != nil {
				t.Errorf("%v\n%s", err, report.String())
			}
			if n := r.node.Stats().Sessions; n > 60 {
				t.Errorf("%d sessions left for 60 users", n)
			}
		})
	}
}

// A session with as many rooms as it may have resumes all of them under the default limits.
func TestASessionWith128RoomsResumesAllOfThem(t *testing.T) {
	r := StartServer(t)
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
