package auth_test

import (
	"compress/gzip"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/slack5/realtime/internal/auth"
)

// A set must come from where the options say, in one bounded piece.
func TestAnAnswerThatIsNoneIsNotTaken(t *testing.T) {
	elsewhere := newProvider(t, keySet(jwk(t, ed, "evil")))
	good := keySet(jwk(t, ed, "evil"))
	for name, serve := range map[string]http.HandlerFunc{
		"not found": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(good))
		},
		"no content":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"redirected elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"redirected for ever":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) },
		"redirected to a file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
		"without end": func(w http.ResponseWriter, _ *http.Request) { endless(w) },
		"without end, in gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			endless(z)
			_ = z.Close()
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = w.Write([]byte(good))
		},
		"with a header too long": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			_, _ = w.Write([]byte(good))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, log := newProvider(t, ""), &lines{}
			p.does(serve)
			v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{strings.Replace(p.URL, "//", "//me:hunter2@", 1) + "/keys?code=hunter3"}, Logger: log.logger()})
			keep(t, v)
			if v.Usable() || v.Stats().NotFetched == 0 || v.Stats().Fetched != 0 {
				t.Errorf("taken: %+v", v.Stats())
			}
			if got := log.String(); !strings.Contains(got, `"level":"WARN"`) || !strings.Contains(got, `"source":"`+p.URL+`/keys"`) || strings.Contains(got, "hunter") {
				t.Errorf("logged %s", got)
			}
		})
	}
	if n := elsewhere.fetches.Load(); n != 0 {
		t.Errorf("%d calls to where a redirect led", n)
	}
}

// endless writes until nobody reads, or a mebibyte is over.
func endless(w interface{ Write([]byte) (int, error) }) {
	_, _ = w.Write([]byte(`{"keys":[`))
	for range 1 << 10 {
		if _, err := w.Write([]byte(strings.Repeat(" ", 1<<10))); err != nil {
			return
		}
	}
}

func TestARedirectOnTheSameHostIsFollowed(t *testing.T) {
	p := newProvider(t, "")
	p.does(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			http.Redirect(w, r, "/new", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(keySet(jwk(t, ed, "d"))))
	})
	v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{p.URL + "/old"}})
	keep(t, v)
	if !passes(v, signAs(t, "EdDSA", ed, "d", "")) {
		t.Error("not taken")
	}
}

// Neither a token nor a key set names an address that is called.
func TestNothingOfATokenOrASetIsCalled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_ = c.Close()
		}
	}()
	at := "http://" + l.Addr().String() + "/keys"
	p := newProvider(t, keySet(jwk(t, ed, at, `"x5u":"`+at+`","jku":"`+at+`"`)))
	v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{p.URL}, Issuers: []auth.Issuer{{Name: at, KeySets: []string{p.URL}}}})
	keep(t, v)
	asked := p.fetches.Load()
	for _, header := range []string{
		`{"alg":"EdDSA","jku":"` + at + `"}`, `{"alg":"EdDSA","x5u":"` + at + `"}`, `{"alg":"EdDSA","jwk":{"kty":"OKP","x5u":"` + at + `"}}`,
		`{"alg":"EdDSA","kid":"` + at + `"}`, `{"alg":"EdDSA","iss":"` + at + `"}`, `{"alg":"EdDSA","crit":["jku"],"jku":"` + at + `"}`,
	} {
		for _, payload := range []string{body(""), body(`,"iss":"` + at + `"`)} {
			refused(t, v, mint(header, payload, secret), auth.ErrToken, "")
		}
	}
	if !passes(v, signAs(t, "EdDSA", ed, at, "")) {
		t.Error("the key itself does not count")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
	if got := p.fetches.Load() - asked; got != 0 {
		t.Errorf("the set is fetched %d times for a key that is there", got)
	}
}

func TestAnUnreachableURLIsToldWithoutItsSecrets(t *testing.T) {
	log := &lines{}
	v := verifier(t, auth.Config{Keys: []string{}, KeySets: []string{"http://me:hunter2@127.0.0.1:1/keys?code=hunter3"}, Logger: log.logger()})
	keep(t, v)
	if _, err := v.Verify(sign(t, "RS256", rsaPrivate)); !errors.Is(err, auth.ErrUnknownKey) {
		t.Errorf("without any key: %v", err)
	}
	if got := log.String(); strings.Contains(got, "hunter") || !strings.Contains(got, "key set not fetched") {
		t.Errorf("logged %s", got)
	}
}
