package server

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/redis/redistest"
	"github.com/slack5/realtime/internal/telemetry/telemetrytest"
)

// Whatever is secret, or said by those who use the service, shows nowhere that operators and strangers look.
func TestNothingSecretIsToldAnywhere(t *testing.T) {
	const (
		backendKey  = "kx8Wq2Lr5vTn9Yb3"
		userKey     = "0f9c2b7ad41e8365ba07c5d2e9f18364"
		urlPassword = "Uq7hPassword"
		urlCode     = "Zr4hCode"
		redisSecret = "Ty6sRedis"
		payload     = "Pm5kPayload"
		info        = "Jw3nInfo"
	)
	secrets := []string{backendKey, userKey, base64.RawURLEncoding.EncodeToString([]byte(userKey)), urlPassword, urlCode, redisSecret, payload, info}
	collected := telemetrytest.Start(t)
	t.Setenv("A_BACKEND_KEY", backendKey)
	t.Setenv("A_USER_KEY", userKey)
	redis := redistest.Start(t)
	redis.Do("CONFIG", "SET", "requirepass", redisSecret)
	var says atomic.Pointer[string] // at first it has none: what fails is told
	k := newSigner(t, "first")
	url := strings.Replace(publishes(t, &says), "//", "//me:"+urlPassword+"@", 1) + "/keys?code=" + urlCode
	args := []string{
		"--dev=false", "--log-level=debug", "--grpc-key=env:A_BACKEND_KEY", "--jwt-key=env:A_USER_KEY", "--jwks-url=id=" + url,
		"--drain-delay=0s", "--drain-window=0s", "--drain-timeout=5s", "--pprof",
		"--redis-url=redis://default:" + redisSecret + "@" + redis.Addr,
	}
	r := StartServer(t, args...)
	var told strings.Builder // what strangers are told: refusals, error frames, close reasons, statuses
	use := func(token string) string {
		secrets = append(secrets, token, token[strings.LastIndexByte(token, '.')+1:])
		return token
	}
	mint := func(key string, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return use(token)
	}
	hour := time.Now().Add(time.Hour).Unix()
	good := mint(userKey, jwt.MapClaims{"sub": "alice", "exp": hour, "rt": map[string]any{"info": info}})
	forged, over := mint(userKey+"x", jwt.MapClaims{"sub": "alice", "exp": hour}), mint(userKey, jwt.MapClaims{"sub": "alice", "exp": 1})
	odd, unknown := mint(userKey, jwt.MapClaims{"sub": "alice", "exp": hour, "nbf": hour, "rt": map[string]any{"info": info}}), use(k.token(t, "alice"))

	edge := strings.Replace(r.ws, "ws:", "http:", 1)
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, token := range []string{forged, over, odd, unknown, use("no.token.Vd6tAtAll")} {
		for _, request := range [][]string{
			{"/ws/general", "Authorization", "Bearer " + token},
			{"/ws/general", "Sec-WebSocket-Protocol", "realtime, bearer." + token},
			{"/ws/general?token=" + token},
			{"/ws/general?token=" + token, "Origin", "https://evil.example"},
			{"/ws/%00?token=" + token},
			{"/elsewhere?token=" + token},
		} {
			_, h, body := fetch(t, edge+request[0], append(request[1:], upgrade...)...)
			fmt.Fprintln(&told, h, body)
		}
		ws, resp, err := websocket.Dial(t.Context(), r.ws+"/ws/general?refuse=close&token="+token, nil)
		if err != nil {
			t.Fatal(err, resp)
		}
		s := &guest{t: t, ws: ws}
		f, code := s.next()
		fmt.Fprintln(&told, f, string(f.Data), code, s.closed())
	}

	dial := func(query string, o *websocket.DialOptions) *guest {
		ws, resp, err := websocket.Dial(t.Context(), r.ws+"/ws/general"+query, o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&told, resp.Header)
		t.Cleanup(func() { _ = ws.CloseNow() })
		ws.SetReadLimit(1 << 20)
		s := &guest{t: t, ws: ws}
		s.want("subscribed")
		return s
	}
	header := dial("", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + good}}})
	dial("", &websocket.DialOptions{Subprotocols: []string{"realtime", "bearer." + good}})
	dial("?token="+good, nil)
	write := func(s *guest, frame string, want string) {
		if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(frame)); err != nil {
			t.Fatal(err)
		}
		if f := s.want(want); want == "error" {
			fmt.Fprintln(&told, f, string(f.Data))
		}
	}
	write(header, `{"type":"chat","data":{"x":"`+payload+`"}}`, "chat")
	write(header, `{"type":"auth","data":{"token":"`+good+`"}}`, "renewed")
	for _, bad := range []string{
		`{"type":"auth","data":{"token":"` + forged + `"}}`, `{"type":"auth","data":{"token":{"x":"` + good + `"}}}`, `{"type":"auth","data":"` + good + `"}`,
		`{"type":"chat","data":{"x":"` + payload + `"`, `{"type":"chat","data":{"x":"` + payload + `","x":1}}`, `{"type":"` + payload + ` ","data":1}`,
		`{"` + payload + `":1}`, `{"type":"chat","room":"no room","data":"` + payload + `"}`, payload, `{"type":"system","data":"` + payload + `"}`,
	} {
		write(header, bad, "error")
	}

	pub := r.publisher()
	publish := func(key, room, data string) {
		_, err := pub.Publish(metadata.AppendToOutgoingContext(calling(t.Context(), 1), "authorization", "Bearer "+key), &realtimev1.PublishRequest{Room: room, Message: &realtimev1.MessageContent{Data: data}})
		fmt.Fprintln(&told, err, status.Convert(err).Details())
	}
	publish(backendKey, "general", `"`+payload+`"`)
	publish(backendKey, "general", `{"`+payload)
	publish(backendKey, "general", `{"`+payload+`":1,"`+payload+`":2}`)
	publish(backendKey, "general", `"`+payload+strings.Repeat("x", 64<<10)+`"`)
	for _, wrong := range []string{good, use("another." + "key.Gh7mAltogether"), backendKey + "x"} {
		publish(wrong, "general", `"`+payload+`"`)
	}

	now := set(k)
	says.Store(&now)
	eventually(t, "the key set is there", func() bool { return r.log.find("INFO", "keys read") != nil })
	redis.Kill()
	eventually(t, "Redis is missed", func() bool { _, _, body := fetch(t, r.http+"/readyz"); return strings.Contains(body, "degraded") })
	publish(backendKey, "general", `"`+payload+`"`)
	for _, path := range []string{"/metrics", "/readyz", "/healthz", "/debug/pprof/cmdline", "/elsewhere"} {
		_, h, body := fetch(t, r.http+path)
		if path != "/debug/pprof/cmdline" {
			fmt.Fprintln(&told, h, body)
		}
	}
	if _, err := r.end(); err != nil {
		t.Fatal(err)
	}
	// The test knows where to look: each has what it should.
	for text, in := range map[string]string{
		`"level":"DEBUG","msg":"token refused"`: r.log.String(), `"msg":"accepted"`: r.log.String(), `"msg":"key set not fetched`: r.log.String(), "publish": collected.Raw(),
		"not_permitted": told.String(), "bad_token": told.String(), "bad_frame": told.String(), "Unauthenticated": told.String(), "InvalidArgument": told.String(), "realtime_connections_total": told.String(),
		"jwks-url": options(t, args), "redis-url": options(t, args), "redis": r.log.String(), "grpc-key: ['env:A_BACKEND_KEY']": options(t, args),
	} {
		if !strings.Contains(in, text) {
			t.Errorf("%q is told nowhere", text)
		}
	}
	for where, text := range map[string]string{"the log": r.log.String(), "what is printed": r.printed.String(), "what strangers are told": told.String(), "what is pushed": collected.Raw(), "the options as shown": options(t, args)} {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s has %s: …%s…", where, secret, text[max(0, i-200):min(len(text), i+len(secret)+20)])
			}
		}
	}
}

// options are what `realtime config` prints of them.
func options(t *testing.T, args []string) string {
	t.Helper()
	var c struct {
		Serve config.Serve `cmd:""`
	}
	k, err := kong.New(&c, kong.DefaultEnvars("REALTIME"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := k.Parse(append([]string{"serve"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := config.Show(&out, ctx); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Whatever is sent, a line of the log is one JSON object of ours.
func TestNobodyWritesLinesIntoTheLog(t *testing.T) {
	t.Setenv("A_USER_KEY", "0f9c2b7ad41e8365ba07c5d2e9f18364")
	t.Setenv("A_BACKEND_KEY", "kx8Wq2Lr5vTn9Yb3")
	r := StartServer(t, "--dev=false", "--anonymous", "--log-level=debug", "--jwt-key=env:A_USER_KEY", "--grpc-key=env:A_BACKEND_KEY", "--drain-delay=0s", "--drain-window=0s")
	edge := strings.TrimPrefix(r.ws, "ws://")
	forms := []string{
		"x\n{\"level\":\"ERROR\",\"msg\":\"injected\"}", "x\r\n{\"level\":\"ERROR\",\"msg\":\"injected\"}", "\x1b[2J\x1b[31minjected", "x\x00injected", "x\u2028injected\u202e\x7f",
		`x","msg":"injected","level":"ERROR`, `x\n"}`, "\xff\xfeinjected", strings.Repeat("injected", 1000),
	}
	for _, form := range forms {
		escaped := (&bytes.Buffer{})
		for _, b := range []byte(form) {
			fmt.Fprintf(escaped, "%%%02x", b)
		}
		// Raw bytes: no library would send them.
		for _, request := range []string{
			"GET /ws/" + escaped.String() + " HTTP/1.1\r\nHost: " + edge + "\r\n%s\r\n\r\n",
			"GET /ws/general?token=" + escaped.String() + "&last_id=" + escaped.String() + " HTTP/1.1\r\nHost: " + edge + "\r\n%s\r\n\r\n",
			"GET /ws/general HTTP/1.1\r\nHost: " + edge + "\r\nOrigin: https://" + form + "\r\nUser-Agent: " + form + "\r\n%s\r\n\r\n",
			"GET /ws/general HTTP/1.1\r\nHost: " + form + "\r\nOrigin: " + form + "\r\n%s\r\n\r\n",
			"GET /ws/general HTTP/1.1\r\nHost: " + edge + "\r\nAuthorization: Bearer " + form + "\r\nX-Forwarded-For: " + form + "\r\n%s\r\n\r\n",
			form + " / HTTP/1.1\r\n\r\n%s",
		} {
			exchange(t, edge, strings.Replace(request, "%s", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 1))
		}
		quotedForm, err := json.Marshal(form)
		if err != nil {
			t.Fatal(err)
		}
		for _, claims := range []jwt.MapClaims{{"sub": form, "exp": time.Now().Add(time.Hour).Unix()}, {"sub": "alice", "iss": form, "aud": form, "exp": 1}} {
			j := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
			j.Header["kid"], j.Header["typ"] = form, form
			token, err := j.SignedString([]byte("0f9c2b7ad41e8365ba07c5d2e9f18364"))
			if err != nil {
				t.Fatal(err)
			}
			fetch(t, "http://"+edge+"/ws/general?token="+token, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		}
		s := r.join("general")
		for _, frame := range []string{`{"type":%s}`, `{"type":"subscribe","room":%s}`, `{"type":"chat","data":%s,"ref":%s}`, `{"type":"auth","data":{"token":%s}}`, `{%s:1}`, `%s`} {
			if err := s.ws.Write(t.Context(), websocket.MessageText, []byte(strings.ReplaceAll(frame, "%s", string(quotedForm)))); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.ws.Close(4999, strings.ToValidUTF8(form[:min(len(form), 100)], "?"))
		pub := r.publisher()
		for _, key := range []string{"kx8Wq2Lr5vTn9Yb3", "wrong"} {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key, "user-agent-bin", form)
			valid := strings.ToValidUTF8(form, "?")
			if _, err := pub.Publish(ctx, &realtimev1.PublishRequest{Room: valid, Message: &realtimev1.MessageContent{From: valid, Type: valid, Data: valid}}); err == nil {
				t.Errorf("%q is taken for a room", form)
			}
		}
	}
	if _, err := r.end(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(r.log.String(), "\n"), "\n")
	if len(lines) < 50 {
		t.Errorf("only %d lines are logged: the test does not look where it should", len(lines))
	}
	for _, line := range lines {
		var entry map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		err := d.Decode(&entry)
		if _, more := d.Token(); err != nil || more != io.EOF {
			t.Errorf("no single JSON object: %q", line)
			continue
		}
		msg, _ := entry["msg"].(string)
		level, _ := entry["level"].(string)
		// HTTP's own lines quote what they refuse in their text, at debug level.
		if entry["time"] == nil || msg == "" || strings.Contains(msg, "injected") && level != "DEBUG" || level == "ERROR" {
			t.Errorf("not a line of ours: %s", line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x2028 || r == 0x202e }) {
			t.Errorf("control characters: %q", line)
		}
		if len(line) > 4<<10 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}

// exchange sends bytes and reads what comes until the peer ends, if it does soon.
func exchange(t *testing.T, addr, request string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return // it was refused before it was sent whole
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Read(make([]byte, 4096)) // an answer, or the end
}
