package realtime

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/message"
)

// AuthConfig says which tokens are valid. They are JWTs; sub is the user's id, exp is required.
type AuthConfig struct {
	// Keys are each a file's path or env:NAME, never the key itself: a PEM public key or certificate, or a secret of at least
	// 32 bytes. Empty: those that the variable REALTIME_JWT_KEY lists, separated by commas.
	Keys []string
	// Algorithms are the only ones that count. Empty: with the keys of the environment those in REALTIME_JWT_ALG; else what
	// fits each key, such as HS256 for a secret.
	Algorithms []string
	Issuer     string // iss must be it; "": not looked at
	Audience   string // aud must be or hold it; "": not looked at
	// JWKSURL is where more keys are, as a JSON Web Key Set that is fetched while Hub.Run runs: https://, on this machine also
	// http://. With it, Keys are those given here alone.
	JWKSURL string
}

// HandlerConfig are the rules of a handler. The zero value lets everybody in without a token, into every room.
type HandlerConfig struct {
	// Broadcaster may name the hub's; nil is what the hub has. With one that is not this hub's nobody is let in.
	Broadcaster Broadcaster

	// The callbacks run one at a time for each session, and for different sessions at the same time. They may block, publish
	// and call conn's methods: only their own session waits. Hub.Run waits for them in the end. One that panics is logged, and
	// its session closed with 1011.

	// OnConnect is called when the session is a member of the rooms in its URL and before its first message.
	OnConnect func(conn Connection)
	// OnDisconnect is called once for each OnConnect, when the session has ended.
	OnDisconnect func(conn Connection)
	// OnMessage sees what a session sends to a room it may send to, and returns what is published: msg, perhaps with another
	// Type, Data or From, or a message in its place; nil suppresses it, and the sender is not told why (conn.Send can). Type
	// must be chat or one of the application's. msg has no ID yet; whatever Room and Timestamp say, they stay what they were.
	OnMessage func(conn Connection, msg *Message) *Message

	// AuthRequired refuses sessions without a token, with 401. Without any key to verify tokens it refuses all, and says so in
	// the log. Where it is false, a session without a token is anonymous; a token that comes must be valid all the same, and
	// without a key none is.
	AuthRequired bool
	Auth         AuthConfig

	// Origins are pages that may connect, as scheme://host or scheme://host:port, or scheme://*.host for all below a name. Pages of the handler's own address may if it is
	// an IP or localhost: a name must be listed. Programs that are no browsers send no origin and need none.
	Origins []string
	// TrustedProxies are the addresses or networks of proxies in front, whose X-Forwarded-For is believed. An address that keeps
	// sending bad tokens is held up; without its proxies here that is theirs, and with it everybody's.
	TrustedProxies []string
	MaxConnections int // sessions of this handler at once, above it 503 "server at capacity"; 0: 10,000
	// Path is where the handler is mounted, with the prefixes of all routers around it; "": /ws. What follows is the room, also
	// where http.StripPrefix has cut Path off.
	Path string
}

// Handler lets sessions in: GET Path/room joins a room, GET Path?room=a&room=b several, GET Path none yet.
type Handler struct {
	hub  *Hub
	cfg  HandlerConfig
	log  *slog.Logger
	edge http.Handler
}

// NewHandler makes a handler of the hub's, before or after Run began. A nil logger is silent. With a configuration that
// cannot work, a key that is not there or an origin that is none, it lets nobody in and says why in the log.
func NewHandler(hub *Hub, logger *slog.Logger, cfg HandlerConfig) *Handler {
	logger = orSilent(logger)
	h := &Handler{hub: hub, cfg: cfg, log: logger.With("component", "realtime")}
	c := edge.Config{Path: cfg.Path, MaxSessions: cfg.MaxConnections, Origins: cfg.Origins, TrustedProxies: cfg.TrustedProxies, Anonymous: !cfg.AuthRequired}
	v, err := cfg.Auth.verifier(logger)
	if err == nil && v == nil && cfg.AuthRequired {
		err = errNoKey
	}
	if err != nil {
		h.log.Error("every handshake is refused: tokens cannot be verified", "err", err)
		c.Anonymous = false
		c.Verify = func(string) (auth.Identity, error) { return auth.Identity{}, auth.ErrToken }
	} else if v != nil {
		c.Verify, c.Refresh = v.Verify, v.Run
	}
	if cfg.OnConnect != nil {
		c.Opened = func(conn *edge.Conn) { cfg.OnConnect(h.connection(conn)) }
	}
	if cfg.OnDisconnect != nil {
		c.Closed = h.disconnected
	}
	if cfg.OnMessage != nil {
		c.Hooks = hooks.New(hooks.Config{Hooks: hooks.Hooks{Message: h.filter}, Inside: true}, logger)
	}
	if b := cfg.Broadcaster; b != nil && b.of() != hub {
		h.log.Error("every handshake is refused: the Broadcaster is not the hub's")
		h.edge = http.HandlerFunc(broken)
		return h
	}
	e, err := hub.node.NewEdge(c, logger)
	if err != nil {
		h.log.Error("every handshake is refused: the handler cannot work", "err", err)
		h.edge = http.HandlerFunc(broken)
		return h
	}
	h.edge = e
	return h
}

var errNoKey = errors.New("AuthRequired without a key: set Auth.Keys or Auth.JWKSURL, or REALTIME_JWT_KEY to a file or env:NAME")

// verifier makes what judges tokens: nil without a key.
func (a AuthConfig) verifier(logger *slog.Logger) (*auth.Verifier, error) {
	c := auth.Config{Keys: a.Keys, Algorithms: a.Algorithms, Issuer: a.Issuer, Audience: a.Audience, Logger: logger}
	if a.JWKSURL != "" {
		if !strings.HasPrefix(a.JWKSURL, "https://") && !strings.HasPrefix(a.JWKSURL, "http://") {
			return nil, errors.New("JWKSURL must be https://…")
		}
		c.KeySets = []string{a.JWKSURL}
	}
	if len(c.Keys) == 0 && len(c.KeySets) == 0 {
		c.Keys = listed("REALTIME_JWT_KEY")
		if len(c.Algorithms) == 0 {
			c.Algorithms = listed("REALTIME_JWT_ALG")
		}
	}
	if len(c.Keys) == 0 && len(c.KeySets) == 0 {
		if len(c.Algorithms) > 0 || c.Issuer != "" || c.Audience != "" {
			return nil, errors.New("algorithms, issuer and audience say nothing without a key")
		}
		return nil, nil
	}
	return auth.New(c)
}

func listed(variable string) []string {
	if s := os.Getenv(variable); s != "" {
		return strings.Split(s, ",")
	}
	return nil
}

// broken answers for a handler that cannot work.
func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write([]byte(`{"error":{"code":"internal","message":"the handler is misconfigured, its log says how"}}`)) // the peer has left
}

// Routes is the handler itself, for routers that mount.
func (h *Handler) Routes() http.Handler { return h }

// ServeHTTP lets a session in, or refuses it over HTTP: 503 before Hub.Run is ready and while it drains. It returns when the
// session has begun.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.hub.arrive(r.Context())
	h.edge.ServeHTTP(w, r)
}

func (h *Handler) connection(c *edge.Conn) Connection { return connection{conn: c, log: h.log} }

// disconnected keeps a panic from ending the process: no session is left that it could end instead.
func (h *Handler) disconnected(c *edge.Conn) {
	defer func() {
		if r := recover(); r != nil {
			h.log.Error("OnDisconnect panicked", "session_id", c.ID(), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	h.cfg.OnDisconnect(h.connection(c))
}

// filter has OnMessage see a message.
func (h *Handler) filter(_ context.Context, s *hooks.Session, m *message.Message) (*message.Message, error) {
	out := h.cfg.OnMessage(h.connection(s.Conn.(*edge.Conn)), &Message{
		Type: MessageType(m.Type), Room: string(m.Room), From: m.From, Data: m.Data, Timestamp: time.Now().UTC(),
	})
	if out == nil {
		return nil, nil
	}
	changed := *out
	changed.Room, changed.Timestamp = "", time.Time{} // they stay what they were
	return changed.convert()
}
