package realtime_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/golang-jwt/jwt/v5"

	"github.com/slack5/realtime/pkg/realtime"
)

func TestTheRoomIsWhatFollowsThePathHoweverTheHandlerIsMounted(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		target string // before the room
		mount  func(h *realtime.Handler) http.Handler
	}{
		"alone": {"", "/ws", func(h *realtime.Handler) http.Handler { return h }},
		"chi Mount": {"", "/ws", func(h *realtime.Handler) http.Handler {
			r := chi.NewRouter()
			r.Mount("/ws", h.Routes())
			return r
		}},
		"chi Mount within Route": {"/api/ws", "/api/ws", func(h *realtime.Handler) http.Handler {
			r := chi.NewRouter()
			r.Route("/api", func(r chi.Router) { r.Mount("/ws", h.Routes()) })
			return r
		}},
		"chi Mount and StripPrefix": {"/rt", "/rt", func(h *realtime.Handler) http.Handler {
			r := chi.NewRouter()
			r.Mount("/rt", http.StripPrefix("/rt", h.Routes()))
			return r
		}},
		"ServeMux": {"", "/ws", func(h *realtime.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("/ws", h)
			m.Handle("/ws/", h)
			return m
		}},
		"ServeMux and StripPrefix": {"", "/ws", func(h *realtime.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("/ws", http.StripPrefix("/ws", h))
			m.Handle("/ws/", http.StripPrefix("/ws", h))
			return m
		}},
		"StripPrefix of what is before": {"", "/api/ws", func(h *realtime.Handler) http.Handler { return http.StripPrefix("/api", h) }},
		"ServeMux and StripPrefix of a longer path": {"/api/ws", "/api/ws", func(h *realtime.Handler) http.Handler {
			m := http.NewServeMux()
			m.Handle("/api/ws", http.StripPrefix("/api/ws", h))
			m.Handle("/api/ws/", http.StripPrefix("/api/ws", h))
			return m
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			p.run(realtime.NewHub(p.logger))
			p.serve(c.mount(realtime.NewHandler(p.hub, p.logger, realtime.HandlerConfig{Path: c.path})))
			p.connect(c.target)
			for target, room := range map[string]string{"/general": "general", "/team-7/chat": "team-7/chat", "/a%3Ab?room=x": "a:b", "?room=q": "q"} {
				if got := p.connect(c.target + target).want("subscribed"); got.Room != room {
					t.Errorf("%s joins %q, want %q", target, got.Room, room)
				}
			}
			if code, _ := p.status(c.target + "x/general"); code != http.StatusNotFound {
				t.Errorf("another path: %d, want 404", code)
			}
		})
	}
}

func TestAHandlerServesWheneverItIsMade(t *testing.T) {
	p := start(t)
	hub := realtime.NewHub(p.logger)
	before := realtime.NewHandler(hub, p.logger, realtime.HandlerConfig{Path: "/before"})
	p.serve(before)
	if code, _ := p.status("/before"); code != http.StatusServiceUnavailable {
		t.Errorf("before Run: %d, want 503", code)
	}
	p.run(hub)
	s := p.join("/before/general") // so it runs
	other := &program{t: t}
	other.serve(realtime.NewHandler(hub, nil, realtime.HandlerConfig{Path: "/during"}))
	t.Cleanup(other.server.Close)
	if code, _ := other.status("/during"); code != http.StatusSwitchingProtocols {
		t.Errorf("while it runs: %d, want 101", code)
	}
	if err := hub.Publish(t.Context(), &realtime.Message{Room: "general"}); err != nil {
		t.Error(err)
	}
	s.want("chat")
}

func TestAHandlerLetsSoManyInAndOthersOfItsHubTheirOwn(t *testing.T) {
	p := start(t)
	p.run(realtime.NewHub(p.logger))
	m := http.NewServeMux()
	m.Handle("/one/", realtime.NewHandler(p.hub, p.logger, realtime.HandlerConfig{Path: "/one", MaxConnections: 1}))
	m.Handle("/two/", realtime.NewHandler(p.hub, p.logger, realtime.HandlerConfig{Path: "/two", MaxConnections: 2}))
	p.serve(m)
	first := p.join("/one/a")
	p.join("/two/a")
	p.join("/two/a")
	for _, target := range []string{"/one/a", "/two/a"} {
		if code, body := p.status(target); code != http.StatusServiceUnavailable || !strings.Contains(body, "server at capacity") {
			t.Errorf("%s: %d %s, want 503", target, code, body)
		}
	}
	first.leave()
	p.join("/one/a") // tries until there is room
}

const secret = "0123456789abcdefghijklmnopqrstuv"

// token is valid for a minute unless claims say otherwise.
func token(t *testing.T, key string, more jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(claims, more)
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhoIsLetInWithWhichToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok, bad := token(t, secret, nil), token(t, strings.ToUpper(secret), nil)
	old := token(t, secret, jwt.MapClaims{"iat": 1, "exp": 61})
	ours := token(t, secret, jwt.MapClaims{"iss": "us", "aud": "rt"})
	key := realtime.AuthConfig{Keys: []string{file}}
	for name, c := range map[string]struct {
		required bool
		auth     realtime.AuthConfig
		key, alg string            // REALTIME_JWT_KEY, REALTIME_JWT_ALG
		want     map[string]string // token to user; "?": anonymous, "": 401
	}{
		"no key":                       {want: map[string]string{"": "?", ok: ""}},
		"no key where one is required": {required: true, want: map[string]string{"": "", ok: ""}},
		"a key":                        {auth: key, want: map[string]string{"": "?", ok: "alice", bad: "", old: "", "x": ""}},
		"a key where one is required":  {required: true, auth: key, want: map[string]string{"": "", ok: "alice", bad: "", old: ""}},
		"of the environment":           {required: true, key: "env:TEST_KEY", want: map[string]string{"": "", ok: "alice", bad: ""}},
		"of the environment, a list":   {key: "env:TEST_OTHER_KEY," + file, want: map[string]string{ok: "alice", bad: ""}},
		"the environment's algorithm":  {key: file, alg: "HS512", want: map[string]string{"": "?", ok: ""}},
		"Auth before the environment":  {auth: key, key: "/nowhere.pem", alg: "HS512", want: map[string]string{ok: "alice"}},
		"an issuer and an audience": {
			auth: realtime.AuthConfig{Keys: []string{file}, Issuer: "us", Audience: "rt"}, want: map[string]string{"": "?", ok: "", ours: "alice"},
		},
		"a key that is not there":  {auth: realtime.AuthConfig{Keys: []string{"/nowhere.pem"}}, want: map[string]string{"": "", ok: ""}},
		"an issuer without a key":  {auth: realtime.AuthConfig{Issuer: "us"}, want: map[string]string{"": "", ok: ""}},
		"an algorithm nobody uses": {auth: realtime.AuthConfig{Keys: []string{file}, Algorithms: []string{"RS256"}}, want: map[string]string{"": "", ok: ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TEST_KEY", secret)
			t.Setenv("TEST_OTHER_KEY", "vutsrqponmlkjihgfedcba9876543210")
			t.Setenv("REALTIME_JWT_KEY", c.key)
			t.Setenv("REALTIME_JWT_ALG", c.alg)
			var log bytes.Buffer
			p := start(t)
			p.run(realtime.NewHub(p.logger))
			h := realtime.NewHandler(p.hub, slog.New(slog.NewTextHandler(&log, nil)), realtime.HandlerConfig{AuthRequired: c.required, Auth: c.auth})
			if err := p.hub.Publish(t.Context(), &realtime.Message{}); err != nil { // so it runs
				t.Fatal(err)
			}
			p.serve(h)
			refused := 0
			for tok, user := range c.want {
				target := "/ws"
				if tok != "" {
					target += "?token=" + tok
				}
				if user == "" {
					refused++
					if code, _ := p.status(target); code != http.StatusUnauthorized {
						t.Errorf("token %.9q: %d, want 401", tok, code)
					}
					continue
				}
				if s := p.connect(target); user == "?" && s.User != s.ID || user != "?" && s.User != user {
					t.Errorf("token %.9q: session %s of user %s", tok, s.ID, s.User)
				}
			}
			told := strings.Count(log.String(), "every handshake is refused")
			if all := refused == len(c.want); told > 1 || all != (told == 1) {
				t.Errorf("all refused: %v, told %d times:\n%s", all, told, log.String())
			}
			if strings.Contains(log.String(), secret) {
				t.Error("the log has the key")
			}
		})
	}
}

func TestOnlyListedPagesMayConnect(t *testing.T) {
	p := start(t).with(realtime.HandlerConfig{Origins: []string{"https://chat.example.com"}})
	p.connect("/ws")
	p.connect("/ws", "Origin: https://chat.example.com")
	p.connect("/ws", "Origin: "+p.server.URL)
	if code, _ := p.status("/ws", "Origin: https://evil.example.com"); code != http.StatusForbidden {
		t.Errorf("another page: %d, want 403", code)
	}
}

func TestAHandlerThatCannotWorkLetsNobodyInAndSaysWhy(t *testing.T) {
	for what, cfg := range map[string]realtime.HandlerConfig{
		"origin": {Origins: []string{"*"}}, "trusted proxy": {TrustedProxies: []string{"everybody"}},
	} {
		var log bytes.Buffer
		p := start(t)
		p.run(realtime.NewHub(p.logger))
		p.serve(realtime.NewHandler(p.hub, slog.New(slog.NewTextHandler(&log, nil)), cfg))
		if code, body := p.status("/ws"); code != http.StatusInternalServerError || !strings.Contains(body, `"code":"internal"`) {
			t.Errorf("%s: %d %s, want 500", what, code, body)
		}
		if !strings.Contains(log.String(), what) {
			t.Errorf("log: %s", log.String())
		}
	}
}

// told notes what callbacks saw.
type told struct {
	mu  sync.Mutex
	all []string
}

func (n *told) add(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, s)
}

func (n *told) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.all, ", ")
}

func TestAHandlerHasTheKeysThatItsURLPublishes(t *testing.T) {
	t.Setenv("REALTIME_JWT_KEY", "/nowhere.pem") // which is not looked at
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	}))
	defer keys.Close()
	j := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Minute).Unix()})
	j.Header["kid"] = "k"
	good, err := j.SignedString(private)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t).with(realtime.HandlerConfig{AuthRequired: true, Auth: realtime.AuthConfig{JWKSURL: keys.URL}})
	p.until("it runs", func() bool { code, _ := p.status("/ws"); return code != http.StatusServiceUnavailable })
	if s := p.connect("/ws?token=" + good); s.User != "alice" {
		t.Errorf("user %s", s.User)
	}
	if code, _ := p.status("/ws?token=" + token(t, secret, nil)); code != http.StatusUnauthorized {
		t.Errorf("another key's token: %d, want 401", code)
	}
}

func TestAURLThatCannotBeTrustedLetsNobodyIn(t *testing.T) {
	for _, url := range []string{"http://id.example/keys", "id.example/keys", "/etc/keys.json", "ftp://id.example/"} {
		var log bytes.Buffer
		p := start(t)
		p.run(realtime.NewHub(p.logger))
		p.serve(realtime.NewHandler(p.hub, slog.New(slog.NewTextHandler(&log, nil)), realtime.HandlerConfig{Auth: realtime.AuthConfig{JWKSURL: url}}))
		p.until("it runs", func() bool { code, _ := p.status("/ws"); return code != http.StatusServiceUnavailable })
		if code, _ := p.status("/ws"); code != http.StatusUnauthorized || !strings.Contains(log.String(), "https://") {
			t.Errorf("%s: %d, logged %s", url, code, log.String())
		}
	}
}
