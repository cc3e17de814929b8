package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/slack5/realtime/internal/auth"
)

// jwk is a key as a set has it; more are members that are added or replaced.
func jwk(tb testing.TB, key any, kid string, more ...string) string {
	tb.Helper()
	if s, ok := key.(crypto.Signer); ok {
		key = s.Public()
	}
	k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}, Marshal: jwkset.JWKMarshalOptions{Private: true}})
	if err != nil {
		tb.Fatal(err)
	}
	var m map[string]any
	if err := errors.Join(json.Unmarshal(must(json.Marshal(k.Marshal())), &m)); err != nil {
		tb.Fatal(err)
	}
	for _, one := range more {
		if err := json.Unmarshal([]byte("{"+one+"}"), &m); err != nil {
			tb.Fatal(err)
		}
	}
	return string(must(json.Marshal(m)))
}

func keySet(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// signAs makes a token of an issuer, with a kid unless it is "".
func signAs(tb testing.TB, alg string, key any, kid, iss string) string {
	tb.Helper()
	claims := jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(time.Hour).Unix()}
	if iss != "" {
		claims["iss"] = iss
	}
	t := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	if kid != "" {
		t.Header["kid"] = kid
	}
	return must(t.SignedString(key))
}

// provider serves a key set.
type provider struct {
	*httptest.Server
	fetches atomic.Int64
	mu      sync.Mutex
	serve   http.HandlerFunc
}

func newProvider(tb testing.TB, set string) *provider {
	tb.Helper()
	p := &provider{}
	p.says(set)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		serve := p.serve
		p.mu.Unlock()
		serve(w, r)
	}))
	tb.Cleanup(p.Close)
	return p
}

func (p *provider) does(h http.HandlerFunc) {
	p.mu.Lock()
	p.serve = h
	p.mu.Unlock()
}

func (p *provider) says(set string) {
	p.does(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, set) })
}

// lines are what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keep runs the verifier until the test ends, and returns when it has tried all URLs.
func keep(tb testing.TB, v *auth.Verifier) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	tried, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); v.Run(ctx, func() { close(tried) }) }()
	tb.Cleanup(func() { cancel(); <-ended })
	select {
	case <-tried:
	case <-time.After(20 * time.Second):
		tb.Fatal("it does not try")
	}
}

func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	end := time.NewTimer(20 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			tb.Fatal("not in 20 s: " + what)
		}
	}
}

func passes(v *auth.Verifier, token string) bool {
	_, err := v.Verify(token)
	return err == nil
}

func TestAKeySetBehindAURLVerifies(t *testing.T) {
	p := newProvider(t, keySet(jwk(t, rsaPrivate, "r"), jwk(t, p256, "e"), jwk(t, p384, "f"), jwk(t, p521, "g"), jwk(t, ed, "d")))
	v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{p.URL + "/keys?tenant=a"}, Issuer: "us"})
	if v.Usable() || passes(v, signAs(t, "RS256", rsaPrivate, "r", "us")) {
		t.Error("it has keys before it runs")
	}
	keep(t, v)
	if !v.Usable() {
		t.Fatal("no keys")
	}
	for alg, kid := range map[string]string{"RS256": "r", "ES256": "e", "ES384": "f", "ES512": "g", "EdDSA": "d"} {
		for _, named := range []string{kid, ""} {
			if _, err := v.Verify(signAs(t, alg, signers[alg], named, "us")); err != nil {
				t.Errorf("%s with kid %q: %v", alg, named, err)
			}
		}
		refused(t, v, signAs(t, alg, signers[alg], kid, "them"), auth.ErrToken, "iss")
	}
	refused(t, v, signAs(t, "RS512", rsaPrivate, "r", "us"), auth.ErrToken, `alg "RS512"`)
	refused(t, v, signAs(t, "ES256", p256, "r", "us"), auth.ErrToken, "alg")
	refused(t, v, signAs(t, "ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "e", "us"), auth.ErrToken, "no key verifies")
	refused(t, v, signAs(t, "HS256", []byte(publicPEM(t, rsaPrivate)), "r", "us"), auth.ErrToken, "alg")
}

func TestAKeySetInAFileVerifies(t *testing.T) {
	path := file(t, keySet(jwk(t, ed, "d")), 0o644)
	v := verifier(t, auth.Config{Keys: []string{file(t, publicPEM(t, rsaPrivate), 0o644)}, KeySets: []string{path}})
	for _, token := range []string{signAs(t, "EdDSA", ed, "d", ""), signAs(t, "EdDSA", ed, "", ""), signAs(t, "RS256", rsaPrivate, "anything", "")} {
		if _, err := v.Verify(token); err != nil {
			t.Error(err)
		}
	}
	refused(t, v, signAs(t, "EdDSA", ed, "x", ""), auth.ErrToken, "")
}

func TestAKeyOfASetIsPinnedToWhatTheSetSays(t *testing.T) {
	path := file(t, keySet(jwk(t, rsaPrivate, "ps", `"alg":"PS384"`), jwk(t, rsaPrivate, "rs", `"use":"sig","key_ops":["verify"]`)), 0o644)
	v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{path}})
	for kid, want := range map[string]string{"ps": "PS384", "rs": "RS256"} {
		for alg, k := range signers {
			if k != rsaPrivate {
				continue
			}
			if got := passes(v, signAs(t, alg, k, kid, "")); got != (alg == want) {
				t.Errorf("key %s takes %s: %v", kid, alg, got)
			}
		}
	}
	v = verifier(t, auth.Config{Keys: []string{}, KeySets: []string{path}, Algorithms: []string{"RS256", "RS512"}})
	for alg, want := range map[string]bool{"PS384": false, "RS256": true, "RS512": true, "RS384": false} {
		if got := passes(v, signAs(t, alg, rsaPrivate, "", "")); got != want {
			t.Errorf("with --jwt-alg RS256, RS512 it takes %s: %v", alg, got)
		}
	}
}

func TestWhatIsNoKeyForTokensIsLeftOutOfASet(t *testing.T) {
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	x := must(ecdh.X25519().GenerateKey(rand.Reader))
	oct := `{"kty":"oct","kid":"oct","k":"` + b64(secret) + `"}`
	for name, c := range map[string]struct{ key, why string }{
		"a secret":               {oct, "a secret (oct)"},
		"a key to encrypt with":  {jwk(t, rsaPrivate, "k", `"use":"enc"`), `use \"enc\" is not sig`},
		"a key to sign with":     {jwk(t, rsaPrivate, "k", `"key_ops":["sign"]`), "key_ops"},
		"weak RSA":               {jwk(t, weak, "k"), "1024 bits"},
		"X25519":                 {jwk(t, x.PublicKey(), "k"), "Ed25519 key"},
		"a curve of its own":     {jwk(t, p256, "k", `"crv":"secp256k1"`), "not supported"},
		"a point off the curve":  {jwk(t, p256, "k", `"y":"AAAA"`), "not valid"},
		"an alg that is none":    {jwk(t, rsaPrivate, "k", `"alg":"RS1"`), "does not fit an RSA key"},
		"an alg of others":       {jwk(t, rsaPrivate, "k", `"alg":"ES256"`), "does not fit"},
		"an alg of secrets":      {jwk(t, rsaPrivate, "k", `"alg":"HS256"`), "does not fit"},
		"an unknown kind":        {`{"kty":"PQ\n","kid":"k"}`, "not supported"},
		"no kind":                {`{}`, "not supported"},
		"no base64":              {jwk(t, rsaPrivate, "k", `"n":"???"`), "not valid"},
		"a number for a name":    {jwk(t, rsaPrivate, "k", `"kid":7`), "not a JSON Web Key"},
		"a string":               {`"k"`, "not a JSON Web Key"},
		"a kid that is too long": {jwk(t, rsaPrivate, strings.Repeat("k", 257)), "kid of 257 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &lines{}
			v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{file(t, keySet(c.key, jwk(t, ed, "good")), 0o644)}, Logger: log.logger()})
			if !passes(v, signAs(t, "EdDSA", ed, "good", "")) {
				t.Error("the key beside it does not count")
			}
			for _, token := range []string{signAs(t, "RS256", rsaPrivate, "k", ""), signAs(t, "RS256", rsaPrivate, "", ""), signAs(t, "HS256", []byte(secret), "oct", ""), signAs(t, "HS256", []byte(secret), "", "")} {
				refused(t, v, token, auth.ErrToken, "")
			}
			if got := log.String(); !strings.Contains(got, `"level":"WARN"`) || !strings.Contains(got, c.why) || strings.Contains(got, b64(secret)) || strings.Count(got, "\n") != 1 {
				t.Errorf("logged %s, want %q and no key", got, c.why)
			}
			if _, err := auth.New(auth.Config{KeySets: []string{file(t, keySet(c.key), 0o644)}}); err == nil || !strings.Contains(err.Error(), "no usable key") || strings.Contains(err.Error(), b64(secret)) {
				t.Errorf("alone: %v", err)
			}
		})
	}
}

func TestASetThatIsNoneIsRefusedAtTheStart(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = jwk(t, ed, fmt.Sprint(i))
	}
	for content, why := range map[string]string{
		"":              "not a JSON object",
		"[]":            "not a JSON object",
		`{"keys":{}}`:   "not a JSON object",
		`{"keys":[]}`:   "no usable key",
		`{}`:            "no usable key",
		`{"KEYS":[]}`:   "no usable key",
		keySet(many...): "65 keys, the limit is 64",
		`{"keys":[],"keys":[` + jwk(t, ed, "d") + `]}`: "not a JSON object",
		strings.Repeat(" ", 512<<10) + "1":             "larger than 524288 bytes",
	} {
		path := file(t, content, 0o644)
		if _, err := auth.New(auth.Config{KeySets: []string{path}}); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: %v, want %q", content, err, why)
		}
	}
	verifier(t, auth.Config{Keys: []string{}, KeySets: []string{file(t, keySet(many[:64]...), 0o644)}})
	if _, err := auth.New(auth.Config{KeySets: []string{t.TempDir() + "/none"}}); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("no file: %v", err)
	}
	if _, err := auth.New(auth.Config{KeySets: []string{"aSecretGivenInPlaceOfAFile"}}); err == nil || strings.Contains(err.Error(), "aSecret") {
		t.Errorf("what may be a secret: %v", err)
	}
}

func TestKeysThatCannotStandTogetherAreRefused(t *testing.T) {
	t.Setenv(keyVar, secret)
	set, shared := file(t, keySet(jwk(t, ed, "d")), 0o644), "env:"+keyVar
	for name, c := range map[string]struct {
		cfg auth.Config
		why string
	}{
		"a secret and a set":           {auth.Config{Keys: []string{shared}, KeySets: []string{set}}, "key " + shared + ": a secret beside a key set"},
		"a secret and one by URL":      {auth.Config{Keys: []string{shared}, KeySets: []string{"https://id.example/keys"}}, "a secret beside a key set"},
		"an algorithm of secrets":      {auth.Config{KeySets: []string{set}, Algorithms: []string{"HS256"}}, "algorithm HS256 fits none of the keys"},
		"an unknown algorithm":         {auth.Config{KeySets: []string{set}, Algorithms: []string{"none"}}, `algorithm "none"`},
		"a set that no algorithm fits": {auth.Config{KeySets: []string{set}, Algorithms: []string{"RS256"}}, "key 1: alg EdDSA is none of the configured ones"},
		"an issuer twice":              {auth.Config{Issuers: []auth.Issuer{{Name: "a", KeySets: []string{set}}, {Name: "a", KeySets: []string{set}}}}, `issuer "a"`},
		"the own issuer once more":     {auth.Config{Issuer: "a", KeySets: []string{set}, Issuers: []auth.Issuer{{Name: "a", KeySets: []string{set}}}}, `issuer "a"`},
		"an issuer without a name":     {auth.Config{KeySets: []string{set}, Issuers: []auth.Issuer{{KeySets: []string{set}}}}, "it must have a name"},
		"plain HTTP":                   {auth.Config{KeySets: []string{"http://user:pw@id.example/keys?key=k"}}, "key set http://id.example/keys: over http://"},
		"plain HTTP to a look-alike":   {auth.Config{KeySets: []string{"http://localhost.example/keys"}}, "over http://"},
		"a URL that is none":           {auth.Config{KeySets: []string{"https://user:pw@:x"}}, "is not one"},
	} {
		if _, err := auth.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.why) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v, want %q", name, err, c.why)
		}
	}
	for name, cfg := range map[string]auth.Config{
		"a secret and another's set": {Keys: []string{shared}, Issuers: []auth.Issuer{{Name: "a", KeySets: []string{set}}}},
		"plain HTTP, if it is said":  {KeySets: []string{"http://id.example/keys"}, PlainHTTP: true},
		"plain HTTP on loopback":     {KeySets: []string{"http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"}},
	} {
		if _, err := auth.New(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two issuers may give the same name to different keys, and the same key different names.
func TestEachIssuersKeysJudgeItsTokensAlone(t *testing.T) {
	t.Setenv(keyVar, secret)
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a := file(t, keySet(jwk(t, p256, "one")), 0o644)
	b := newProvider(t, keySet(jwk(t, other, "one")))
	v := verifier(t, auth.Config{Keys: []string{"env:" + keyVar}, Issuers: []auth.Issuer{{Name: "a", KeySets: []string{a}}, {Name: "b", KeySets: []string{b.URL}}}})
	keep(t, v)
	for _, c := range []struct {
		alg string
		key any
		iss string
		ok  bool
	}{
		{"ES256", p256, "a", true},
		{"ES256", other, "b", true},
		{"HS256", []byte(secret), "", true},
		{"HS256", []byte(secret), "c", true},
		{"ES256", p256, "b", false},
		{"ES256", other, "a", false},
		{"ES256", p256, "", false},
		{"ES256", other, "c", false},
		{"HS256", []byte(secret), "a", false},
		{"HS256", []byte(secret), "b", false},
	} {
		for _, kid := range []string{"one", ""} {
			if got := passes(v, signAs(t, c.alg, c.key, kid, c.iss)); got != c.ok {
				t.Errorf("%s of iss %q with kid %q: %v", c.alg, c.iss, kid, got)
			}
		}
	}
	for _, payload := range []string{`{"iss":1}`, `{"iss":"a","iss":"b"}`, `{"iss":"a","i\u0073s":"b"}`, `[]`, ``, `{"x":` + strings.Repeat("[", 40)} {
		refused(t, v, mint(plain, payload, secret), auth.ErrToken, "")
	}
}

func TestWithoutKeysForEverybodyAnUnknownIssuerIsRefused(t *testing.T) {
	a, b := file(t, keySet(jwk(t, p256, "one")), 0o644), file(t, keySet(jwk(t, ed, "one")), 0o644)
	v := verifier(t, auth.Config{Keys: []string{}, Issuers: []auth.Issuer{{Name: "a", Audience: "rt-a", KeySets: []string{a}}, {Name: "b", KeySets: []string{b}}}})
	refused(t, v, signAs(t, "ES256", p256, "one", "c"), auth.ErrToken, `iss "c" is none of the configured issuers`)
	refused(t, v, signAs(t, "ES256", p256, "one", ""), auth.ErrToken, `iss "" is none`)
	refused(t, v, signAs(t, "ES256", p256, "one", "a"), auth.ErrToken, "audience")
	if !passes(v, signAs(t, "EdDSA", ed, "one", "b")) {
		t.Error("an issuer without an audience is held to that of another")
	}
}

func TestAFileThatChangesIsReadAgain(t *testing.T) {
	version := time.Now().Add(-time.Hour)
	write := func(path, content string) {
		version = version.Add(time.Minute)
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, version, version)); err != nil {
			t.Fatal(err)
		}
	}
	log := &lines{}
	key, set, own := file(t, publicPEM(t, rsaPrivate), 0o600), file(t, keySet(jwk(t, p256, "one")), 0o600), file(t, secret, 0o600)
	v := verifier(t, auth.Config{Keys: []string{key}, KeySets: []string{set}, Logger: log.logger()})
	shared := verifier(t, auth.Config{Keys: []string{own}, Logger: log.logger()})
	keep(t, v)
	keep(t, shared)

	write(key, publicPEM(t, p384))
	write(set, keySet(jwk(t, p256, "one"), jwk(t, p521, "two")))
	write(own, strings.ToUpper(secret)+"\n")
	until(t, "the new ones count", func() bool {
		return passes(v, signAs(t, "ES384", p384, "", "")) && passes(v, signAs(t, "ES512", p521, "two", "")) && passes(shared, sign(t, "HS256", []byte(strings.ToUpper(secret))))
	})
	if passes(v, sign(t, "RS256", rsaPrivate)) || passes(shared, sign(t, "HS256", []byte(secret))) {
		t.Error("the old keys count still")
	}
	if !passes(v, signAs(t, "ES256", p256, "one", "")) {
		t.Error("what stayed in the set does not count")
	}

	told := func(n int) func() bool {
		return func() bool { return strings.Count(log.String(), `"level":"ERROR"`) == n }
	}
	write(key, "no key") // of secrets a short one, in place of a public key
	write(set, `{"keys":[]}`)
	write(own, publicPEM(t, rsaPrivate))
	until(t, "three are told", told(3))
	write(key, secret)
	until(t, "a secret in place of a public key is told", told(4))
	if err := os.Remove(set); err != nil {
		t.Fatal(err)
	}
	until(t, "a file that is gone is told", told(5))
	if !passes(v, signAs(t, "ES384", p384, "", "")) || !passes(v, signAs(t, "ES512", p521, "two", "")) || !passes(shared, sign(t, "HS256", []byte(strings.ToUpper(secret)))) {
		t.Error("the keys before are not kept")
	}
	if passes(v, sign(t, "HS256", []byte(secret))) {
		t.Error("a secret came in place of a public key")
	}
	for _, value := range []string{secret, strings.ToUpper(secret), "no key"} {
		if strings.Contains(log.String(), value) {
			t.Errorf("logged: %s", log.String())
		}
	}
}
