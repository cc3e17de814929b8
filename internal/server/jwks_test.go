package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
)

// signer is a key of an issuer's, with its name.
type signer struct {
	kid     string
	private ed25519.PrivateKey
}

func newSigner(t testing.TB, kid string) signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, private}
}

// token is good for an hour, or for life.
func (s signer) token(t testing.TB, user string, life ...time.Duration) string {
	t.Helper()
	end := time.Now().Add(time.Hour)
	if life != nil {
		end = time.Now().Add(life[0])
	}
	j := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"sub": user, "iss": "id", "exp": end.Unix()})
	j.Header["kid"] = s.kid
	token, err := j.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// set is what the issuer publishes.
func set(keys ...signer) string {
	var all []string
	for _, k := range keys {
		public, _ := k.private.Public().(ed25519.PublicKey)
		all = append(all, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, k.kid, base64.RawURLEncoding.EncodeToString(public)))
	}
	return `{"keys":[` + strings.Join(all, ",") + `]}`
}

// publishes serves what says holds at the time; nothing: status 503.
func publishes(t testing.TB, says *atomic.Pointer[string]) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := says.Load()
		if s == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, *s)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// admits tells whether a handshake with a token ends in a session.
func (r *Running) admits(token string) bool {
	r.t.Helper()
	ws, resp, err := websocket.Dial(r.t.Context(), r.ws+"/ws/general", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err == nil {
		_ = ws.CloseNow()
	} else if resp == nil || resp.StatusCode != http.StatusUnauthorized {
		r.t.Fatalf("%v, %v", err, resp)
	}
	return err == nil
}

func TestAKeyThatItsIssuerRotatesInIsUsedWithoutARestart(t *testing.T) {
	var says atomic.Pointer[string]
	first, second := newSigner(t, "first"), newSigner(t, "second")
	old, both := set(first), set(first, second)
	says.Store(&old)
	r := StartServer(t, "--dev=false", "--jwks-url="+publishes(t, &says), "--jwt-issuer=id")
	if !r.admits(first.token(t, "alice")) { // with the first handshake: it waited for the keys
		t.Fatal("the first key does not count")
	}
	if r.admits(newSigner(t, "other").token(t, "alice")) {
		t.Fatal("a key that nobody published counts")
	}
	says.Store(&both)
	end := time.Now().Add(30 * time.Second) // one fetch in ten seconds
	for !r.admits(second.token(t, "alice")) {
		if time.Now().After(end) {
			t.Fatal("the second key does not count")
		}
	}
	if !r.admits(first.token(t, "alice")) {
		t.Error("the first key does not count any more")
	}
	says.Store(nil)
	if r.admits(newSigner(t, "third").token(t, "alice")) || r.admits(first.token(t, "alice", -time.Hour)) || r.admits("") {
		t.Error("admitted")
	}
	_, got := r.scrape()
	for _, reason := range []string{"token_key_unknown", "token_expired", "token_missing"} {
		if got["realtime_auth_failures_total "+reason] == 0 {
			t.Errorf("%s is not counted", reason)
		}
	}
	if got["realtime_jwks_fetches_total ok"] < 2 || got["realtime_jwks_age_seconds"] <= 0 {
		t.Errorf("%v fetches, age %v", got["realtime_jwks_fetches_total ok"], got["realtime_jwks_age_seconds"])
	}
}

func TestANodeWithoutAnyKeyIsUnreadyUntilThereIsOne(t *testing.T) {
	var says atomic.Pointer[string]
	k := newSigner(t, "first")
	r := StartServer(t, "--dev=false", "--jwks-url=id="+publishes(t, &says))
	if code, _, body := fetch(t, r.http+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"reasons":["no_keys"]`) {
		t.Errorf("without keys: %d %s", code, body)
	}
	if r.admits(k.token(t, "alice")) {
		t.Error("admitted")
	}
	if r.log.find("WARN", "key set not fetched") == nil {
		t.Error("not told")
	}
	now := set(k)
	says.Store(&now)
	eventually(t, "it is ready", func() bool { code, _, _ := fetch(t, r.http+"/readyz"); return code == http.StatusOK })
	if !r.admits(k.token(t, "alice")) {
		t.Error("refused")
	}
	if _, got := r.scrape(); got["realtime_jwks_fetches_total failed"] == 0 {
		t.Error("failures are not counted")
	}
}

func TestAKeyFileThatChangesIsUsedWithoutARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	first, second := newSigner(t, "first"), newSigner(t, "second")
	if err := os.WriteFile(path, []byte(set(first)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := StartServer(t, "--dev=false", "--jwks-file=id="+path)
	if !r.admits(first.token(t, "alice")) || r.admits(second.token(t, "alice")) {
		t.Fatal("the file does not count as it is")
	}
	if err := os.WriteFile(path, []byte(set(second)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new key counts", func() bool { return r.admits(second.token(t, "alice")) })
	if r.admits(first.token(t, "alice")) {
		t.Error("the old key counts still")
	}
}

func TestKeysThatCannotWorkEndTheStart(t *testing.T) {
	t.Setenv("A_KEY", "0f9c2b7ad41e8365ba07c5d2e9f18364")
	failsToStart(t, []string{"--jwks-url=https://id.example/", "--jwt-key=env:A_KEY"}, "--jwt-key, --jwks-url, --jwks-file: ", "a secret beside a key set")
	failsToStart(t, []string{"--jwks-file=/nowhere/keys.json"}, "--jwt-key, --jwks-url, --jwks-file: ", "/nowhere/keys.json")
}
