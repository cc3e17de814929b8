package redis_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/slack5/realtime/internal/redis"
)

func TestAURLSaysWhereRedisIs(t *testing.T) {
	for text, want := range map[string]struct {
		addrs          []string
		user, password string
		db             int
		tls            bool
		master         string
		asks, with     string // the Sentinels
	}{
		"127.0.0.1:6380":                  {addrs: []string{"127.0.0.1:6380"}},
		"redis":                           {addrs: []string{"redis:6379"}},
		"[::1]:6380":                      {addrs: []string{"[::1]:6380"}},
		"redis://cache":                   {addrs: []string{"cache:6379"}},
		"redis://cache/":                  {addrs: []string{"cache:6379"}},
		"redis://[::1]/3":                 {addrs: []string{"[::1]:6379"}, db: 3},
		"redis://:p%40ss%2F@cache:1/3":    {addrs: []string{"cache:1"}, password: "p@ss/", db: 3},
		"rediss://ann:secret@cache:6380":  {addrs: []string{"cache:6380"}, user: "ann", password: "secret", tls: true},
		"redis://a:1?addr=b:2&addr=c":     {addrs: []string{"a:1", "b:2", "c:6379"}},
		"rediss://s1:26379?master_set=m1": {addrs: []string{"s1:26379"}, master: "m1", tls: true},
		"redis://ann:secret@s1?master_set=m1&sentinel_username=ben&sentinel_password=p%26w": {
			addrs: []string{"s1:6379"}, user: "ann", password: "secret", master: "m1", asks: "ben", with: "p&w",
		},
	} {
		t.Run(text, func(t *testing.T) {
			o, err := redis.ParseURL(text)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.InitAddress, want.addrs) || o.Username != want.user || o.Password != want.password || o.SelectDB != want.db ||
				o.Sentinel.MasterSet != want.master || o.Sentinel.Username != want.asks || o.Sentinel.Password != want.with || (o.TLSConfig != nil) != want.tls || (o.Sentinel.TLSConfig != nil) != want.tls {
				t.Errorf("ParseURL = %q, %q:%q, database %d, master set %q of Sentinels asked as %q:%q, TLS %t; want %+v",
					o.InitAddress, o.Username, o.Password, o.SelectDB, o.Sentinel.MasterSet, o.Sentinel.Username, o.Sentinel.Password,
					o.TLSConfig != nil, want)
			}
		})
	}
}

func TestAURLThatIsWrongIsToldWithoutItsPassword(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "HOST:PORT",
		":6379":                                "HOST:PORT",
		"a:b:c":                                "HOST:PORT",
		"a:70000":                              "HOST:PORT",
		"a:0":                                  "HOST:PORT",
		"ann:hunter2@cache:6379":               "redis://",
		"redis://":                             "HOST:PORT",
		"redis://ann:hunter2@":                 "HOST:PORT",
		"redis://ann:hunter2@cache:x":          "percent-encode",
		"redis://ann:hunter2%zz@cache":         "percent-encode",
		"redis://ann:hunter2/more@cache":       "percent-encode",
		"redis://ann:1234/hunter2@cache":       "percent-encode",
		"redis://ann:1234?hunter2@cache":       "percent-encode",
		"redis://ann:1234#hunter2@cache":       "percent-encode",
		"http://ann:hunter2@cache":             `"http"`,
		"redis://ann:hunter2@cache/one":        "database",
		"redis://ann:hunter2@cache/-1":         "database",
		"redis://ann:hunter2@cache/1/2":        "database",
		"redis://ann:hunter2@cache?db=1":       `"db"`,
		"redis://ann:hunter2@cache?addr=":      "HOST:PORT",
		"redis://ann:hunter2@cache?addr=%zz":   "NAME=VALUE",
		"redis://ann:hunter2@cache?masterset=": `"masterset"`,
		"redis://s1?master_set=m&sentinel_password=a&hunter2":   "percent-encode",
		"redis://s1?master_set=m&sentinel_password=a;hunter2":   "NAME=VALUE",
		"redis://s1?master_set=m&sentinel_password=hunter2#a":   "percent-encode",
		"redis://s1?master_set=m&sentinel_password=hunter2@b:1": "percent-encode",
		"redis://s1?sentinel_password=hunter2":                  "master_set",
	} {
		t.Run(text, func(t *testing.T) {
			o, err := redis.ParseURL(text)
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("ParseURL = %q, %v, want an error about %s without the password", o.InitAddress, err, want)
			}
		})
	}
}

func FuzzURL(f *testing.F) {
	for _, text := range []string{"a:1", "redis://u:hunter2@a:1/2?addr=b&master_set=m", "rediss://[::1]", "redis://u:hunter2%@", "u:hunter2@a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := redis.ParseURL(text)
		if err == nil && (len(o.InitAddress) == 0 || slices.Contains(o.InitAddress, "")) {
			t.Errorf("ParseURL(%q) has the addresses %q", text, o.InitAddress)
		}
		if _, err := redis.ParseURL("redis://u:hunter2@" + text); err != nil && strings.Contains(err.Error(), "hunter2") && !strings.Contains(text, "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	})
}
