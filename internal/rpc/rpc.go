// Package rpc is the gRPC face of a node: it turns requests into calls of publish and answers into the contract of
// realtime.v1, behind one chain of interceptors that unary calls and streams share.
//
// It holds no state of rooms and decides nothing about delivery. Errors leave it by one table (errors.go) and no other way:
// what is not in the table leaves as a fixed text, its cause is logged once. server listens for it.
package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/broker"
	"github.com/slack5/realtime/internal/control"
	"github.com/slack5/realtime/internal/hub"
	"github.com/slack5/realtime/internal/presence"
	"github.com/slack5/realtime/internal/publish"
)

// Config of a Server.
type Config struct {
	Reflection    bool          // describe the services to whoever asks: for development
	Timeout       time.Duration // of a call whose caller set none, and what calls under way may take at the end; default 5 s
	ConnectionAge time.Duration // callers are asked to connect anew after it, a tenth more or less; default 10 min
	Stats         stats.Handler // traces and call metrics; nil: none
	Connections   int           // at once; further ones are closed. Default 1,000
	TLS           *tls.Config   // nil: plaintext
	// Who may call; if there is none of all three, everyone: by keys of at least MinKeyBytes, several while one replaces another;
	// by tokens, which Verify judges without waiting for anything; by the names in certificates, which TLS must ask for and verify.
	Keys   [][]byte
	Verify func(token string) (auth.Service, error)
	Names  Names
	// Rate is how many publishes a second each identity may send, as many at once; 0: any.
	Rate int
	// TokenLifetime is the longest life of a session's token: so long a revocation stands; default 24 h.
	TokenLifetime time.Duration
}

const (
	defaultTimeout  = 5 * time.Second
	defaultAge      = 10 * time.Minute // so that callers behind one address spread over new nodes
	ageGrace        = 3 * time.Minute  // for the calls under way when a connection has reached it
	ageSlack        = 30 * time.Second // of it: a stream ends by itself so long after the last GOAWAY may have come, well before the forced close
	maxRequestBytes = 4 << 20          // the contract's bound of a batch; gRPC itself answers above it
	maxStreams      = 1000             // a connection's parallel calls
	minPing         = 10 * time.Second // a caller that pings more often is cut
	maxConnections  = 1000
	quiet           = time.Minute      // a connection without a sign of life for so long is asked for one
	handshake       = 10 * time.Second // for a connection's preface
	workers         = 64               // goroutines kept for calls, whose stacks have grown already; more calls get new ones
)

// Server is a gRPC server that is not serving until SetServing.
type Server struct {
	grpc      *grpc.Server
	health    *health.Server
	chain     *chain
	door      *doorman
	publisher *publisher
	streams   *subscriber
	watches   *sync.WaitGroup    // of goroutines that send to watchers
	end       context.CancelFunc // of streams

	connections int
	connected   atomic.Int64
	full        counter // connections that were refused
}

// services are all of the contract that a node answers; health speaks of each.
var services = []string{
	realtimev1.PublisherService_ServiceDesc.ServiceName,
	realtimev1.SubscriberService_ServiceDesc.ServiceName,
	realtimev1.PresenceService_ServiceDesc.ServiceName,
	realtimev1.ControlService_ServiceDesc.ServiceName,
}

// Parts are what of a node the services work with.
type Parts struct {
	Publisher *publish.Publisher
	Broker    broker.Broker
	Hub       *hub.Hub
	Presence  *presence.Presence // nil: turned off
	Control   *control.Asker
}

// New makes a Server over a node's parts. It serves nothing yet, but has goroutines that wait for calls: Shutdown ends them. Streams live on
// base until then.
func New(base context.Context, cfg Config, p Parts, logger *slog.Logger) *Server {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.ConnectionAge == 0 {
		cfg.ConnectionAge = defaultAge
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = auth.DefaultMaxLifetime
	}
	if cfg.Connections == 0 {
		cfg.Connections = maxConnections
	}
	logger = logger.With("component", "rpc")
	door := newDoorman(&cfg, logger)
	ending, end := context.WithCancel(base)
	// A connection's GOAWAY comes at most a tenth after its age, its forced close the grace later: a stream ends between.
	c := &chain{log: logger, timeout: cfg.Timeout, lasting: cfg.ConnectionAge + cfg.ConnectionAge/10 + ageSlack, ending: ending, calls: newTally()}
	opts := []grpc.ServerOption{
		grpc.InTapHandle(door.tap), grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream),
		grpc.MaxRecvMsgSize(maxRequestBytes), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: cfg.ConnectionAge, MaxConnectionAgeGrace: ageGrace, Time: quiet}),
		grpc.NumStreamWorkers(workers),
	}
	if cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg.TLS)))
	}
	if cfg.Stats != nil {
		opts = append(opts, grpc.StatsHandler(cfg.Stats))
	}
	s := &Server{
		grpc: grpc.NewServer(opts...), health: health.NewServer(), chain: c, door: door,
		publisher: &publisher{chain: c, publish: p.Publisher, broker: p.Broker}, streams: &subscriber{hub: p.Hub}, end: end,
		watches: new(sync.WaitGroup), connections: cfg.Connections,
	}
	realtimev1.RegisterPublisherServiceServer(s.grpc, s.publisher)
	realtimev1.RegisterSubscriberServiceServer(s.grpc, s.streams)
	if p.Presence == nil {
		realtimev1.RegisterPresenceServiceServer(s.grpc, noPresences{})
	} else {
		realtimev1.RegisterPresenceServiceServer(s.grpc, newPresences(p, s.watches))
	}
	realtimev1.RegisterControlServiceServer(s.grpc, &controls{ask: p.Control, log: logger, lifetime: cfg.TokenLifetime + auth.Leeway})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.SetServing(false)
	if cfg.Reflection {
		reflection.Register(s.grpc)
	}
	return s
}

// Serve takes connections from l until Shutdown, then returns nil; l is closed then. Any other end is an error.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(dated{l, int64(s.connections), &s.connected, &s.full}); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// SetServing sets what health answers for "" and for each service. After Shutdown it does nothing.
func (s *Server) SetServing(ok bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range append([]string{""}, services...) {
		s.health.SetServingStatus(name, state)
	}
}
