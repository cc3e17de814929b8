package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

// FuzzVerify takes anything for a token, and the same as header and payload of one whose signature holds. Nothing panics,
// an error is one of two, and what passes is signed and keeps every rule.
func FuzzVerify(f *testing.F) {
	one := verifier(f, auth.Config{})
	set := file(f, keySet(jwk(f, ed, "k")), 0o644)
	two := verifier(f, auth.Config{Issuers: []auth.Issuer{{Name: "id", KeySets: []string{set}}}}) // which looks at iss first
	good := body(`,"iat":` + in(0) + `,"jti":"t","rt":{"rooms":{"a*":"rw","b":""},"info":{"a":[1]},"max_sessions":5}`)
	f.Add(mint(plain, good, secret), plain, good)
	f.Add(mint(plain, good, secret+"x"), `{"alg":"none"}`, `{"sub":"ada","exp":"1"}`)
	f.Add("a.b.c", `{"alg":"HS256","kid":"k","jku":"https://evil.example/keys"}`, `{"iss":"id","sub":"ada","exp":1,"i\u0073s":"x"}`)
	f.Add("a.b.c", `{"alg":"EdDSA","kid":"k"}`, body(`,"iss":"id"`))
	f.Add("..", `{"alg":"HS256","crit":["b64"],"b64":false}`, `{"sub":"ada","exp":1e400,"aud":["a",{}]}`)
	f.Add("a.b.c", `{"alg":"HS256","kid":"\u0000"}`, `{"sub":"ada","sub":"bob","x":[[[[]]]],"rt":{"rooms":{"**":"z"}}}`)
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		for _, token := range []string{token, mint(header, payload, secret)} {
			id, err := one.Verify(token)
			if other, otherErr := two.Verify(token); otherErr == nil && (err != nil || other.User != id.User) {
				t.Fatalf("%q is %q beside another issuer, and alone %q, %v", token, other.User, id.User, err)
			}
			if err != nil {
				if !errors.Is(err, auth.ErrToken) && !errors.Is(err, auth.ErrExpired) || strings.ContainsAny(err.Error(), "\n\x00\x1b") || len(err.Error()) > 500 {
					t.Fatalf("%q: %q", token, err)
				}
				continue
			}
			dot := strings.LastIndexByte(token, '.')
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(token[:dot]))
			if token[dot+1:] != base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) {
				t.Fatalf("%q passes without its signature", token)
			}
			if message.CheckUser(id.User) != nil || id.Expires.IsZero() || id.Grants == nil || len(id.Info) > auth.MaxInfoBytes || len(id.TokenID) > auth.MaxTokenIDBytes ||
				id.MaxSessions < 0 || id.Info != nil && message.CheckJSON(id.Info) != nil || id.Grants.For("@global") != 0 {
				t.Fatalf("%q gives %+v", token, id)
			}
		}
	})
}
