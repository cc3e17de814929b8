package auth_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/message"
)

// BenchmarkVerify is one handshake's share: a token with grants and info, by algorithm.
func BenchmarkVerify(b *testing.B) {
	claims := auth.Claims{
		User: "user-4711", TokenID: "0197a3c2", Issuer: "https://issuer.example", Audience: "rt", IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
		Rooms: map[string]string{"team-7.*": "rwph", "announce": "r"}, Info: []byte(`{"name":"Ada"}`),
	}
	b.Setenv(keyVar, secret)
	keys := map[string]string{"HS256": "env:" + keyVar}
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		keys[alg] = file(b, privatePEM(b, signers[alg]), 0o600)
	}
	for _, alg := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			v := verifier(b, auth.Config{Keys: []string{keys[alg]}, Issuer: claims.Issuer, Audience: claims.Audience})
			token, err := auth.Sign(keys[alg], "", claims)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefused is what a stranger's token costs.
func BenchmarkRefused(b *testing.B) {
	v := verifier(b, auth.Config{})
	token := mint(plain, body(""), secret+"x")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token); err == nil {
			b.Fatal("passed")
		}
	}
}

// BenchmarkFor looks a room up among a thousand keys.
func BenchmarkFor(b *testing.B) {
	deep := make(map[string]string)
	for i := range 100 {
		deep[fmt.Sprintf("%0*d*", i+1, 0)] = "r"
	}
	for name, c := range map[string]struct {
		rooms map[string]string
		room  message.Room
	}{
		"two":    {map[string]string{"team-7.*": "rwph", "announce": "r"}, "team-7.general"},
		"many":   {nested(rand.New(rand.NewPCG(1, 2))), "ab.-ab.-ab.-ab"},
		"nested": {deep, message.Room(fmt.Sprintf("%0*d1", 100, 0))},
		"missed": {deep, "00a"},
	} {
		b.Run(name, func(b *testing.B) {
			g, err := auth.CompileGrants(c.rooms)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				g.For(c.room)
			}
		})
	}
}
