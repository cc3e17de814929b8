package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	firstKey  = `{"kty":"OKP","crv":"Ed25519","kid":"first","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	secondKey = `{"kty":"OKP","crv":"Ed25519","kid":"second","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
)

// idp is what is behind the URL: a set, or an error if that is "". It notes when it was asked.
type idp struct {
	mu    sync.Mutex
	begin time.Time
	set   string
	asked []time.Duration
}

func (p *idp) RoundTrip(*http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Since(p.begin).Round(time.Second))
	if p.set == "" {
		return nil, errors.New("no route to it")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(p.set))}, nil
}

func (p *idp) says(set string) {
	p.mu.Lock()
	p.set = set
	p.mu.Unlock()
}

// times are when it was asked since the last call.
func (p *idp) times() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.asked
	p.asked = nil
	return t
}

// inBubble runs body beside a verifier of one URL, in a bubble.
func inBubble(t *testing.T, set string, body func(v *Verifier, p *idp)) {
	synctest.Test(t, func(t *testing.T) {
		v, err := New(Config{KeySets: []string{"https://id.example/keys"}})
		if err != nil {
			t.Fatal(err)
		}
		p := &idp{begin: time.Now(), set: set}
		v.remotes[0].client.Transport = p
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); v.Run(ctx, func() {}) }()
		synctest.Wait()
		body(v, p)
		cancel()
		<-ended
	})
}

// naming is a token that names a key, with a signature that no key made.
func naming(kid string) string {
	return base64URL.EncodeToString([]byte(`{"alg":"EdDSA","kid":"`+kid+`"}`)) + ".e30." + base64URL.EncodeToString(make([]byte, 64))
}

func TestAnUnknownKeyIsFetchedOnceForAllWhoNameItAndNotAgainSoon(t *testing.T) {
	inBubble(t, `{"keys":[`+firstKey+`]}`, func(v *Verifier, p *idp) {
		if got := len(p.times()); got != 1 {
			t.Fatalf("%d fetches at the start", got)
		}
		before := time.Now()
		for range 1000 {
			if _, err := v.Verify(naming("nobody's")); !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrToken) {
				t.Fatal(err)
			}
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("callers waited for %v", waited)
		}
		synctest.Wait()
		if got := len(p.times()); got != 1 {
			t.Errorf("%d fetches for one name", got)
		}
		time.Sleep(missedFor - time.Second)
		_, _ = v.Verify(naming("nobody's"))
		synctest.Wait()
		if got := p.times(); got != nil {
			t.Errorf("asked again after %v", got)
		}
		time.Sleep(2 * time.Second)
		_, _ = v.Verify(naming("nobody's"))
		synctest.Wait()
		if got := len(p.times()); got != 1 {
			t.Errorf("%d fetches when it may be asked for again", got)
		}
	})
}

func TestManyUnknownKeysHaveTheSetFetchedAtABoundedRate(t *testing.T) {
	inBubble(t, `{"keys":[`+firstKey+`]}`, func(v *Verifier, p *idp) {
		p.times()
		for n := range 60 * 20 {
			_, _ = v.Verify(naming(fmt.Sprint(n)))
			time.Sleep(50 * time.Millisecond)
		}
		synctest.Wait()
		if got := len(p.times()); got < 6 || got > 7 {
			t.Errorf("%d fetches in a minute of ever new names, want one at once and then one in %v", got, askEvery)
		}
	})
}

func TestANewKeyCountsSoonAfterItsFirstToken(t *testing.T) {
	inBubble(t, `{"keys":[`+firstKey+`]}`, func(v *Verifier, p *idp) {
		_, _ = v.Verify(naming("noise")) // has taken what may be asked at once
		synctest.Wait()
		p.says(`{"keys":[` + firstKey + `,` + secondKey + `]}`)
		if _, err := v.Verify(naming("second")); !errors.Is(err, ErrUnknownKey) {
			t.Fatal(err)
		}
		time.Sleep(askEvery + time.Second)
		if _, err := v.Verify(naming("second")); errors.Is(err, ErrUnknownKey) {
			t.Errorf("%v: unknown still", err)
		}
		if _, err := v.Verify(naming("first")); errors.Is(err, ErrUnknownKey) {
			t.Errorf("%v: the key before is gone", err)
		}
	})
}

func TestASetIsFetchedAgainAndAWithdrawnKeyEnds(t *testing.T) {
	inBubble(t, `{"keys":[`+firstKey+`,`+secondKey+`]}`, func(v *Verifier, p *idp) {
		p.says(`{"keys":[` + secondKey + `]}`)
		time.Sleep(refreshEvery)
		if _, err := v.Verify(naming("first")); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("a withdrawn key: %v", err)
		}
		time.Sleep(time.Hour)
		if got := len(p.times()); got < 13 || got > 16 {
			t.Errorf("fetched %d times in 65 minutes", got)
		}
		if st := v.Stats(); st.Age > refreshEvery || st.NotFetched != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestWhatCannotBeFetchedOrIsEmptyLeavesTheKeys(t *testing.T) {
	for name, bad := range map[string]string{"no answer": "", "an empty set": `{"keys":[]}`, "no set": `<html>`, "secrets alone": `{"keys":[{"kty":"oct","k":"AAAA"}]}`} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, `{"keys":[`+firstKey+`]}`, func(v *Verifier, p *idp) {
				p.says(bad)
				time.Sleep(24 * time.Hour)
				if _, err := v.Verify(naming("first")); errors.Is(err, ErrUnknownKey) || !v.Usable() {
					t.Errorf("%v: the key is gone", err)
				}
				if st := v.Stats(); st.Age < 23*time.Hour || st.NotFetched < 1000 || st.NotFetched > 3500 {
					t.Errorf("after a day %+v, want an attempt a minute at most", st)
				}
				p.says(`{"keys":[` + secondKey + `]}`)
				time.Sleep(2 * retryAtMost)
				if _, err := v.Verify(naming("second")); errors.Is(err, ErrUnknownKey) {
					t.Errorf("when it is back: %v", err)
				}
			})
		})
	}
}

func TestWhatIsNotThereAtTheStartComesLater(t *testing.T) {
	inBubble(t, "", func(v *Verifier, p *idp) {
		if v.Usable() {
			t.Error("there are keys")
		}
		p.says(`{"keys":[` + firstKey + `]}`)
		time.Sleep(3 * retryFrom)
		if !v.Usable() {
			t.Error("there are none")
		}
	})
}

// FuzzParseSet takes anything for a key set: nothing panics, no secret is taken, and what is refused is told in short lines.
func FuzzParseSet(f *testing.F) {
	f.Add(`{"keys":[` + firstKey + `]}`)
	f.Add(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig","key_ops":["verify"]},{"kty":"oct","k":"AAAA"}]}`)
	f.Add(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","x5u":"https://evil.example/","x5c":["AA"]}],"keys":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		keys, skipped, err := parseSet([]byte(text), nil)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if k.kind == secretKind || k.private != nil || !k.inSet || len(k.methods) != 1 {
				t.Fatalf("%+v", k)
			}
		}
		for _, err := range append(skipped, err) {
			if err != nil && strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Fatalf("%q", err)
			}
		}
	})
}
