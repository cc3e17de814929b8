package config

import (
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// grammar is a command with the options, as cmd/realtime has it.
type grammar struct {
	Serve Serve `cmd:""`
}

func parser(t *testing.T, g *grammar) *kong.Kong {
	t.Helper()
	k, err := kong.New(g, kong.DefaultEnvars("REALTIME"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parse(t *testing.T, args ...string) (Serve, error) {
	t.Helper()
	var g grammar
	_, err := parser(t, &g).Parse(append([]string{"serve"}, args...))
	return g.Serve, err
}

func TestMain(m *testing.M) {
	_ = os.Unsetenv("REDIS_URL") // the developer's own
	m.Run()
}

func TestTheRedisMayBeNamedAsPlatformsDo(t *testing.T) {
	url := func(args ...string) string {
		t.Helper()
		got, err := parse(t, append([]string{"--dev"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return string(got.RedisURL)
	}
	t.Setenv("REDIS_URL", "redis://platform")
	if got := url(); got != "redis://platform" {
		t.Errorf("REDIS_URL alone: %q", got)
	}
	t.Setenv("REALTIME_REDIS_URL", "redis://ours")
	if got := url(); got != "redis://ours" {
		t.Errorf("both: %q, want REALTIME_REDIS_URL's", got)
	}
	if got := url("--redis-url=redis://flag"); got != "redis://flag" {
		t.Errorf("and a flag: %q", got)
	}
	t.Setenv("REALTIME_REDIS_URL", "")
	if got := url(); got != "" {
		t.Errorf("an empty variable: %q, want none: so a node is alone where the platform names a Redis", got)
	}
}

func TestDefaultsAreThoseOfTheDocuments(t *testing.T) {
	got, err := parse(t, "--dev")
	if err != nil {
		t.Fatal(err)
	}
	want := Serve{
		Dev: true, EdgeAddr: "127.0.0.1:8080", GRPCAddr: "127.0.0.1:9090", Backends: Backends{GRPCConnections: 1000}, OpsAddr: "127.0.0.1:8081",
		JWTMaxLifetime: 24 * time.Hour, QueryToken: true,
		Presence: true, PresenceGrace: 8 * time.Second, PresenceAway: 5 * time.Minute, PresenceCountsAbove: 1000, MaxSessionsPolicy: "replace",
		MaxSessions: 10_000, SndbufBytes: 64 << 10, Limits: usualLimits(), MaxData: 64 << 10, LogBytes: 256 << 20,
		MemoryBytes: 512 << 20, HistorySize: 10_000, HistoryTTL: 15 * time.Minute, IdempotencyTTL: 5 * time.Minute, Degraded: "local",
		DrainTimeout: 25 * time.Second, DrainDelay: 5 * time.Second, DrainWindow: 15 * time.Second, TimerSlack: 2 * time.Millisecond, LogLevel: slog.LevelInfo,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("defaults (-want +got):\n%s", d)
	}
}

func TestEveryOptionIsAFlagAVariableAndHelp(t *testing.T) {
	var g grammar
	var names []string
	for _, f := range parser(t, &g).Model.Children[0].Flags {
		names = append(names, f.Name)
		want := "REALTIME_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		all := []string{want}
		if f.Name == "redis-url" {
			all = append(all, "REDIS_URL") // as platforms name it
		}
		if !slices.Equal(f.Envs, all) {
			t.Errorf("--%s is read from %v, want %v", f.Name, f.Envs, all)
		}
		if f.Help == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	}
	want := []string{
		"config", "dev", "edge-addr", "edge-tls-cert", "edge-tls-key", "grpc-addr", "grpc-tls-cert", "grpc-tls-key", "grpc-insecure", "grpc-key", "grpc-rate",
		"grpc-connections", "grpc-tls-ca", "grpc-tls-san", "grpc-jwt-key", "grpc-jwks-url", "grpc-jwt-alg", "grpc-jwt-issuer", "grpc-jwt-audience",
		"ops-addr", "origin", "host", "trusted-proxy", "proxy-protocol",
		"jwt-key", "jwks-url", "jwks-file", "jwks-insecure", "jwt-alg", "jwt-issuer", "jwt-audience", "jwt-max-lifetime", "grant", "anonymous", "query-token", "type",
		"hooks-addr", "hook", "hooks-tls-ca", "hooks-key", "hooks-insecure", "hooks-header", "hooks-fail", "hooks-timeout", "hooks-concurrency",
		"presence", "presence-grace", "presence-away", "presence-counts-above", "max-sessions-policy", "max-sessions", "sndbuf-bytes",
		"session-rooms", "session-frames", "session-bytes", "session-pings", "session-subscribes", "session-statuses", "session-controls", "session-fragments", "session-buffer", "message-timeout",
		"user-frames", "user-bytes", "user-new-rooms", "user-sessions",
		"address-frames", "address-bytes", "address-sessions", "address-handshakes", "address-failures", "handshakes", "max-data", "log-bytes",
		"memory-bytes", "history-size", "history-ttl", "idempotency-ttl",
		"redis-url", "redis-tls-ca", "redis-prefix", "redis-wait", "degraded", "degraded-room", "ready-needs-redis", "drain-timeout", "drain-delay", "drain-window",
		"timer-slack", "log-level", "pprof",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("names that scripts rely on (-want +got):\n%s", d)
	}
}

func TestAFlagBeatsTheEnvironmentAndTheEnvironmentTheDefault(t *testing.T) {
	t.Setenv("REALTIME_DEV", "true")
	t.Setenv("REALTIME_MAX_SESSIONS", "7")
	t.Setenv("REALTIME_LOG_BYTES", "8MiB")
	t.Setenv("REALTIME_ORIGIN", "https://a.example,https://b.example:8443")
	got, err := parse(t, "--max-sessions", "9", "--history-size=3")
	if err != nil {
		t.Fatal(err)
	}
	if got.MaxSessions != 9 {
		t.Errorf("MaxSessions = %d, want the flag's 9", got.MaxSessions)
	}
	if got.LogBytes != 8<<20 {
		t.Errorf("LogBytes = %v, want the variable's 8MiB", got.LogBytes)
	}
	if got.HistoryTTL != 15*time.Minute {
		t.Errorf("HistoryTTL = %v, want the default", got.HistoryTTL)
	}
	if want := []string{"https://a.example", "https://b.example:8443"}; !slices.Equal(got.Origin, want) {
		t.Errorf("Origin = %q, want %q", got.Origin, want)
	}
}

func TestARepeatedFlagAdds(t *testing.T) {
	got, err := parse(t, "--dev", "--origin", "https://a.example", "--origin=https://b.example")
	if want := []string{"https://a.example", "https://b.example"}; err != nil || !slices.Equal(got.Origin, want) {
		t.Errorf("Origin = %q, %v, want %q", got.Origin, err, want)
	}
}

func TestAnUnknownFlagNamesTheNearest(t *testing.T) {
	if _, err := parse(t, "--dev", "--edge-adr=x"); err == nil || !strings.Contains(err.Error(), `did you mean "--edge-addr"?`) {
		t.Errorf("--edge-adr: %v", err)
	}
}

func TestWithoutKeysItStartsOnlyWhereThatIsNamed(t *testing.T) {
	_, err := parse(t)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "--jwt-key") || !strings.Contains(err.Error(), "token") {
		t.Errorf("parse() = %v, want one line that names --jwt-key and tells why", err)
	}
	for _, option := range []string{"--dev", "--anonymous", "--jwt-key=env:X"} {
		if _, err := parse(t, option); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func TestAMapIsRepeatedOrWrittenInOne(t *testing.T) {
	want := map[string]string{"team-*": "rw", "news": "r"}
	t.Setenv("REALTIME_TYPE", "typing=ephemeral;vote=stored")
	got, err := parse(t, "--dev", "--grant", "team-*=rw", "--grant=news=r")
	if err != nil || !maps.Equal(got.Grant, want) {
		t.Errorf("Grant = %v, %v", got.Grant, err)
	}
	if want := map[string]string{"typing": "ephemeral", "vote": "stored"}; !maps.Equal(got.Type, want) {
		t.Errorf("Type = %v", got.Type)
	}
}

// good is what every case begins with.
func good() *Serve {
	return &Serve{
		Dev: true, EdgeAddr: ":1", GRPCAddr: "localhost:2", Backends: Backends{GRPCConnections: 1}, OpsAddr: "[::1]:3", MaxSessions: 1, SndbufBytes: 4 << 10, MaxData: 1 << 10, LogBytes: 4 << 20,
		JWTMaxLifetime: 1, PresenceGrace: 1, PresenceCountsAbove: 1, MemoryBytes: 1, HistorySize: 1, HistoryTTL: 1, IdempotencyTTL: 1, DrainTimeout: 2, DrainDelay: 1, DrainWindow: 1,
		Limits: Limits{SessionRooms: 1, SessionBuffer: 192 << 10, MessageTimeout: 1},
	}
}

func TestWhatIsWrongIsNamedByItsOption(t *testing.T) {
	if err := good().Validate(); err != nil {
		t.Fatalf("the least that is allowed: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Serve)
		option string
	}{
		"an edge address without a port":     {func(c *Serve) { c.EdgeAddr = "127.0.0.1" }, "--edge-addr"},
		"a gRPC address without a port":      {func(c *Serve) { c.GRPCAddr = "127.0.0.1" }, "--grpc-addr"},
		"an ops address without a port":      {func(c *Serve) { c.OpsAddr = "" }, "--ops-addr"},
		"neither keys nor their absence":     {func(c *Serve) { c.Dev = false }, "--jwt-key"},
		"an issuer without a key":            {func(c *Serve) { c.JWTIssuer = "x" }, "--jwt-issuer"},
		"an algorithm without a key":         {func(c *Serve) { c.JWTAlg = []string{"HS256"} }, "--jwt-alg"},
		"tokens without lifetime":            {func(c *Serve) { c.JWTMaxLifetime = 0 }, "--jwt-max-lifetime"},
		"a kind of type that is none":        {func(c *Serve) { c.Type = map[string]string{"vote": "kept"} }, "--type"},
		"data too small":                     {func(c *Serve) { c.MaxData-- }, "--max-data"},
		"data too large":                     {func(c *Serve) { c.MaxData = 1<<20 + 1 }, "--max-data"},
		"timers that are too late":           {func(c *Serve) { c.TimerSlack = 11 * time.Millisecond }, "--timer-slack"},
		"no grace":                           {func(c *Serve) { c.PresenceGrace = 0 }, "--presence-grace"},
		"away before it came":                {func(c *Serve) { c.PresenceAway = -1 }, "--presence-away"},
		"counts of nobody":                   {func(c *Serve) { c.PresenceCountsAbove = 0 }, "--presence-counts-above"},
		"no sessions":                        {func(c *Serve) { c.MaxSessions = 0 }, "--max-sessions"},
		"a negative number of sessions":      {func(c *Serve) { c.MaxSessions = -1 }, "--max-sessions"},
		"no history":                         {func(c *Serve) { c.HistorySize = 0 }, "--history-size"},
		"history without time":               {func(c *Serve) { c.HistoryTTL = 0 }, "--history-ttl"},
		"keys without time":                  {func(c *Serve) { c.IdempotencyTTL = -1 }, "--idempotency-ttl"},
		"no memory":                          {func(c *Serve) { c.MemoryBytes = 0 }, "--memory-bytes"},
		"a log budget one byte too small":    {func(c *Serve) { c.LogBytes-- }, "--log-bytes"},
		"a send buffer too small":            {func(c *Serve) { c.SndbufBytes-- }, "--sndbuf-bytes"},
		"no time to drain":                   {func(c *Serve) { c.DrainTimeout, c.DrainDelay, c.DrainWindow = 0, 0, 0 }, "--drain-timeout"},
		"a drain longer than its bound":      {func(c *Serve) { c.DrainWindow++ }, "--drain-window"},
		"an edge certificate alone":          {func(c *Serve) { c.EdgeTLSCert = "a" }, "--edge-tls-key"},
		"an edge key alone":                  {func(c *Serve) { c.EdgeTLSKey = "a" }, "--edge-tls-cert"},
		"a gRPC certificate alone":           {func(c *Serve) { c.GRPCTLSCert = "a" }, "--grpc-tls-key"},
		"a gRPC key alone":                   {func(c *Serve) { c.GRPCTLSKey = "a" }, "--grpc-tls-cert"},
		"no connections of backends":         {func(c *Serve) { c.GRPCConnections = 0 }, "--grpc-connections"},
		"backends' certificates without TLS": {func(c *Serve) { c.GRPCTLSCA, c.GRPCTLSSAN = "a", []string{"a"} }, "--grpc-tls-cert"},
		"certificates of anybody":            {func(c *Serve) { c.GRPCTLSCert, c.GRPCTLSKey, c.GRPCTLSCA = "a", "a", "a" }, "--grpc-tls-san"},
		"a name nobody vouches for":          {func(c *Serve) { c.GRPCTLSSAN = []string{"a"} }, "--grpc-tls-ca"},
		"a pattern for a name": {func(c *Serve) {
			c.GRPCTLSCert, c.GRPCTLSKey, c.GRPCTLSCA, c.GRPCTLSSAN = "a", "a", "a", []string{"*.a"}
		}, "--grpc-tls-san"},
		"scopes of no name": {func(c *Serve) {
			c.GRPCTLSCert, c.GRPCTLSKey, c.GRPCTLSCA, c.GRPCTLSSAN = "a", "a", "a", []string{"=publish"}
		}, "--grpc-tls-san"},
		"an audience of services without a key": {func(c *Serve) { c.GRPCJWTAudience = "rt" }, "--grpc-jwt-key"},
		"services without an audience":          {func(c *Serve) { c.GRPCJWTKey = []string{"a"} }, "--grpc-jwt-audience"},
		"one audience for services and users": {func(c *Serve) {
			c.JWTKey, c.JWTAudience, c.GRPCJWTKey, c.GRPCJWTAudience = []string{"a"}, []string{"rt"}, []string{"a"}, "rt"
		}, "--grpc-jwt-audience"},
		"services' keys from afar in plaintext": {func(c *Serve) { c.GRPCJWKSURL, c.GRPCJWTAudience = []string{"http://a.example/k"}, "rt" }, "--jwks-insecure"},
		"a negative drain delay":                {func(c *Serve) { c.DrainDelay = -1 }, "--drain-delay"},
		"a CA for no Redis":                     {func(c *Serve) { c.RedisTLSCA = "a" }, "--redis-tls-ca"},
		"a Redis needed and not there":          {func(c *Serve) { c.ReadyNeedsRedis = true }, "--ready-needs-redis"},
		"a prefix that marks a slot":            {func(c *Serve) { c.RedisPrefix = "{a}" }, "--redis-prefix"},
		"a wait into the past":                  {func(c *Serve) { c.RedisWait = -1 }, "--redis-wait"},
		"a mode that is none":                   {func(c *Serve) { c.DegradedRoom = map[string]string{"a": "ignore"} }, "--degraded-room"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			c.change(cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.option) {
				t.Errorf("Validate() = %v, want it to name %s", err, c.option)
			}
		})
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	_, err := parse(t, "--edge-addr=x", "--max-sessions=0", "--log-bytes=1", "--drain-window=1h")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, option := range []string{"--dev", "--edge-addr", "--max-sessions", "--log-bytes", "--drain-window"} {
		if !strings.Contains(err.Error(), option) {
			t.Errorf("%s is not named in:\n%v", option, err)
		}
	}
}

func TestAGRPCListenerThatOthersReachMustBeAskedFor(t *testing.T) {
	for addr, loopback := range map[string]bool{
		"127.0.0.1:9090": true, "127.9.9.9:1": true, "localhost:9090": true, "[::1]:9090": true, "127.0.0.1:0": true,
		":9090": false, "0.0.0.0:9090": false, "[::]:9090": false, "10.0.0.1:9090": false, "realtime.example:9090": false, "127.0.0.1.example:1": false,
	} {
		cfg := good()
		cfg.GRPCAddr = addr
		if err := cfg.Validate(); (err == nil) != loopback {
			t.Errorf("--grpc-addr %s: %v", addr, err)
		}
		cfg.GRPCTLSCert, cfg.GRPCTLSKey = "a", "b" // without keys to know callers by it is not enough
		if err := cfg.Validate(); (err == nil) != loopback {
			t.Errorf("--grpc-addr %s over TLS: %v", addr, err)
		}
		for _, known := range []func(*Serve){
			func(c *Serve) { c.GRPCJWTKey, c.GRPCJWTAudience = []string{"a"}, "rt" },
			func(c *Serve) { c.GRPCTLSCA, c.GRPCTLSSAN = "a", []string{"shop.example=publish+presence"} },
		} {
			whole := *cfg
			known(&whole)
			if err := whole.Validate(); err != nil {
				t.Errorf("--grpc-addr %s over TLS, callers known: %v", addr, err)
			}
		}
		cfg.GRPCInsecure = true
		if err := cfg.Validate(); err != nil {
			t.Errorf("--grpc-addr %s --grpc-insecure: %v", addr, err)
		}
	}
}

func TestSizesAreReadAndShownWithTheirUnit(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "65536": 64 << 10, "1B": 1, "64KiB": 64 << 10, "3 MiB": 3 << 20, "2GiB": 2 << 30} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q = %d, %v, want %d", text, b, err, want)
		}
		var again Bytes
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q is shown as %q, which is read as %d, %v", text, b, again, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1.5MiB", "64kb", "64MB", "9223372036854775807GiB", "1e3"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %d", text, b)
		}
	}
}
