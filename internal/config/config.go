// Package config declares the options of `realtime serve`: one struct field is the flag, its REALTIME_ environment variable,
// its default and its help. It checks what the options say together; it opens nothing but the files they name, and starts nothing.
package config

import (
	"log/slog"
	"time"
)

// Serve are the options of a node.
type Serve struct {
	Config         File   `placeholder:"FILE" help:"YAML file of options: edge-addr: 127.0.0.1:8080. Flags and variables go before it."`
	Dev            bool   `help:"Development: sessions need no token, pages from localhost may connect, the demo page is served at / and hands out tokens, gRPC describes itself."`
	EdgeAddr       string `default:"127.0.0.1:8080" help:"Where sessions connect."`
	EdgeTLSCert    string `name:"edge-tls-cert" placeholder:"FILE" help:"Certificate chain, PEM: sessions connect over TLS. Read again when it changes."`
	EdgeTLSKey     string `name:"edge-tls-key" placeholder:"FILE" help:"Its private key, PEM; not readable by everyone."`
	GRPCAddr       string `name:"grpc-addr" default:"127.0.0.1:9090" help:"Where backends call."`
	GRPCTLSCert    string `name:"grpc-tls-cert" placeholder:"FILE" help:"Certificate chain, PEM: backends call over TLS. Read again when it changes."`
	GRPCTLSKey     string `name:"grpc-tls-key" placeholder:"FILE" help:"Its private key, PEM; not readable by everyone."`
	GRPCInsecure   bool   `name:"grpc-insecure" help:"Let the gRPC listener leave loopback without TLS, or without keys, tokens and certificates: whoever reaches it may publish."`
	GRPCKey        []Key  `name:"grpc-key" placeholder:"FILE|env:NAME" sep:"," help:"Key that backends call with: authorization: Bearer KEY. Repeatable, while one replaces another. Without keys, tokens and certificates whoever reaches the listener may call."`
	GRPCRate       *int   `name:"grpc-rate" placeholder:"N" help:"Publishes a second of each backend; 0: any number. Unless set 5000, and any number on loopback."`
	Backends       `embed:""`
	OpsAddr        string            `default:"127.0.0.1:8081" help:"Where operators scrape: /metrics, /healthz, /readyz."`
	Origin         []string          `placeholder:"SCHEME://HOST[:PORT]" sep:"," help:"Pages that may connect, besides those of the edge's own address; SCHEME://*.HOST.DOMAIN for all below a name. Repeatable."`
	Host           []string          `placeholder:"NAME" sep:"," help:"Names under which sessions may connect, *.HOST.DOMAIN for all below one; their pages may. Addresses and localhost always may. Any if none is given. Repeatable."`
	TrustedProxy   []string          `placeholder:"ADDRESS|CIDR" sep:"," help:"Proxies whose X-Forwarded-For tells where sessions come from. Repeatable."`
	ProxyProtocol  bool              `help:"Connections of these proxies begin with a header of the PROXY protocol, which tells it."`
	JWTKey         []string          `name:"jwt-key" sep:"," placeholder:"FILE|env:NAME" help:"Key that verifies sessions' tokens: a PEM public key or certificate, or a secret of at least 32 bytes. A file is read again when it changes. Repeatable."`
	JWKSURL        []string          `name:"jwks-url" sep:"," placeholder:"[ISS=]URL" help:"Key set (JWKS) that verifies sessions' tokens, fetched again and again; with ISS those of this issuer alone. Repeatable."`
	JWKSFile       []string          `name:"jwks-file" sep:"," placeholder:"[ISS=]FILE" help:"The same from a file, read again when it changes. Repeatable."`
	JWKSInsecure   bool              `name:"jwks-insecure" help:"Let --jwks-url and --grpc-jwks-url be http:// beyond loopback: whoever is in between can sign tokens."`
	JWTAlg         []string          `name:"jwt-alg" sep:"," placeholder:"ALG" help:"Algorithms of tokens that count, such as RS256; by default what fits each key. Repeatable."`
	JWTIssuer      string            `name:"jwt-issuer" placeholder:"ISS" help:"Tokens must be issued by it, or by an issuer that has a key set of its own."`
	JWTAudience    []string          `name:"jwt-audience" sep:"," placeholder:"[ISS=]AUD" help:"Tokens must be for it; with ISS, an issuer of --jwks-url or --jwks-file, its tokens. Repeatable."`
	JWTMaxLifetime time.Duration     `name:"jwt-max-lifetime" default:"24h" help:"Tokens that live longer are refused."`
	Grant          map[string]string `placeholder:"ROOM=OPS" help:"What a token that names no rooms may do, and a session without a token: ROOM is a name, or a prefix and *; OPS are letters of rwph: receive, write, see who is there, history. Everything everywhere if not given. Repeatable."`
	Anonymous      bool              `help:"Let sessions in that have no token: whoever reaches the edge is somebody."`
	QueryToken     bool              `default:"true" negatable:"" help:"Take tokens from the URL, as ?token= too; proxies may log those."`
	Type           map[string]string `placeholder:"TYPE=KIND" help:"What sessions may send besides chat; KIND is stored or ephemeral. Repeatable."`

	HooksAddr        string                   `placeholder:"HOST:PORT" help:"HooksService of a backend, that is asked about sessions. Over TLS, but on loopback without --hooks-tls-ca."`
	Hook             []string                 `sep:"," placeholder:"HOOK" help:"What it is asked about: connect, subscribe, message, disconnect. Repeatable; all of them if not given."`
	HooksTLSCA       string                   `name:"hooks-tls-ca" placeholder:"FILE" help:"Certificates, PEM, one of which vouches for that backend; those of the system if not given."`
	HooksKey         Key                      `placeholder:"FILE|env:NAME" help:"Key that it is called with: authorization: Bearer KEY."`
	HooksInsecure    bool                     `help:"Call it without TLS beyond loopback: who is on the way reads all, the key too, and may answer."`
	HooksHeader      []string                 `sep:"," placeholder:"NAME" help:"Headers of the handshake that connect gets; Cookie only if the request has an allowed Origin. Repeatable."`
	HooksFail        map[string]string        `placeholder:"HOOK=OPEN" help:"What a failing hook means: closed refuses, open lets pass. Closed if not given. Repeatable."`
	HooksTimeout     map[string]time.Duration `placeholder:"HOOK=DURATION" help:"How long an answer may take, what waits for its turn included. 1s if not given. Repeatable."`
	HooksConcurrency map[string]int           `placeholder:"HOOK=N" help:"How many questions are put at once. 100 if not given. Repeatable."`

	Presence            bool          `default:"true" negatable:"" help:"Tell who is in a room, and who comes and goes."`
	PresenceGrace       time.Duration `default:"8s" help:"A user whose last session ended is still there for so long."`
	PresenceAway        time.Duration `default:"5m" help:"A session that sends nothing for so long is away; 0: never."`
	PresenceCountsAbove int           `default:"1000" help:"Users of a room; above, its members are told counts instead of who comes and goes, until a tenth fewer are there."`

	MaxSessionsPolicy string `enum:"replace,refuse" default:"replace" help:"Of a user who has more sessions than his token's max_sessions: replace ends the oldest, refuse lets no newer one in."`

	MaxSessions int   `default:"10000" help:"Sessions at once; above, 503. Lowered with a warning if the file limit is too small."`
	SndbufBytes Bytes `default:"64KiB" help:"Send buffer of a session's socket."`
	Limits      `embed:""`
	MaxData     Bytes `default:"64KiB" help:"The largest data of a message; send an id for what is larger. A session's whole frame has at most 64 KiB."`
	LogBytes    Bytes `default:"256MiB" help:"Logs of all rooms on this node."`

	MemoryBytes    Bytes         `default:"512MiB" help:"History of all rooms in the embedded broker; above, the largest rooms lose their oldest messages."`
	HistorySize    int           `default:"10000" help:"Messages kept per room."`
	HistoryTTL     time.Duration `name:"history-ttl" default:"15m" help:"How long a message is kept."`
	IdempotencyTTL time.Duration `name:"idempotency-ttl" default:"5m" help:"How long an idempotency key is remembered."`

	RedisURL        Secret            `name:"redis-url" env:"REALTIME_REDIS_URL,REDIS_URL" placeholder:"URL" help:"Redis that nodes share rooms through: HOST:PORT, redis://[USER:PASSWORD@]HOST:PORT[/DB], or rediss:// for TLS; with Sentinels ?addr=HOST:PORT&master_set=NAME, with a Cluster ?addr=HOST:PORT. Empty: this node is alone, its history in its memory."`
	RedisTLSCA      string            `name:"redis-tls-ca" placeholder:"FILE" help:"Certificates, PEM, that vouch for Redis instead of the system's."`
	RedisPrefix     string            `placeholder:"TEXT" help:"Stands before all keys and channels, so that several services share a Redis."`
	RedisWait       time.Duration     `default:"0s" help:"At the start, wait for Redis so long before anybody is let in; then, or at once with 0, go on without it until it is there."`
	Degraded        string            `default:"local" enum:"local,reject" help:"While Redis is away: local takes messages for this node's sessions and stores them afterwards, reject refuses them."`
	DegradedRoom    map[string]string `placeholder:"ROOM=MODE" help:"The same for some rooms: ROOM is a name, or a prefix and *. Repeatable."`
	ReadyNeedsRedis bool              `help:"Not ready while Redis is away, whatever --degraded says: if all nodes share a balancer, none of them is ready then."`

	DrainTimeout time.Duration `default:"25s" help:"From SIGTERM to the end, at most."`
	DrainDelay   time.Duration `default:"5s" help:"Of it: unready, but still serving, until load balancers have noticed. None with --dev."`
	DrainWindow  time.Duration `default:"15s" help:"Of it: sessions are closed one after the other."`

	TimerSlack time.Duration `default:"2ms" help:"The kernel may be so late with this process's timers, on Linux: saves a tenth of the CPU. 0: what the system has."`

	LogLevel slog.Level `default:"info" help:"debug, info, warn or error."`
	Pprof    bool       `help:"Serve /debug/pprof on the ops listener."`
}
