package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/auth"
)

func TestWhatIsSignedVerifies(t *testing.T) {
	t.Setenv(keyVar, secret)
	keys := map[string]string{"": "env:" + keyVar, "HS256": "env:" + keyVar, "HS384": "env:" + keyVar, "HS512": "env:" + keyVar}
	for alg, k := range signers {
		keys[alg] = file(t, privatePEM(t, k), 0o600)
	}
	now := time.Now().Truncate(time.Second)
	for alg, key := range keys {
		token, err := auth.Sign(key, alg, auth.Claims{
			User: "ada <&>", TokenID: "t1", Issuer: "us", Audience: "rt", IssuedAt: now, Expires: now.Add(time.Hour),
			Rooms: map[string]string{"a*": "rw"}, Info: []byte(` { "name" : "Ada" } `), MaxSessions: 3,
		})
		if err != nil {
			t.Fatal(alg, err)
		}
		var algorithms []string
		if alg != "" {
			algorithms = []string{alg}
		}
		v := verifier(t, auth.Config{Keys: []string{key}, Algorithms: algorithms, Issuer: "us", Audience: "rt"})
		id, err := v.Verify(token)
		if err != nil {
			t.Fatal(alg, err)
		}
		want := auth.Identity{
			User: "ada <&>", TokenID: "t1", IssuedAt: now, Expires: now.Add(time.Hour), Info: []byte(`{"name":"Ada"}`), MaxSessions: 3, Grants: id.Grants,
		}
		if d := cmp.Diff(want, id, cmp.Comparer(func(a, b *auth.Grants) bool { return a == b })); d != "" || id.Grants.For("ab").String() != "rw" || id.Grants.For("b") != 0 {
			t.Errorf("%s: Identity (-want +got):\n%s", alg, d)
		}
	}
}

func TestATokenOfASignerSaysOnlyWhatItIsTold(t *testing.T) {
	t.Setenv(keyVar, secret)
	v := verifier(t, auth.Config{Rooms: map[string]string{"lobby": "p"}})
	for want, rooms := range map[string]map[string]string{"p": nil, "": {}, "rw": {"lobby": "rw"}} {
		token, err := auth.Sign("env:"+keyVar, "", auth.Claims{User: "ada", Expires: time.Now().Add(time.Hour), Rooms: rooms})
		if err != nil {
			t.Fatal(err)
		}
		id, err := v.Verify(token)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.Grants.For("lobby").String(); got != want || !id.IssuedAt.IsZero() || id.Info != nil || id.TokenID != "" || id.MaxSessions != 0 {
			t.Errorf("with rooms %v: grants %q, %+v", rooms, got, id)
		}
	}
}

func TestWhatNobodyWouldAcceptIsNotSigned(t *testing.T) {
	t.Setenv(keyVar, secret)
	good := func() auth.Claims { return auth.Claims{User: "ada", Expires: time.Now().Add(time.Hour)} }
	many := make(map[string]string)
	for i := range 900 {
		many[strings.Repeat("r", i%100+1)+string(rune('a'+i/100))] = "rwph"
	}
	for name, c := range map[string]struct {
		key, alg string
		change   func(*auth.Claims)
		why      string
	}{
		"no user":              {change: func(c *auth.Claims) { c.User = "" }, why: "a user id is"},
		"a bad user":           {change: func(c *auth.Claims) { c.User = "a\nb" }, why: "a user id is"},
		"no end":               {change: func(c *auth.Claims) { c.Expires = time.Time{} }, why: "must expire"},
		"a bad room":           {change: func(c *auth.Claims) { c.Rooms = map[string]string{"a b": "r"} }, why: `room key "a b"`},
		"a bad operation":      {change: func(c *auth.Claims) { c.Rooms = map[string]string{"a": "x"} }, why: `operations "x"`},
		"too many rooms":       {change: func(c *auth.Claims) { c.Rooms = many }, why: "the limit is 8192"},
		"bad info":             {change: func(c *auth.Claims) { c.Info = []byte(`{`) }, why: "info: data is not one valid JSON"},
		"empty info":           {change: func(c *auth.Claims) { c.Info = []byte{} }, why: "info: data is not one valid JSON"},
		"large info":           {change: func(c *auth.Claims) { c.Info = []byte(`"` + strings.Repeat("i", 1023) + `"`) }, why: "info: 1025 bytes, the limit is 1024"},
		"a long id":            {change: func(c *auth.Claims) { c.TokenID = strings.Repeat("j", 257) }, why: "token id of 257 bytes"},
		"negative sessions":    {change: func(c *auth.Claims) { c.MaxSessions = -1 }, why: "-1 sessions at once"},
		"no UTF-8":             {change: func(c *auth.Claims) { c.Issuer = "\xff" }, why: "UTF-8"},
		"a public key":         {key: file(t, publicPEM(t, rsaPrivate), 0o644), why: "it is a public key, signing takes the private one"},
		"a key for all":        {key: file(t, privatePEM(t, rsaPrivate), 0o644), why: "chmod o-r"},
		"another algorithm":    {alg: "RS256", why: "algorithm \"RS256\" does not fit a secret, which takes HS256, HS384, HS512"},
		"no algorithm":         {alg: "none", why: "algorithm \"none\" does not fit"},
		"an algorithm too big": {key: file(t, privatePEM(t, p256), 0o600), alg: "ES384", why: "does not fit a P-256 key, which takes ES256"},
		"no key":               {key: "env:AUTH_TEST_UNDEFINED", why: "key env:AUTH_TEST_UNDEFINED: the variable is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := good()
			if c.change != nil {
				c.change(&claims)
			}
			if c.key == "" {
				c.key = "env:" + keyVar
			}
			token, err := auth.Sign(c.key, c.alg, claims)
			if err == nil || token != "" || !strings.Contains(err.Error(), c.why) || errors.Is(err, auth.ErrToken) {
				t.Errorf("Sign = %q, %v, want %q", token, err, c.why)
			}
		})
	}
}

func TestASecretOfTheProgramsOwnSignsAndVerifies(t *testing.T) {
	own := []byte("0123456789abcdefghijklmnopqrstuv")
	v, err := auth.New(auth.Config{Secret: own})
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.SignWith(own, auth.Claims{User: "ada", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := v.Verify(token); err != nil || id.User != "ada" {
		t.Errorf("%+v, %v", id, err)
	}
}

func TestAKeyGivenByItsValueIsNotShown(t *testing.T) {
	for name, shown := range map[string]bool{
		"/nowhere/jwt.pem": true, "./jwt": true, "jwt.key": true,
		"hunter2hunter2hunter2hunter2hunter2hunter2": false, "c2VjcmV0/c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0.x": false, "hunter2": false,
	} {
		_, err := auth.New(auth.Config{Keys: []string{name}})
		if err == nil || strings.Contains(err.Error(), name) != shown {
			t.Errorf("%q: %v", name, err)
		}
	}
}
