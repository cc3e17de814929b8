package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/limit"
)

// Scope is what a caller may do; several are joined by |.
type Scope uint8

// Scopes, one for each service and one for what a publisher may claim.
const (
	ScopePublish Scope = 1 << iota
	ScopePublishAsUser
	ScopeSubscribe
	ScopePresence
	ScopeControl

	allScopes = ScopePublish | ScopePublishAsUser | ScopeSubscribe | ScopePresence | ScopeControl
)

// String is the scope's name in credentials and refusals.
func (s Scope) String() string {
	switch s {
	case ScopePublish:
		return "publish"
	case ScopePublishAsUser:
		return "publish:as-user"
	case ScopeSubscribe:
		return "subscribe"
	case ScopePresence:
		return "presence"
	case ScopeControl:
		return "control"
	}
	return "none"
}

// scopes is what each service takes; a method with a scope of its own stands beside them. What is in neither is refused.
var scopes = map[string]Scope{
	realtimev1.PublisherService_ServiceDesc.ServiceName:  ScopePublish,
	realtimev1.SubscriberService_ServiceDesc.ServiceName: ScopeSubscribe,
	realtimev1.PresenceService_ServiceDesc.ServiceName:   ScopePresence,
	realtimev1.ControlService_ServiceDesc.ServiceName:    ScopeControl,

	realtimev1.PublisherService_GetHistory_FullMethodName:    ScopeSubscribe,
	realtimev1.PublisherService_DeleteHistory_FullMethodName: ScopeControl,

	// What describes the services takes a credential, whichever.
	"grpc.reflection.v1.ServerReflection":      0,
	"grpc.reflection.v1alpha.ServerReflection": 0,
}

// healthMethods begin the calls that need no credential: load balancers have none.
var healthMethods = "/" + healthpb.Health_ServiceDesc.ServiceName + "/"

// scopeOf is what a method takes; ok is false for one that nobody may call.
func scopeOf(method string) (need Scope, ok bool) {
	if need, ok = scopes[method]; ok {
		return need, true
	}
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	need, ok = scopes[service]
	return need, ok
}

// Caller is who calls. It does not change and may be shared by calls.
type Caller struct {
	Identity string // idempotency keys, rates and logs are by identity; never the credential
	Name     string // what it may say as `from` without ScopePublishAsUser; empty: nothing
	Scopes   Scope

	rate *limit.Bucket // of its publishes; nil: none
}

// local is who calls where no credential is asked for.
const local = "local"

type callerKey struct{}

// callerOf is who makes the call of ctx; the tap has seen to it that there is one.
func callerOf(ctx context.Context) *Caller {
	who, _ := ctx.Value(callerKey{}).(*Caller)
	if who == nil {
		return &Caller{}
	}
	return who
}

// needs refuses a caller without the scope.
func (c *Caller) needs(s Scope) error {
	if c.Scopes&s == s {
		return nil
	}
	return &refusal{error: errScope, text: "the credential lacks the scope " + s.String(), metadata: map[string]string{"scope": s.String()}}
}

// take spends n publishes of the caller's rate, all or none.
func (c *Caller) take(n int) error {
	if c.rate == nil {
		return nil
	}
	if retry, ok := c.rate.TakeN(n); !ok {
		return &refusal{error: errRate, retry: max(retry, minRetry)}
	}
	return nil
}

// minRetry is the least that a caller is told to wait: below it the clock would decide.
const minRetry = time.Millisecond

// MinKeyBytes is the shortest static key that is taken.
const MinKeyBytes = 16

// doorman turns credentials into callers, before anything else of a call is looked at.
type doorman struct {
	log   *slog.Logger
	local *Caller // everybody, if there are no keys
	keys  []staticKey

	missing, unknown counter
	logged           atomic.Int64 // when a refusal was, in Unix nanoseconds
}

type staticKey struct {
	hash [sha256.Size]byte
	who  *Caller
}

// logEvery bounds what strangers can write into the log.
const logEvery = time.Second

func newDoorman(keys [][]byte, rate int, logger *slog.Logger) *doorman {
	caller := func(identity string) *Caller {
		c := &Caller{Identity: identity, Scopes: allScopes}
		if rate > 0 {
			c.rate = limit.NewBucket(float64(rate), rate)
		}
		return c
	}
	d := &doorman{log: logger}
	for _, k := range keys {
		hash := sha256.Sum256(k)
		d.keys = append(d.keys, staticKey{hash, caller("key/" + hex.EncodeToString(hash[:4]))})
	}
	if len(d.keys) == 0 {
		d.local = caller(local)
	}
	return d
}

// tap refuses a call without a good credential before its body is read, else its context bears the Caller. gRPC calls it on
// the connection's reader: it must not wait.
func (d *doorman) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if strings.HasPrefix(info.FullMethodName, healthMethods) {
		return ctx, nil
	}
	who := d.local
	if who == nil {
		token, ok := bearer(info.Header)
		if !ok {
			return nil, d.refuse(ctx, &d.missing, "missing")
		}
		if who = d.find(token); who == nil {
			return nil, d.refuse(ctx, &d.unknown, "unknown")
		}
	}
	return context.WithValue(ctx, callerKey{}, who), nil
}

// bearer is the one credential of a call.
func bearer(md metadata.MD) (token string, ok bool) {
	values := md["authorization"]
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return token, strings.EqualFold(scheme, "bearer") && token != ""
}

// find takes the same time whichever key it is, and if it is none.
func (d *doorman) find(token string) (who *Caller) {
	hash := sha256.Sum256([]byte(token))
	for i := range d.keys {
		if subtle.ConstantTimeCompare(hash[:], d.keys[i].hash[:]) == 1 {
			who = d.keys[i].who
		}
	}
	return who
}

// refuse counts, and logs what it can without the credential.
func (d *doorman) refuse(ctx context.Context, n *counter, why string) error {
	n.Add(1)
	now := time.Now().UnixNano()
	if last := d.logged.Load(); now-last >= int64(logEvery) && d.logged.CompareAndSwap(last, now) {
		from := ""
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		d.log.WarnContext(ctx, "credential refused; others within a second are not logged", "reason", why, "peer", from,
			"refused_total", d.missing.Load()+d.unknown.Load())
	}
	st, _ := statusFor(errCredential, "")
	return st.Err()
}
