package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func usualLimits() Limits {
	return Limits{
		SessionRooms: 128, SessionFrames: 20, SessionBytes: 512 << 10, SessionPings: 2, SessionSubscribes: 16, SessionStatuses: 2,
		SessionControls: 100, SessionFragments: 256, SessionBuffer: 256 << 10, MessageTimeout: 10 * time.Second,
		UserFrames: 100, UserBytes: 2 << 20, UserNewRooms: 100, AddressFailures: 1, Handshakes: 1000,
	}
}

func TestEveryLimitHasItsBounds(t *testing.T) {
	least := map[string]int64{"SessionRooms": 1, "SessionBuffer": 192 << 10, "MessageTimeout": 1}
	most := map[string]int64{"SessionRooms": 10_000, "MessageTimeout": 1<<63 - 1}
	limits := reflect.TypeFor[Limits]()
	for i := range limits.NumField() {
		name := limits.Field(i).Name
		upper, ok := most[name]
		if !ok {
			upper = 1 << 30
		}
		for _, c := range []struct {
			value int64
			ok    bool
		}{{least[name] - 1, false}, {least[name], true}, {upper, true}, {upper + 1, false}} {
			if c.value < 0 && c.value != -1 {
				continue // beyond the most that a number can be
			}
			cfg := good()
			reflect.ValueOf(&cfg.Limits).Elem().Field(i).SetInt(c.value)
			err := cfg.Validate()
			option := "--" + kebab(name)
			if c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), option+" ") {
				t.Errorf("%s = %d: %v, want it to be taken: %v", option, c.value, err, c.ok)
			}
		}
	}
}

func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

func TestProxiesAreAddressesOrNetworksAndTheirProtocolNeedsThem(t *testing.T) {
	for _, c := range []struct {
		proxies  string
		protocol bool
		option   string
	}{
		{"10.0.0.0/8,192.0.2.1,2001:db8::/32,::1", true, ""},
		{"10.0.0.0/33", false, "--trusted-proxy"},
		{"proxy.example", false, "--trusted-proxy"},
		{"10.0.0.0/8,*", false, "--trusted-proxy"},
		{"", true, "--proxy-protocol"},
		{"", false, ""},
	} {
		cfg := good()
		if cfg.ProxyProtocol = c.protocol; c.proxies != "" {
			cfg.TrustedProxy = strings.Split(c.proxies, ",")
		}
		err := cfg.Validate()
		if c.option == "" && err != nil || c.option != "" && (err == nil || !strings.Contains(err.Error(), c.option)) {
			t.Errorf("%q, protocol %v: %v, want it to name %q", c.proxies, c.protocol, err, c.option)
		}
	}
}
