// Package auth turns a token into the identity behind it: who it is, what it may do in which rooms, and until when. Tokens
// are JWTs in compact form; which keys and algorithms count is fixed by the configuration, never by a token.
//
// It reads keys when a Verifier is made and then neither files nor the network: nothing in a token is ever a path, an
// address or the name of a key. It decides nothing about sessions; edge and rpc ask it and act on the answer. Only a token
// whose signature holds has its claims read, and what is wrong with one is for the log: the peer gets one answer for all
// reasons.
package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A refused token is exactly one of these. The text around them says why, for the log alone; it holds nothing of the token
// but a few quoted and shortened values.
var (
	ErrToken   = errors.New("token refused")
	ErrExpired = errors.New("token expired")
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
	Algorithms  []string          // the only ones accepted; empty: one per key by its kind (HS256, RS256, ES* by curve, EdDSA)
	Issuer      string            // iss must be it; empty: iss is not looked at
	Audience    string            // aud must be or hold it; empty: aud is not looked at
	MaxLifetime time.Duration     // from iat to exp, without iat from now to exp; 0: 24 h
	Rooms       map[string]string // grants of a token that says none; nil: everything in every room
}

// Verifier judges tokens. It is safe for concurrent use.
type Verifier struct {
	keys             []*key
	issuer, audience string
	maxLifetime      time.Duration
	rooms            *Grants
	grants           *lru.Cache[[sha256.Size]byte, *Grants] // by the digest of rt.rooms as written
}

// New reads the keys. It refuses weak and misplaced ones, and algorithms that would never be used; the error names a key by
// its path or variable, never by its value.
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
	rooms, err := CompileGrants(cfg.Rooms)
	if err != nil {
		return nil, fmt.Errorf("grants of tokens that say none: %w", err)
	}
	keys, err := loadAll(cfg.Keys)
	if err != nil {
		return nil, err
	}
	if cfg.Secret != nil {
		keys = append(keys, &key{name: "of the program", kind: secretKind, public: cfg.Secret, private: cfg.Secret})
	}
	if len(keys) == 0 {
		return nil, errors.New("no key to verify tokens with")
	}
	if err := pin(keys, cfg.Algorithms); err != nil {
		return nil, err
	}
	cache, err := lru.New[[sha256.Size]byte, *Grants](cachedGrants)
	if err != nil {
		return nil, err
	}
	return &Verifier{
		keys: keys, issuer: cfg.Issuer, audience: cfg.Audience, maxLifetime: cfg.MaxLifetime, rooms: rooms, grants: cache,
	}, nil
}

// Verify returns the identity behind a token, or an error around ErrExpired, if the token was good once, or else ErrToken.
func (v *Verifier) Verify(token string) (Identity, error) {
	if len(token) > MaxTokenBytes {
		return Identity{}, refuse("%d bytes, the limit is %d", len(token), MaxTokenBytes)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	signed, header, payload, signature, err := s.split(token)
	if err != nil {
		return Identity{}, err
	}
	alg, err := s.header(header)
	if err != nil {
		return Identity{}, err
	}
	if err := v.checkSignature(alg, signed, signature); err != nil {
		return Identity{}, err
	}
	c, err := s.claims(payload)
	if err != nil {
		return Identity{}, err
	}
	return v.judge(c)
}

// checkSignature tries each key that alg is pinned to.
func (v *Verifier) checkSignature(alg, signed string, signature []byte) error {
	tried := false
	for _, k := range v.keys {
		m := find(k.methods, alg)
		if m == nil {
			continue
		}
		if m.Verify(signed, signature, k.public) == nil {
			return nil
		}
		tried = true
	}
	if !tried {
		return refuse("alg %s is none of the configured ones", quoted(alg))
	}
	return refuse("no key verifies the signature")
}

// judge decides about claims that the issuer signed. Expiry comes last: only what is otherwise good has expired.
func (v *Verifier) judge(c claims) (Identity, error) {
	if v.issuer != "" && c.issuer != v.issuer {
		return Identity{}, refuse("iss %s is not the configured issuer", quoted(c.issuer))
	}
	if v.audience != "" && !slices.Contains(c.audience, v.audience) {
		return Identity{}, refuse("the configured audience is not in aud")
	}
	grants, err := v.grantsOf(c.rooms)
	if err != nil {
		return Identity{}, err
	}
	now := time.Now()
	from := c.issuedAt
	switch {
	case c.issuedAt.After(now.Add(Leeway)):
		return Identity{}, refuse("iat is in the future")
	case c.notBefore.After(now.Add(Leeway)):
		return Identity{}, refuse("nbf is in the future")
	case from.IsZero():
		from = now.Add(Leeway)
	}
	if life := c.expires.Sub(from); life > v.maxLifetime {
		return Identity{}, refuse("lives for %v, the limit is %v", life.Round(time.Second), v.maxLifetime)
	}
	if !now.Before(c.expires.Add(Leeway)) {
		return Identity{}, fmt.Errorf("%w: %v ago", ErrExpired, now.Sub(c.expires).Round(time.Second))
	}
	return Identity{
		User: c.user, TokenID: c.tokenID, IssuedAt: c.issuedAt, Expires: c.expires,
		Grants: grants, Info: c.info, MaxSessions: c.maxSessions,
	}, nil
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
