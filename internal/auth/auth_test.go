package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

const (
	secret = "0f9c2b7ad41e8365ba07c5d2e9f18364" // 32 bytes
	keyVar = "AUTH_TEST_KEY"
)

// verifier has one secret, unless cfg names keys.
func verifier(tb testing.TB, cfg auth.Config) *auth.Verifier {
	tb.Helper()
	if cfg.Keys == nil {
		tb.Setenv(keyVar, secret)
		cfg.Keys = []string{"env:" + keyVar}
	}
	v, err := auth.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const plain = `{"alg":"HS256","typ":"JWT"}`

// mint signs whatever it is given with HS256.
func mint(header, payload, key string) string {
	signed := b64(header) + "." + b64(payload)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(signed))
	return signed + "." + b64(string(mac.Sum(nil)))
}

// in is a time from now as a claim.
func in(d time.Duration) string { return fmt.Sprint(time.Now().Add(d).Unix()) }

// body is a payload that is good for an hour, and more.
func body(more string) string { return `{"sub":"ada","exp":` + in(time.Hour) + more + `}` }

// refused fails the test unless the token is, as it should be, and in a text of one short line.
func refused(t *testing.T, v *auth.Verifier, token string, want error, why string) {
	t.Helper()
	id, err := v.Verify(token)
	other := auth.ErrToken
	if errors.Is(want, auth.ErrToken) {
		other = auth.ErrExpired
	}
	if !errors.Is(err, want) || errors.Is(err, other) || !cmp.Equal(id, auth.Identity{}) {
		t.Fatalf("Verify = %+v, %v, want %v", id, err, want)
	}
	if text := err.Error(); !strings.Contains(text, why) || len(text) > 300 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("it says %q, want %q in one short line", text, why)
	}
}

func TestATokenBecomesAnIdentity(t *testing.T) {
	v := verifier(t, auth.Config{Issuer: "https://issuer", Audience: "rt"})
	now := time.Now().Unix()
	token := mint(plain, fmt.Sprintf(`{"iss":"https://issuer","aud":["other","rt"],"sub":"*{u1}?[a-z]","jti":"t-1","iat":%d,"nbf":%d,"exp":%d.5,
		"unknown":[{"deep":[1]}],"token_use":"access","rt":{"rooms":{"team-7.*":"rw","announce":"r"},"info":{ "name" : "A\u0064a <\u2028>", "n": 1e400 },"max_sessions":5,"later":true}}`, now-5, now-5, now+60), secret)
	id, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	want := auth.Identity{
		User: "*{u1}?[a-z]", TokenID: "t-1", IssuedAt: time.Unix(now-5, 0), Expires: time.Unix(now+60, 5e8), MaxSessions: 5,
		Info: []byte(`{"name":"A\u0064a <\u2028>","n":1e400}`), Grants: id.Grants,
	}
	if d := cmp.Diff(want, id, cmp.Comparer(func(a, b *auth.Grants) bool { return a == b })); d != "" {
		t.Errorf("Identity (-want +got):\n%s", d)
	}
	if got := id.Grants.For("team-7.x").String() + " " + id.Grants.For("announce").String() + " " + id.Grants.For("team-70").String(); got != "rw r " {
		t.Errorf("grants = %q", got)
	}
}

func TestASessionDoesNotKeepTheWhiteSpaceOfItsInfo(t *testing.T) {
	id, err := verifier(t, auth.Config{}).Verify(mint(plain, body(`,"rt":{"info":[`+strings.Repeat(" ", 2000)+`1]}`), secret))
	if err != nil || string(id.Info) != "[1]" || cap(id.Info) > 64 {
		t.Errorf("Info = %q with room for %d bytes, %v", id.Info, cap(id.Info), err)
	}
}

func TestAnIdentityOutlivesWhatIsVerifiedBesideIt(t *testing.T) {
	v := verifier(t, auth.Config{})
	token := func(n int) string {
		return mint(plain, fmt.Sprintf(`{"sub":"user-%d","jti":"t-%[1]d","exp":%s,"rt":{"info":"%[1]d","rooms":{"room-%[1]d":"r"}}}`, n, in(time.Hour)), secret)
	}
	var ids [50]auth.Identity
	var all sync.WaitGroup
	for n := range ids {
		all.Go(func() {
			var err error
			if ids[n], err = v.Verify(token(n)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for n, id := range ids {
		if id.User != fmt.Sprint("user-", n) || id.TokenID != fmt.Sprint("t-", n) || string(id.Info) != fmt.Sprintf(`"%d"`, n) || id.Grants.For(message.Room(fmt.Sprint("room-", n))) != auth.Receive {
			t.Errorf("identity %d became %+v", n, id)
		}
	}
}

func TestWhatATokenDoesNotSayIsAbsent(t *testing.T) {
	id, err := verifier(t, auth.Config{}).Verify(mint(`{"alg":"HS256"}`, body(""), secret))
	if err != nil {
		t.Fatal(err)
	}
	if id.User != "ada" || id.TokenID != "" || !id.IssuedAt.IsZero() || id.Info != nil || id.MaxSessions != 0 {
		t.Errorf("Identity = %+v", id)
	}
	if got := id.Grants.For("any.room").String(); got != "rwph" {
		t.Errorf("grants of a token without rooms = %q, want rwph", got)
	}
}

func TestTheRoomsOfATokenThatSaysNoneAreConfigured(t *testing.T) {
	for name, c := range map[string]struct {
		rooms map[string]string
		rt    string
		want  string
	}{
		"configured":        {rooms: map[string]string{"lobby": "r"}, want: "r"},
		"configured: none":  {rooms: map[string]string{}, want: ""},
		"an rt without":     {rooms: map[string]string{"lobby": "r"}, rt: `,"rt":{}`, want: "r"},
		"the token's":       {rooms: map[string]string{"lobby": "r"}, rt: `,"rt":{"rooms":{"lobby":"wp"}}`, want: "wp"},
		"the token's: none": {rt: `,"rt":{"rooms":{}}`, want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := verifier(t, auth.Config{Rooms: c.rooms}).Verify(mint(plain, body(c.rt), secret))
			if err != nil {
				t.Fatal(err)
			}
			if got := id.Grants.For("lobby").String(); got != c.want {
				t.Errorf("For(lobby) = %q, want %q", got, c.want)
			}
		})
	}
}

func TestEqualRoomsShareTheirGrants(t *testing.T) {
	v := verifier(t, auth.Config{})
	grants := func(rooms string) *auth.Grants {
		id, err := v.Verify(mint(plain, body(`,"rt":{"rooms":`+rooms+`}`), secret))
		if err != nil {
			t.Fatal(err)
		}
		return id.Grants
	}
	a := grants(`{"a*":"rw"}`)
	if b := grants(`{"a*":"rw"}`); a != b {
		t.Error("two tokens with equal rooms have grants of their own")
	}
	if c := grants(`{"a*":"r"}`); a == c || c.For("ab") != auth.Receive {
		t.Error("other rooms have the same grants")
	}
}

// Boundaries are those of the clock's second, so that they hold to the nanosecond.
func TestTimesAreJudgedWithHalfAMinuteOfLeeway(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		iat, nbf, exp time.Duration // 0: absent, but for exp
		lifetime      time.Duration
		want          error
		why           string
	}{
		"just not expired":            {exp: -29 * time.Second},
		"just expired":                {exp: -30 * time.Second, want: auth.ErrExpired, why: "30s ago"},
		"expired by two minutes":      {exp: -2 * time.Minute, want: auth.ErrExpired},
		"expired by an hour":          {exp: -time.Hour, want: auth.ErrExpired},
		"from now on":                 {nbf: 30 * time.Second, exp: time.Hour},
		"not yet":                     {nbf: 31 * time.Second, exp: time.Hour, want: auth.ErrToken, why: "nbf is in the future"},
		"issued now":                  {iat: 30 * time.Second, exp: time.Hour},
		"issued in the future":        {iat: 31 * time.Second, exp: time.Hour, want: auth.ErrToken, why: "iat is in the future"},
		"a day":                       {iat: -time.Hour, exp: 23 * time.Hour},
		"a day less a second":         {iat: -time.Hour, exp: 23*time.Hour - time.Second},
		"a day and a second":          {iat: -time.Hour, exp: 23*time.Hour + time.Second, want: auth.ErrToken, why: "the limit is 24h0m0s"},
		"a day from now":              {exp: day + 30*time.Second},
		"more than a day from now":    {exp: day + 31*time.Second, want: auth.ErrToken, why: "the limit is 24h0m0s"},
		"a hundred years":             {exp: 100 * 365 * day, want: auth.ErrToken},
		"a hundred years, since then": {iat: time.Second, exp: 100 * 365 * day, want: auth.ErrToken},
		"the configured limit":        {iat: 10 * time.Second, exp: 70 * time.Second, lifetime: time.Minute},
		"over the configured limit":   {iat: 10 * time.Second, exp: 71 * time.Second, lifetime: time.Minute, want: auth.ErrToken, why: "lives for 1m1s, the limit is 1m0s"},
		"too long and expired":        {iat: -48 * time.Hour, exp: -time.Hour, want: auth.ErrToken},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, auth.Config{MaxLifetime: c.lifetime})
			synctest.Test(t, func(t *testing.T) {
				claims := `{"sub":"ada","exp":` + in(c.exp)
				if c.iat != 0 {
					claims += `,"iat":` + in(c.iat)
				}
				if c.nbf != 0 {
					claims += `,"nbf":` + in(c.nbf)
				}
				token := mint(plain, claims+"}", secret)
				if c.want != nil {
					refused(t, v, token, c.want, c.why)
				} else if _, err := v.Verify(token); err != nil {
					t.Errorf("Verify: %v", err)
				}
			})
		})
	}
}

func TestOnlyAGoodTokenCanExpire(t *testing.T) {
	v := verifier(t, auth.Config{Issuer: "us"})
	old := `{"exp":` + in(-time.Hour) + `,"sub":"ada"`
	refused(t, v, mint(plain, old+`,"iss":"us"}`, secret), auth.ErrExpired, "")
	refused(t, v, mint(plain, old+`,"iss":"them"}`, secret), auth.ErrToken, "iss")
	refused(t, v, mint(plain, old+`,"iss":"us"}`, strings.ToUpper(secret)), auth.ErrToken, "signature")
}

func TestIssuerAndAudienceAreRequiredOnceConfigured(t *testing.T) {
	for claims, ok := range map[string]bool{
		`"iss":"https://us","aud":"rt"`:             true,
		`"iss":"https://us","aud":["rt"]`:           true,
		`"iss":"https://us","aud":["a","rt","b"]`:   true,
		`"iss":"https:\/\/us","\u0061ud":"\u0072t"`: true,
		`"aud":"rt"`:                                      false,
		`"iss":"","aud":"rt"`:                             false,
		`"iss":"https://us/","aud":"rt"`:                  false,
		`"iss":"https://US","aud":"rt"`:                   false,
		`"iss":"x.https://us","aud":"rt"`:                 false,
		`"iss":["https://us"],"aud":"rt"`:                 false,
		`"iss":null,"aud":"rt"`:                           false,
		`"ISS":"https://us","aud":"rt"`:                   false,
		`"iss":"https://us"`:                              false,
		`"iss":"https://us","aud":""`:                     false,
		`"iss":"https://us","aud":null`:                   false,
		`"iss":"https://us","aud":[]`:                     false,
		`"iss":"https://us","aud":{}`:                     false,
		`"iss":"https://us","aud":{"rt":"rt"}`:            false,
		`"iss":"https://us","aud":1`:                      false,
		`"iss":"https://us","aud":["rt",1]`:               false,
		`"iss":"https://us","aud":["rt",null]`:            false,
		`"iss":"https://us","aud":["rt",["rt"]]`:          false,
		`"iss":"https://us","aud":"RT"`:                   false,
		`"iss":"https://us","aud":"rt "`:                  false,
		`"iss":"https://us","aud":"rt","aud":"rt"`:        false,
		`"iss":"https://us","aud":"rt","\u0061ud":"rt"`:   false,
		`"iss":"https://us","iss":"https://x","aud":"rt"`: false,
	} {
		t.Run(claims, func(t *testing.T) {
			v := verifier(t, auth.Config{Issuer: "https://us", Audience: "rt"})
			token := mint(plain, body(","+claims), secret)
			if !ok {
				refused(t, v, token, auth.ErrToken, "")
			} else if _, err := v.Verify(token); err != nil {
				t.Errorf("Verify: %v", err)
			}
		})
	}
	v := verifier(t, auth.Config{})
	for _, claims := range []string{`,"iss":null`, `,"iss":7`, `,"aud":null`, `,"aud":{}`, `,"aud":[7]`} {
		refused(t, v, mint(plain, body(claims), secret), auth.ErrToken, "is not a string")
	}
}

func TestSomeKeyOfSeveralVerifies(t *testing.T) {
	other := strings.ToUpper(secret)
	t.Setenv("AUTH_TEST_OTHER", other)
	t.Setenv(keyVar, secret)
	v := verifier(t, auth.Config{Keys: []string{"env:AUTH_TEST_OTHER", "env:" + keyVar}})
	for _, key := range []string{secret, other} {
		for _, kid := range []string{"", `,"kid":"2026-10"`, `,"kid":"../../dev/null"`, `,"kid":"https://evil"`} {
			if _, err := v.Verify(mint(`{"alg":"HS256"`+kid+`}`, body(""), key)); err != nil {
				t.Errorf("with kid %q: %v", kid, err)
			}
		}
	}
	refused(t, v, mint(plain, body(""), secret+"0"), auth.ErrToken, "no key verifies the signature")
}
