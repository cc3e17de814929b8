package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIssuersAreThoseThatTheOptionsName(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []Issuer
	}{
		"nothing":                   {[]string{"--dev"}, []Issuer{{}}},
		"a set":                     {[]string{"--jwks-url=https://id.example/k?a=b"}, []Issuer{{KeySets: []string{"https://id.example/k?a=b"}}}},
		"a set of a named issuer":   {[]string{"--jwks-url=https://id.example/k", "--jwt-issuer=us", "--jwt-audience=rt"}, []Issuer{{Name: "us", Audience: "rt", KeySets: []string{"https://id.example/k"}}}},
		"an issuer of its own":      {[]string{"--jwks-url=https://a.example/=https://id.example/k?x=https://y", "--jwt-audience=rt"}, []Issuer{{Audience: "rt"}, {Name: "https://a.example/", Audience: "rt", KeySets: []string{"https://id.example/k?x=https://y"}}}},
		"a query with a URL":        {[]string{"--jwks-url=https://id.example/k?x=https://y"}, []Issuer{{KeySets: []string{"https://id.example/k?x=https://y"}}}},
		"plain HTTP":                {[]string{"--jwks-url=a=http://127.0.0.1/k"}, []Issuer{{}, {Name: "a", KeySets: []string{"http://127.0.0.1/k"}}}},
		"files":                     {[]string{"--jwks-file=/etc/keys", "--jwks-file=https://a.example=./keys"}, []Issuer{{KeySets: []string{"/etc/keys"}}, {Name: "https://a.example", KeySets: []string{"./keys"}}}},
		"two sets of one":           {[]string{"--jwks-url=a=https://x/", "--jwks-file=a=k", "--jwks-url=https://y/,b=https://z/"}, []Issuer{{KeySets: []string{"https://y/"}}, {Name: "a", KeySets: []string{"https://x/", "k"}}, {Name: "b", KeySets: []string{"https://z/"}}}},
		"the first issuer by name":  {[]string{"--jwt-issuer=a", "--jwks-url=a=https://x/"}, []Issuer{{Name: "a", KeySets: []string{"https://x/"}}}},
		"an audience for each":      {[]string{"--jwt-issuer=a", "--jwks-url=https://x/,b=https://y/,c=https://z/", "--jwt-audience=a=1,b=2,3"}, []Issuer{{Name: "a", Audience: "1", KeySets: []string{"https://x/"}}, {Name: "b", Audience: "2", KeySets: []string{"https://y/"}}, {Name: "c", Audience: "3", KeySets: []string{"https://z/"}}}},
		"an audience that has an =": {[]string{"--jwt-key=env:X", "--jwt-audience=a=1"}, []Issuer{{Audience: "a=1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(t, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got.Issuers()); d != "" {
				t.Errorf("issuers (-want +got):\n%s", d)
			}
		})
	}
}

func TestWhatIsWrongWithTokensIsNamedByItsOption(t *testing.T) {
	for want, args := range map[string][]string{
		"--jwt-key is missing, or --jwks-url": {},
		"--jwt-audience say nothing without":  {"--dev", "--jwt-audience=rt"},
		"--jwt-issuer: us has no key":         {"--jwt-issuer=us", "--jwks-url=a=https://x/"},
		"--jwt-audience: there may be one":    {"--jwks-url=a=https://x/", "--jwt-audience=a=1,a=2"},
		"--jwks-url must be https://":         {"--jwks-url=ftp://x:hunter2@y/"},
		"between this node and id.example:80": {"--jwks-url=http://me:hunter2@id.example:80/k?code=hunter2"},
	} {
		if _, err := parse(t, args...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
	for _, args := range [][]string{
		{"--jwks-file=keys"}, {"--jwks-url=a=https://x/"}, {"--jwks-url=http://localhost:1/"}, {"--jwks-url=http://id.example/", "--jwks-insecure"},
	} {
		if _, err := parse(t, args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestThePasswordOfAKeySetsURLIsNotShown(t *testing.T) {
	for _, url := range []string{"https://me:hunter2@id.example/k", "https://a.example=https://me:hunter2@id.example/k", "a=https://me:hunter2@id.example/k"} {
		if got := show(t, &grammar{}, "--jwks-url="+url); strings.Contains(got, "hunter") || !strings.Contains(got, "\n# jwks-url: [") || !strings.Contains(got, "not shown") {
			t.Errorf("%s is shown as\n%s", url, got)
		}
	}
}
