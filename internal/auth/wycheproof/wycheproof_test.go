// Package wycheproof holds the verifier against published attacks on signatures. It is a package of its own since the vectors
// make a test binary of 120 MB.
package wycheproof

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/slack5/realtime/internal/auth"
)

type vectors struct {
	NumberOfTests int
	TestGroups    []struct {
		Comment         string
		Public, Private json.RawMessage
		Tests           []struct {
			TcID            int
			Comment, Result string
			JWS             json.RawMessage
		}
	}
}

// differs are the vectors about which we judge otherwise, and why.
var differs = map[int]string{
	346: "the key says PS256, the token PS384: a key is for the algorithm that its set names",
	347: "the key says ES521, which is no algorithm",
	350: "as 346",
	351: "as 347",
	367: "called padded, but it is the valid token of 357 to the letter",
	370: "as 367",
	372: "called valid, but its header has a question mark, which is no base64url",
	373: "as 372, in the payload",
}

func TestSignaturesAreJudgedAsPublished(t *testing.T) {
	b, err := fs.ReadFile(wycheproof.TestVectors, "json_web_signature_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	judged, valid := 0, 0
	for _, group := range all.TestGroups {
		v := verifier(t, group.Public, group.Private)
		for _, c := range group.Tests {
			judged++
			var token string
			if err := json.Unmarshal(c.JWS, &token); err != nil {
				t.Fatalf("%d: %v", c.TcID, err)
			}
			held := v != nil && signed(v, token)
			if held {
				valid++
			}
			want := c.Result == "valid"
			if why, ok := differs[c.TcID]; ok {
				want = !want
				if why == "" {
					t.Errorf("%d differs without a reason", c.TcID)
				}
			}
			if held != want {
				t.Errorf("%d (%s: %s) is %s, and its signature holds: %v", c.TcID, group.Comment, c.Comment, c.Result, held)
			}
		}
	}
	if judged != all.NumberOfTests || judged < 400 || valid < 30 {
		t.Errorf("%d of %d vectors judged, %d valid", judged, all.NumberOfTests, valid)
	}
}

// verifier has the key of a group: a public one in a set, a secret as the program's own. nil: a set with this key is refused.
func verifier(t *testing.T, public, private json.RawMessage) *auth.Verifier {
	t.Helper()
	var cfg auth.Config
	if public == nil {
		var k struct{ Kty, K, Alg string }
		if err := json.Unmarshal(private, &k); err != nil || k.Kty != "oct" {
			t.Fatalf("%s: %v", private, err)
		}
		secret, err := base64.RawURLEncoding.DecodeString(k.K)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Secret, cfg.Algorithms = secret, []string{k.Alg}
	} else {
		path := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(path, []byte(`{"keys":[`+string(public)+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.KeySets = []string{path}
	}
	v, err := auth.New(cfg)
	if err != nil && !strings.Contains(err.Error(), "it has no usable key") {
		t.Fatal(err)
	}
	return v
}

// signed tells whether a token's signature holds. None of the vectors has claims: one whose signature holds is refused for its
// payload, which is read behind it.
func signed(v *auth.Verifier, token string) bool {
	_, err := v.Verify(token)
	return strings.HasPrefix(err.Error(), auth.ErrToken.Error()+": payload is not ")
}
