package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/auth"
)

func TestATokenOfAServiceSaysWhatItMayDo(t *testing.T) {
	v := verifier(t, auth.Config{Audience: "backends"})
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	for scope, want := range map[string][]string{
		"publish":               {"publish"},
		"publish:as-user other": {"publish:as-user", "other"},
		"  a   b ":              {"a", "b"},
	} {
		token := mint(plain, fmt.Sprintf(`{"sub":"shop","aud":["x","backends"],"exp":%d,"scope":%q}`, end.Unix(), scope), secret)
		got, err := v.VerifyService(token)
		if d := cmp.Diff(auth.Service{Name: "shop", Scopes: want, Expires: end}, got); err != nil || d != "" {
			t.Errorf("scope %q: %v (-want +got):\n%s", scope, err, d)
		}
	}
}

func TestNoOthersTokenIsAServices(t *testing.T) {
	v := verifier(t, auth.Config{Issuer: "us", Audience: "backends"})
	good := func(more string) string { return body(`,"iss":"us","aud":"backends","scope":"publish"` + more) }
	if _, err := v.VerifyService(mint(plain, good(""), secret)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		want  error
		why   string
	}{
		"a user's":               {mint(plain, good(`,"rt":{}`), secret), auth.ErrToken, "user's"},
		"no scope":               {mint(plain, body(`,"iss":"us","aud":"backends"`), secret), auth.ErrToken, "scope is missing"},
		"an empty scope":         {mint(plain, body(`,"iss":"us","aud":"backends","scope":" "`), secret), auth.ErrToken, "scope is missing"},
		"a scope that is a list": {mint(plain, body(`,"iss":"us","aud":"backends","scope":["publish"]`), secret), auth.ErrToken, "scope is missing"},
		"for others":             {mint(plain, body(`,"iss":"us","aud":"users","scope":"publish"`), secret), auth.ErrToken, "aud"},
		"for nobody":             {mint(plain, body(`,"iss":"us","scope":"publish"`), secret), auth.ErrToken, "aud"},
		"another's":              {mint(plain, body(`,"iss":"them","aud":"backends","scope":"publish"`), secret), auth.ErrToken, "iss"},
		"another key's":          {mint(plain, good(""), strings.Repeat("x", 32)), auth.ErrToken, "signature"},
		"two scopes":             {mint(plain, good(`,"scope":"control"`), secret), auth.ErrToken, "duplicate"},
		"an old one":             {mint(plain, `{"sub":"a","iss":"us","aud":"backends","scope":"publish","exp":`+in(-time.Minute)+`}`, secret), auth.ErrExpired, "ago"},
		"one for years":          {mint(plain, `{"sub":"a","iss":"us","aud":"backends","scope":"publish","exp":`+in(48*time.Hour)+`}`, secret), auth.ErrToken, "limit"},
		"no token":               {"a.b", auth.ErrToken, "three parts"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.VerifyService(c.token)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.why) || !cmp.Equal(got, auth.Service{}) {
				t.Errorf("VerifyService = %+v, %v, want %v that says %q", got, err, c.want, c.why)
			}
		})
	}
}

func TestATokenForAnotherServiceIsNoSessions(t *testing.T) {
	v := verifier(t, auth.Config{NotFor: "backends"})
	for aud, ok := range map[string]bool{`"users"`: true, `[]`: true, `"backends"`: false, `["users","backends"]`: false} {
		_, err := v.Verify(mint(plain, body(`,"aud":`+aud), secret))
		if ok && err != nil || !ok && (!errors.Is(err, auth.ErrToken) || !strings.Contains(err.Error(), "another service")) {
			t.Errorf("aud %s: %v", aud, err)
		}
	}
	// What an issuer says in scope is nothing to a session, in whatever form it says it.
	for _, scope := range []string{`"openid profile"`, `["openid"]`, `{"a":[1]}`, `null`} {
		if _, err := v.Verify(mint(plain, body(`,"scope":`+scope), secret)); err != nil {
			t.Errorf("scope %s: %v", scope, err)
		}
	}
}

func TestAServicesTokenIsSignedAsSuch(t *testing.T) {
	t.Setenv(keyVar, secret)
	v := verifier(t, auth.Config{Audience: "backends"})
	c := auth.Claims{User: "shop", Audience: "backends", Expires: time.Now().Add(time.Hour), Scope: "publish presence"}
	token, err := auth.Sign("env:"+keyVar, "", c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.VerifyService(token); err != nil || !cmp.Equal(got.Scopes, []string{"publish", "presence"}) {
		t.Errorf("VerifyService = %+v, %v", got, err)
	}
	c.MaxSessions = 1
	if _, err := auth.Sign("env:"+keyVar, "", c); err == nil || !strings.Contains(err.Error(), "a scope beside") {
		t.Errorf("a service with sessions: %v", err)
	}
}
