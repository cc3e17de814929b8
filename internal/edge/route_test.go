package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/frame"
	"github.com/slack5/realtime/internal/message"
)

// without takes headers away.
func without(name string) []string {
	var h []string
	for _, l := range upgrade() {
		if !strings.HasPrefix(l, name+":") {
			h = append(h, l)
		}
	}
	return h
}

func TestHandshakesAreRefusedInJSONWithTheirStatus(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Path: "/ws", MaxRooms: 2}})
	for _, c := range []struct {
		name, method, target string
		headers              []string
		status               int
		code                 frame.Code
	}{
		{"another path", "GET", "/", upgrade(), 404, frame.CodeBadRequest},
		{"a path that only begins like ours", "GET", "/wsx", upgrade(), 404, frame.CodeBadRequest},
		{"doubled slash in front", "GET", "//ws/a", upgrade(), 404, frame.CodeBadRequest},
		{"post", "POST", "/ws/a", append(upgrade(), "Content-Length: 0"), 405, frame.CodeBadRequest},
		{"connect", "CONNECT", "/ws/a", upgrade(), 405, frame.CodeBadRequest},
		{"no upgrade at all", "GET", "/ws/a", []string{"Host: x"}, 426, frame.CodeBadRequest},
		{"no connection header", "GET", "/ws/a", without("Connection"), 426, frame.CodeBadRequest},
		{"upgrade to something else", "GET", "/ws/a", append(without("Upgrade"), "Upgrade: h2c"), 426, frame.CodeBadRequest},
		{"old version", "GET", "/ws/a", append(without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 8"), 400, frame.CodeBadRequest},
		{"version twice", "GET", "/ws/a", upgrade("Sec-WebSocket-Version: 13"), 400, frame.CodeBadRequest},
		{"no key", "GET", "/ws/a", without("Sec-WebSocket-Key"), 400, frame.CodeBadRequest},
		{"key twice", "GET", "/ws/a", upgrade("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, frame.CodeBadRequest},
		{"short key", "GET", "/ws/a", append(without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, frame.CodeBadRequest},
		{"key that is no base64", "GET", "/ws/a", append(without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: ????????????????????????"), 400, frame.CodeBadRequest},
		{"a body", "GET", "/ws/a", upgrade("Content-Length: 5"), 400, frame.CodeBadRequest},
		{"a chunked body", "GET", "/ws/a", upgrade("Transfer-Encoding: chunked"), 400, frame.CodeBadRequest},
		{"absolute target", "GET", "http://x/ws/a", upgrade(), 400, frame.CodeBadRoom},
		{"empty segment", "GET", "/ws/a//b", upgrade(), 400, frame.CodeBadRoom},
		{"empty first segment", "GET", "/ws//a", upgrade(), 400, frame.CodeBadRoom},
		{"parent", "GET", "/ws/a/../b", upgrade(), 400, frame.CodeBadRoom},
		{"parent without upgrade", "GET", "/ws/a/../b", []string{"Host: x"}, 400, frame.CodeBadRoom},
		{"escaped parent", "GET", "/ws/%2e%2e", upgrade(), 400, frame.CodeBadRoom},
		{"escaped escape", "GET", "/ws/%252e", upgrade(), 400, frame.CodeBadRoom},
		{"escaped line break", "GET", "/ws/a%0d%0ab", upgrade(), 400, frame.CodeBadRoom},
		{"trailing slash", "GET", "/ws/a/", upgrade(), 400, frame.CodeBadRoom},
		{"pattern", "GET", "/ws/*", upgrade(), 400, frame.CodeBadRoom},
		{"hash tag", "GET", "/ws/%7Bx%7D", upgrade(), 400, frame.CodeBadRoom},
		{"too long", "GET", "/ws/" + strings.Repeat("a", 129), upgrade(), 400, frame.CodeBadRoom},
		{"all rooms of the query bad", "GET", "/ws?room=a//b&room=*", upgrade(), 400, frame.CodeBadRoom},
		{"empty room in the query", "GET", "/ws?room=", upgrade(), 400, frame.CodeBadRoom},
		{"the server's name", "GET", "/ws/@global", upgrade(), 403, frame.CodeNotPermitted},
		{"another user's", "GET", "/ws/@user/bob", upgrade(), 403, frame.CodeNotPermitted},
		{"more rooms than anyone can mean", "GET", "/ws/a?room=b&room=c&room=d&room=e", upgrade(), 400, frame.CodeBadRequest},
		{"foreign page", "GET", "/ws/a", upgrade("Origin: https://evil.example"), 403, frame.CodeBadOrigin},
		{"malformed stays HTTP with refuse=close", "GET", "/ws/a//b?refuse=close", []string{"Host: x"}, 426, frame.CodeBadRequest},
		{"origin stays HTTP with refuse=close", "GET", "/ws/a?refuse=close", upgrade("Origin: null"), 403, frame.CodeBadOrigin},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := s.get(c.method, c.target, c.headers...)
			var body struct {
				Error struct{ Code, Message string }
			}
			raw, err := io.ReadAll(res.Body)
			if err == nil {
				err = json.Unmarshal(raw, &body)
			}
			if want := fmt.Sprintf(`{"error":{"code":%q,"message":`, c.code); !strings.HasPrefix(string(raw), want) { // a person reads it with curl
				t.Errorf("%s, want it to begin with %s", raw, want)
			}
			if res.StatusCode != c.status || err != nil || body.Error.Code != string(c.code) || body.Error.Message == "" {
				t.Errorf("%d %+v %v, want %d %s", res.StatusCode, body, err, c.status, c.code)
			}
			if res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Location") != "" {
				t.Errorf("headers %v", res.Header)
			}
			if strings.Contains(body.Error.Message, "evil") {
				t.Errorf("the message quotes the request: %s", body.Error.Message)
			}
		})
	}
	if n := s.sessions.Load(); n != 0 {
		t.Errorf("%d places taken by refused handshakes", n)
	}
}

func TestRefusalsThatHelpHaveTheirHeader(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{Verify: func(string) (auth.Identity, error) { return auth.Identity{}, errors.New("secret detail") }}})
	for _, c := range []struct{ target, header, value string }{
		{"/ws/a", "WWW-Authenticate", "Bearer"},
	} {
		res := s.get("GET", c.target, upgrade()...)
		if res.StatusCode != 401 || res.Header.Get(c.header) != c.value {
			t.Errorf("%s: %d %v", c.target, res.StatusCode, res.Header)
		}
	}
	if res := s.get("POST", "/ws", upgrade()...); res.Header.Get("Allow") != "GET" {
		t.Errorf("405 with %v", res.Header)
	}
	if res := s.get("GET", "/ws", append(without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 7")...); res.Header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("version refused with %v", res.Header)
	}
	c := s.raw()
	c.send("GET /ws/a HTTP/1.0\r\n" + strings.Join(upgrade(), "\r\n") + "\r\n\r\n")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 426 || res.Header.Get("Upgrade") != "websocket" {
		t.Errorf("HTTP/1.0: %v %v", res, err)
	}
}

func TestAFullEdgeAndAnEndingOneSay503(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{MaxSessions: 2}})
	for _, limit := range []string{"one below", "at it"} {
		if c := s.connect("/ws"); c.next("welcome").Type == "" {
			t.Error(limit)
		}
	}
	res := s.get("GET", "/ws", upgrade()...)
	var b struct {
		Error struct{ Code, Message string }
	}
	_ = json.NewDecoder(res.Body).Decode(&b)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || b.Error.Code != "at_capacity" || b.Error.Message != "server at capacity" {
		t.Errorf("above the limit: %d %v %+v", res.StatusCode, res.Header, b)
	}
	s.state.Store(draining)
	res = s.get("GET", "/ws/a?refuse=close", upgrade()...)
	_ = json.NewDecoder(res.Body).Decode(&b)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || b.Error.Code != "draining" {
		t.Errorf("draining: %d %v %+v", res.StatusCode, res.Header, b)
	}
}

func TestRefuseCloseCompletesTheHandshakeAndTellsInAFrame(t *testing.T) {
	id := message.ID{Position: message.At(1700000000000, 5), Low: message.NewMinter(3).Low(message.Room("lobby").Tag(), false)}
	var deny error
	s := serve(t, fast, setup{cfg: Config{Verify: func(string) (auth.Identity, error) { return auth.Identity{User: "u1", Grants: everything}, deny }}})
	for _, c := range []struct {
		name, target string
		deny         error
		code         string
		close        int
	}{
		{"bad room", "/ws/a//b?refuse=close&last_id=" + id.String(), nil, "error bad_room", 4502},
		{"the server's room", "/ws/@me?refuse=close", nil, "error not_permitted", 4502},
		{"bad token", "/ws/a?refuse=close", errors.New("x"), "error bad_token", 4502},
		{"expired token", "/ws/a?refuse=close", fmt.Errorf("jwt: %w", auth.ErrExpired), "error bad_token", 4500},
		{"revoked token", "/ws/a?refuse=close", ErrRevoked, "error bad_token", 4501},
	} {
		t.Run(c.name, func(t *testing.T) {
			deny = c.deny
			ws := s.connect(c.target, "Authorization: Bearer u1")
			f := ws.next(c.code)
			got, ok := message.ParseID(f.ID)
			if !ok || !got.Low.Unstored() {
				t.Errorf("id %s", f.ID)
			}
			if strings.Contains(c.target, "last_id") && (got.Position != id.Position || got.Low.Tag() != id.Low.Tag()) {
				t.Errorf("id %s does not repeat the position of %s", f.ID, id)
			}
			if code, reason := ws.closed(); code != c.close || reason == "" {
				t.Errorf("closed %d %q, want %d", code, reason, c.close)
			}
			until(t, "its place is free", func() bool { return s.sessions.Load() == 0 })
		})
	}
}

func TestTheURLNamesRoomsInEveryForm(t *testing.T) {
	s := serve(t, fast, setup{cfg: Config{MaxRooms: 3}})
	for _, c := range []struct {
		target string
		rooms  []string
		errors []string
	}{
		{"/ws", nil, nil},
		{"/ws/", nil, nil},
		{"/ws/a", []string{"a"}, nil},
		{"/ws/team/7:x@y.z-_", []string{"team/7:x@y.z-_"}, nil},
		{"/ws/team%2F7", []string{"team/7"}, nil},
		{"/ws?room=a&room=b&room=a", []string{"a", "b"}, nil},
		{"/ws/c?room=a&x=y&room=b?last_id=undefined", []string{"c", "a", "b"}, nil},
		{"/ws?room=a?room=b", []string{"a", "b"}, nil},
		{"/ws/a?room=a//b&room=@x", []string{"a"}, []string{"bad_room", "not_permitted"}},
		{"/ws/a?room=b&room=c&room=d", []string{"a", "b", "c"}, []string{"room_limit"}},
	} {
		t.Run(c.target, func(t *testing.T) {
			ws := s.connect(c.target)
			ws.next("welcome")
			joined := map[string]bool{}
			var errs []string
			for range len(c.rooms) + len(c.errors) {
				f := ws.frame()
				switch {
				case f.what() == "subscribed":
					joined[f.Room] = true
				case f.Type == "error":
					errs = append(errs, f.field("code").(string))
				default:
					t.Fatalf("got %s", f.what())
				}
			}
			for _, r := range c.rooms {
				if !joined[r] {
					t.Errorf("not joined: %s", r)
				}
			}
			if d := cmp.Diff(c.errors, errs); d != "" {
				t.Error(d)
			}
			ws.say(`{"type":"ping","ref":"z"}`)
			ws.next("pong")
		})
	}
}

func TestTheEdgeServesBehindRoutersThatStripOrKeepThePath(t *testing.T) {
	e := &Edge{cfg: Config{Path: "/rt/ws"}}
	for _, c := range []struct {
		name    string
		wrap    func(http.Handler) http.Handler
		target  string
		want    string
		outside bool
	}{
		{"kept", nil, "/rt/ws/a?x=1", "a", false},
		{"kept, no room", nil, "/rt/ws", "", false},
		{"kept, escaped", nil, "/rt/ws/a%2Fb", "a%2Fb", false},
		{"kept, a room called like the path", nil, "/rt/ws/rt/ws", "rt/ws", false},
		{"stripped", stripped("/rt/ws"), "/rt/ws/a", "a", false},
		{"stripped, no room", stripped("/rt/ws"), "/rt/ws", "", false},
		{"stripped, slash", stripped("/rt/ws"), "/rt/ws/", "", false},
		{"stripped, a room called like the path", stripped("/rt/ws"), "/rt/ws/rt/ws/b", "rt/ws/b", false},
		{"stripped under another prefix", stripped("/api"), "/api/rt/ws/a", "a", false},
		{"stripped altogether under another prefix", stripped("/api/rt/ws"), "/api/rt/ws/a", "a", false},
		{"outside", nil, "/rt/wsa", "", true},
		{"outside, stripped", stripped("/api"), "/api/other", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			ok := false
			var h http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, ok = e.path(r) })
			if c.wrap != nil {
				h = c.wrap(h)
			}
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", c.target, nil))
			if ok == c.outside || ok && got != c.want {
				t.Errorf("path(%s) = %q, %v, want %q", c.target, got, ok, c.want)
			}
		})
	}
}

func stripped(prefix string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler { return http.StripPrefix(prefix, h) }
}

func TestAnAgreedSubprotocolIsNamedAndATokenNeverComesBack(t *testing.T) {
	s := serve(t, fast, named())
	res := s.raw().ask("/ws", nil, "Sec-WebSocket-Protocol: bearer.secret, realtime", "Sec-WebSocket-Extensions: permessage-deflate")
	if res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Protocol") != "realtime" || res.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}
