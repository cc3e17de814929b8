package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

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

	// AllScopes are those of callers that nobody has restricted.
	AllScopes = ScopePublish | ScopePublishAsUser | ScopeSubscribe | ScopePresence | ScopeControl
)

// scopeNames are the scopes' names in credentials and refusals; bit i is scopeNames[i].
var scopeNames = [...]string{"publish", "publish:as-user", "subscribe", "presence", "control"}

// String is the scope's name.
func (s Scope) String() string {
	for i, name := range scopeNames {
		if s == 1<<i {
			return name
		}
	}
	return "none"
}

// ParseScope reads the names of scopes. An unknown one is an error.
func ParseScope(names []string) (all Scope, _ error) {
	for _, name := range names {
		s := scopeNamed(name)
		if s == 0 {
			return 0, fmt.Errorf("scope %q is none of %s", name, strings.Join(scopeNames[:], ", "))
		}
		all |= s
	}
	return all, nil
}

// scopeNamed is 0 for a name that is no scope's.
func scopeNamed(name string) Scope {
	for i, known := range scopeNames {
		if name == known {
			return 1 << i
		}
	}
	return 0
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

// Caller is who calls. What it may do does not change; it may be shared by calls.
type Caller struct {
	Identity string // idempotency keys, rates and logs are by identity; never the credential
	Name     string // what it may say as `from` without ScopePublishAsUser; empty: nothing
	Scopes   Scope

	expires time.Time     // a stream of the caller ends then; zero: never
	rate    *limit.Bucket // of its publishes; nil: none
	claims  claims
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

// claims are a caller's messages in another's name. Each is counted, and once a second the log has one.
type claims struct {
	n    atomic.Uint64
	told atomic.Int64 // when, in Unix nanoseconds
}

// note tells of a message in the name of from.
func (c *claims) note(ctx context.Context, log *slog.Logger, who *Caller, from string) {
	n, now := c.n.Add(1), time.Now().UnixNano()
	if last := c.told.Load(); now-last >= int64(logEvery) && c.told.CompareAndSwap(last, now) {
		log.InfoContext(ctx, "published as another; others within a second are counted", "caller", who.Identity, "from", from, "messages_total", n)
	}
}

// logEvery bounds what callers and strangers can write into the log.
const logEvery = time.Second
