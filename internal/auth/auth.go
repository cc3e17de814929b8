// Package auth turns a token into the identity behind it: who it is, what it may do in which rooms, and until when. Tokens
// are JWTs in compact form; which keys and algorithms count is fixed by the configuration, never by a token.
//
// Keys are read when a Verifier is made, and again by Run, from the files and URLs of the configuration. Judging a token
// touches neither files nor the network: nothing in it is ever a path or an address, and a key that it names is looked up
// among those of its issuer. It decides nothing about sessions; edge and rpc ask it and act on the answer. Only a token whose
// signature holds has its claims read, but for iss where there are several issuers; what is wrong with one is for the log: the
// peer gets one answer for all reasons.
package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A refused token is exactly one of these. The text around them says why, for the log alone; it holds nothing of the token
// but a few quoted and shortened values.
var (
	ErrToken   = errors.New("token refused")
	ErrExpired = errors.New("token expired")
	// ErrUnknownKey is an ErrToken too: the token names a key that its issuer has not, or not yet.
	ErrUnknownKey = fmt.Errorf("%w: unknown key", ErrToken)
)

const (
	// MaxTokenBytes is the longest token that is looked at.
	MaxTokenBytes = 8 << 10
	// MaxTokenIDBytes is the longest jti: a session keeps it.
	MaxTokenIDBytes = 256
	// MaxInfoBytes is the largest rt.info, as compact JSON.
	MaxInfoBytes = 1 << 10
	// DefaultMaxLifetime is the longest life of a token unless configured.
	DefaultMaxLifetime = 24 * time.Hour

	// Leeway is how far the issuer's clock and ours may be apart.
	Leeway = 30 * time.Second
	// cachedGrants bounds the distinct rt.rooms whose compiled form is kept for the next token that says the same.
	cachedGrants = 1024
)

// Identity is what a valid token says. Sessions of equal grants share them; all of it is immutable.
type Identity struct {
	User        string
	TokenID     string    // jti; "": none
	IssuedAt    time.Time // zero: the token does not say
	Expires     time.Time
	Grants      *Grants
	Info        []byte // public presence data as compact JSON, at most MaxInfoBytes; nil: none
	MaxSessions int    // how many the user may have at once; 0: the token does not say
}

// Config says which tokens count.
type Config struct {
	Keys        []string          // each a file's path or "env:NAME": a PEM key or certificate, or the bytes of a secret
	Secret      []byte            // one more key, of the program's own: at least 32 random bytes; nil: none
	KeySets     []string          // JSON Web Key Sets, each a URL or a file's path
	Algorithms  []string          // the only ones accepted; empty: one per key by its kind (HS256, RS256, ES* by curve, EdDSA)
	Issuer      string            // of the keys above: iss must be it; empty: any that none of Issuers is
	Audience    string            // aud must be or hold it; empty: aud is not looked at
	Issuers     []Issuer          // more, with keys of their own
	MaxLifetime time.Duration     // from iat to exp, without iat from now to exp; 0: 24 h
	Rooms       map[string]string // grants of a token that says none; nil: everything in every room
	NotFor      string            // an audience whose tokens are refused, whatever else they are for; empty: none

	PlainHTTP bool         // key sets may come over http:// from beyond this machine: whoever is in between can sign
	Logger    *slog.Logger // what Run could not read; nil: silent
}

// Issuer is one whose tokens are judged by its keys alone, which judge nobody else's.
type Issuer struct {
	Name     string   // iss is it
	Audience string   // as Config's
	KeySets  []string // as Config's
}

// Verifier judges tokens. It is safe for concurrent use.
type Verifier struct {
	issuers     []*issuer
	watched     []*watched
	remotes     []*remote
	maxLifetime time.Duration
	notFor      string
	rooms       *Grants
	grants      *lru.Cache[[sha256.Size]byte, *Grants] // by the digest of rt.rooms as written
}

// New reads the keys that are in files and variables; those behind URLs come with Run. It refuses weak and misplaced ones, and
// algorithms that would never be used; the error names a key by its path or variable, never by its value.
func New(cfg Config) (*Verifier, error) {
	if cfg.MaxLifetime < 0 {
		return nil, fmt.Errorf("maximum lifetime of tokens: %v is negative", cfg.MaxLifetime)
	}
	if cfg.MaxLifetime == 0 {
		cfg.MaxLifetime = DefaultMaxLifetime
	}
	if cfg.Rooms == nil {
		cfg.Rooms = map[string]string{"*": (Receive | Write | See | History).String()}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	rooms, err := CompileGrants(cfg.Rooms)
	if err != nil {
		return nil, fmt.Errorf("grants of tokens that say none: %w", err)
	}
	cache, err := lru.New[[sha256.Size]byte, *Grants](cachedGrants)
	if err != nil {
		return nil, err
	}
	v := &Verifier{maxLifetime: cfg.MaxLifetime, notFor: cfg.NotFor, rooms: rooms, grants: cache}
	if err := v.open(&cfg); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify returns the identity behind a token, or an error around ErrExpired, if the token was good once, or else ErrToken.
func (v *Verifier) Verify(token string) (Identity, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s) // when the claims are judged: they lie in it
	i, c, err := v.read(s, token)
	if err != nil {
		return Identity{}, err
	}
	return v.judge(i, c)
}

// read returns what a token says, and who signed it. The claims are good as long as the scratch is not used again.
func (v *Verifier) read(s *scratch, token string) (*issuer, claims, error) {
	if len(token) > MaxTokenBytes {
		return nil, claims{}, refuse("%d bytes, the limit is %d", len(token), MaxTokenBytes)
	}
	signed, header, payload, signature, err := s.split(token)
	if err != nil {
		return nil, claims{}, err
	}
	alg, kid, err := s.header(header)
	if err != nil {
		return nil, claims{}, err
	}
	i, err := v.issuerOf(s, payload)
	if err != nil {
		return nil, claims{}, err
	}
	if err := i.checkSignature(alg, kid, signed, signature); err != nil {
		return nil, claims{}, err
	}
	c, err := s.claims(payload)
	return i, c, err
}

// judge decides about claims that the issuer signed. Expiry comes last: only what is otherwise good has expired.
func (v *Verifier) judge(i *issuer, c claims) (Identity, error) {
	if err := v.addressed(i, c); err != nil {
		return Identity{}, err
	}
	grants, err := v.grantsOf(c.rooms)
	if err != nil {
		return Identity{}, err
	}
	if err := v.timely(c); err != nil {
		return Identity{}, err
	}
	return Identity{
		User: c.user, TokenID: c.tokenID, IssuedAt: c.issuedAt, Expires: c.expires,
		Grants: grants, Info: c.info, MaxSessions: c.maxSessions,
	}, nil
}

// addressed refuses what is not from our issuer or not for us.
func (v *Verifier) addressed(i *issuer, c claims) error {
	switch {
	case i.name != "" && c.issuer != i.name:
		return refuse("iss %s is not the configured issuer", quoted(c.issuer))
	case i.audience != "" && !slices.Contains(c.audience, i.audience):
		return refuse("the configured audience is not in aud")
	case v.notFor != "" && slices.Contains(c.audience, v.notFor):
		return refuse("it is for another service")
	}
	return nil
}

// timely refuses what does not count at this time.
func (v *Verifier) timely(c claims) error {
	now := time.Now()
	from := c.issuedAt
	switch {
	case c.issuedAt.After(now.Add(Leeway)):
		return refuse("iat is in the future")
	case c.notBefore.After(now.Add(Leeway)):
		return refuse("nbf is in the future")
	case from.IsZero():
		from = now.Add(Leeway)
	}
	if life := c.expires.Sub(from); life > v.maxLifetime {
		return refuse("lives for %v, the limit is %v", life.Round(time.Second), v.maxLifetime)
	}
	if !now.Before(c.expires.Add(Leeway)) {
		return fmt.Errorf("%w: %v ago", ErrExpired, now.Sub(c.expires).Round(time.Second))
	}
	return nil
}

// grantsOf compiles rt.rooms, or finds what an earlier token with the same bytes had.
func (v *Verifier) grantsOf(rooms []byte) (*Grants, error) {
	if rooms == nil {
		return v.rooms, nil
	}
	digest := sha256.Sum256(rooms)
	if g, ok := v.grants.Get(digest); ok {
		return g, nil
	}
	m, err := decodeRooms(rooms)
	if err != nil {
		return nil, err
	}
	g, err := CompileGrants(m)
	if err != nil {
		return nil, refuse("rt.rooms: %v", err)
	}
	v.grants.Add(digest, g)
	return g, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrToken}, args...)...)
}
