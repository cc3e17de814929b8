package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/limit"
)

// MinKeyBytes is the shortest static key that is taken.
const MinKeyBytes = 16

const (
	// knownTokens and knownServices bound what is kept of tokens that count and of who they name: it has all been vouched for.
	knownTokens   = 1024
	knownServices = 1024
	// judgedAgain is how long a token is taken without another look: a key that its issuer has withdrawn counts so much longer.
	judgedAgain = time.Minute
)

// doorman turns credentials into callers, before anything else of a call is looked at.
type doorman struct {
	log    *slog.Logger
	rate   int
	local  *Caller // everybody, if no credential is asked for
	keys   []staticKey
	names  Names
	bearer []*Caller // of names
	verify func(token string) (auth.Service, error)

	tokens *lru.Cache[[sha256.Size]byte, vouched]
	rates  *lru.Cache[string, *limit.Bucket] // of services, which outlive their tokens

	missing, unknown, expired counter
	logged                    atomic.Int64 // when a refusal was, in Unix nanoseconds
	away                      away
}

type staticKey struct {
	hash [sha256.Size]byte
	who  *Caller
}

// vouched is who a token names, until it is looked at again.
type vouched struct {
	who   *Caller
	until time.Time
}

func newDoorman(cfg *Config, logger *slog.Logger) *doorman {
	d := &doorman{log: logger, rate: cfg.Rate, names: cfg.Names, verify: cfg.Verify, away: newAway()}
	d.tokens, _ = lru.New[[sha256.Size]byte, vouched](knownTokens) // it fails only for a size below 1
	d.rates, _ = lru.New[string, *limit.Bucket](knownServices)
	for _, k := range cfg.Keys {
		hash := sha256.Sum256(k)
		d.keys = append(d.keys, staticKey{hash, &Caller{Identity: "key/" + hex.EncodeToString(hash[:4]), Scopes: AllScopes, rate: d.bucket()}})
	}
	for _, n := range d.names {
		d.bearer = append(d.bearer, &Caller{Identity: "certificate/" + n.Name, Name: n.Name, Scopes: n.Scopes, rate: d.bucket()})
	}
	if len(d.keys) == 0 && len(d.names) == 0 && d.verify == nil {
		d.local = &Caller{Identity: local, Scopes: AllScopes, rate: d.bucket()}
	}
	return d
}

func (d *doorman) bucket() *limit.Bucket {
	if d.rate <= 0 {
		return nil
	}
	return limit.NewBucket(float64(d.rate), d.rate)
}

// tap refuses a call without a good credential before its body is read, else its context bears the Caller. gRPC calls it on
// the connection's reader: it must not wait.
func (d *doorman) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if strings.HasPrefix(info.FullMethodName, healthMethods) {
		return ctx, nil
	}
	who := d.local
	if who == nil {
		var err error
		if who, err = d.judge(ctx, info.Header); err != nil {
			d.refused(ctx, err)
			return d.away.send(ctx)
		}
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

// Why a call is refused here.
var (
	errMissing = errors.New("credential missing")
	errUnknown = errors.New("credential unknown")
)

// judge tells who calls. A credential in the metadata counts alone; without one it is who the connection's certificate names.
func (d *doorman) judge(ctx context.Context, md metadata.MD) (*Caller, error) {
	values := md["authorization"]
	if len(values) == 0 {
		if who := d.certified(ctx); who != nil {
			return who, nil
		}
		return nil, errMissing
	}
	token, ok := bearer(values)
	if !ok {
		return nil, errMissing
	}
	hash := sha256.Sum256([]byte(token))
	if who := d.find(hash); who != nil {
		return who, nil
	}
	if d.verify == nil || strings.Count(token, ".") != 2 {
		return nil, errUnknown
	}
	return d.service(token, hash)
}

// bearer is the one credential of a call.
func bearer(values []string) (token string, ok bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return token, strings.EqualFold(scheme, "bearer") && token != ""
}

// find takes the same time whichever key it is, and if it is none.
func (d *doorman) find(hash [sha256.Size]byte) (who *Caller) {
	for i := range d.keys {
		if subtle.ConstantTimeCompare(hash[:], d.keys[i].hash[:]) == 1 {
			who = d.keys[i].who
		}
	}
	return who
}

// certified is who the connection's certificate names. The handshake has verified it.
func (d *doorman) certified(ctx context.Context) *Caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil
	}
	if i := d.names.find(info.State.PeerCertificates[0]); i >= 0 {
		return d.bearer[i]
	}
	return nil
}

// service is who a token names.
func (d *doorman) service(token string, hash [sha256.Size]byte) (*Caller, error) {
	now := time.Now()
	if v, ok := d.tokens.Get(hash); ok && now.Before(v.until) {
		return v.who, nil
	}
	says, err := d.verify(token)
	if err != nil {
		return nil, err
	}
	who := &Caller{Identity: "service/" + says.Name, Name: says.Name, expires: says.Expires.Add(auth.Leeway)}
	for _, name := range says.Scopes {
		who.Scopes |= scopeNamed(name) // others are other services'
	}
	if who.rate = d.bucket(); who.rate != nil {
		if first, there, _ := d.rates.PeekOrAdd(who.Identity, who.rate); there {
			who.rate = first
			d.rates.Get(who.Identity) // it is in use
		}
	}
	until := now.Add(judgedAgain)
	if until.After(who.expires) {
		until = who.expires
	}
	d.tokens.Add(hash, vouched{who, until})
	return who, nil
}

// refused counts, and logs what it can without the credential.
func (d *doorman) refused(ctx context.Context, err error) {
	n, reason := &d.unknown, "unknown"
	switch {
	case errors.Is(err, errMissing):
		n, reason = &d.missing, "missing"
	case errors.Is(err, auth.ErrExpired):
		n, reason = &d.expired, "expired"
	}
	n.Add(1)
	now := time.Now().UnixNano()
	if last := d.logged.Load(); now-last >= int64(logEvery) && d.logged.CompareAndSwap(last, now) {
		from := ""
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		d.log.WarnContext(ctx, "credential refused; others within a second are not logged", "reason", reason, "err", err, "peer", from,
			"refused_total", d.missing.Load()+d.unknown.Load()+d.expired.Load())
	}
}
