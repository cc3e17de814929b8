package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

func TestAPublishOverGRPCReachesEverySessionOfTheRoom(t *testing.T) { both(t, publishReachesEveryone) }

func publishReachesEveryone(t *testing.T, args ...string) {
	r := StartServer(t, args...)
	a, b, other := r.join("general"), r.join("general"), r.join("other")
	const data = `{"text": "Hello", "n": 9007199254740993}`
	resp, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: data, From: "shop"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*guest{"the first": a, "the second": b} {
		f := s.want("chat")
		if f.ID != resp.GetReceipt().GetId() || f.Room != "general" || f.From != "shop" || string(f.Data) != data {
			t.Errorf("%s got %+v, want the message with id %s", name, f, resp.GetReceipt().GetId())
		}
	}
	if _, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "other", Message: &realtimev1.MessageContent{Data: "1"}}); err != nil {
		t.Fatal(err)
	}
	if f := other.want("chat"); string(f.Data) != "1" {
		t.Errorf("another room got %+v", f)
	}
	if err := a.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":"from a session"}`)); err != nil {
		t.Fatal(err)
	}
	if f := b.want("chat"); string(f.Data) != `"from a session"` {
		t.Errorf("what a session sends arrives as %+v", f)
	}
}

func TestOneLineTellsOfEachListener(t *testing.T) {
	r := StartServer(t)
	edge, rpc, ops := r.Addrs()
	eventually(t, "the journal are printed", func() bool { return strings.Count(r.printed.String(), "\n") >= 5 })
	want := fmt.Sprintf("sessions    ws://%s/ws/{room}\ngRPC        %s\noperations  http://%s/metrics /healthz /readyz\n\nopen        http://%s/\n", edge, rpc, ops, edge)
	if got := r.printed.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
	if got := r.log.find("INFO", `"msg":"serving"`); len(got) != 1 {
		t.Errorf("logged %q", got)
	}
}

func TestTheDemoPageIsForDevelopersOnly(t *testing.T) {
	r := StartServer(t)
	page := strings.Replace(r.ws, "ws:", "http:", 1) + "/"
	code, h, body := fetch(t, page)
	if code != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), "text/html") || !strings.Contains(body, "<") {
		t.Errorf("with --dev: %d %s %.80s", code, h.Get("Content-Type"), body)
	}
	if code, _, _ := fetch(t, page+"x"); code != http.StatusNotFound {
		t.Errorf("another path: %d, want 404", code)
	}
	r = startWith(t, func(s *Server) { s.cfg.Dev = false }, "--drain-delay=0s")
	if code, _, _ := fetch(t, strings.Replace(r.ws, "ws:", "http:", 1)+"/"); code != http.StatusNotFound {
		t.Errorf("without --dev: %d, want 404", code)
	}
}

// What compose translates reaches its part.
func TestOptionsReachTheirPart(t *testing.T) {
	r := StartServer(t, "--max-sessions=1", "--history-size=3", "--origin=https://a.example")
	for origin, want := range map[string]int{"https://a.example": http.StatusSwitchingProtocols, "http://localhost:3000": http.StatusSwitchingProtocols, "https://b.example": http.StatusForbidden} {
		eventually(t, fmt.Sprintf("a page of %s is answered %d", origin, want), func() bool { // 503 while the session before it ends
			ws, resp, err := websocket.Dial(t.Context(), r.ws+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
			if err == nil {
				_ = ws.CloseNow()
			}
			return resp != nil && resp.StatusCode == want
		})
	}
	pub := r.publisher()
	var ids []string
	for i := range 5 {
		resp, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, resp.GetReceipt().GetId())
	}
	for i, recovered := range []bool{false, true} { // three are kept: what follows the second
		s := r.join("general?last_id=" + ids[i])
		if got := s.joined["recovered"]; got != recovered {
			t.Errorf("a resume behind message %d of 5: %v, want recovered %v", i, s.joined, recovered)
		}
		if !recovered {
			_ = s.ws.CloseNow()
		}
	}
	if code, h, body := r.handshake(); code != http.StatusServiceUnavailable || !strings.Contains(body, "at_capacity") || h.Get("Retry-After") == "" {
		t.Errorf("the second session: %d %s, want 503 at_capacity", code, body)
	}
}
