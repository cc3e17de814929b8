// Package rpc is the gRPC face of a node: it turns requests into calls of publish and answers into the contract of
// realtime.v1, behind one chain of interceptors that unary calls and streams share.
//
// It holds no state of rooms and decides nothing about delivery. Errors leave it by one table (errors.go) and no other way:
// what is not in the table leaves as a fixed text, its cause is logged once. server listens for it.
package rpc

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/publish"
)

// Config of a Server.
type Config struct {
	Reflection bool          // describe the services to whoever asks: for development
	Timeout    time.Duration // of a call whose caller set none; default 5 s
	Stats      stats.Handler // traces and call metrics; nil: none
}

const (
	defaultTimeout  = 5 * time.Second
	maxRequestBytes = 4 << 20 // the contract's bound of a batch; gRPC itself answers above it
	maxStreams      = 1000    // a connection's parallel calls
	minPing         = 10 * time.Second
)

// Server is a gRPC server that is not serving until SetServing.
type Server struct {
	*grpc.Server
	health *health.Server
}

// services are all of the contract that a node answers; health speaks of each.
var services = []string{
	realtimev1.PublisherService_ServiceDesc.ServiceName,
	realtimev1.SubscriberService_ServiceDesc.ServiceName,
	realtimev1.PresenceService_ServiceDesc.ServiceName,
	realtimev1.ControlService_ServiceDesc.ServiceName,
}

// New makes a Server over p. It starts nothing.
func New(cfg Config, p *publish.Publisher, logger *slog.Logger) *Server {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &chain{log: logger.With("component", "rpc"), timeout: cfg.Timeout}
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream),
		grpc.MaxRecvMsgSize(maxRequestBytes), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.SharedWriteBuffer(true),
	}
	if cfg.Stats != nil {
		opts = append(opts, grpc.StatsHandler(cfg.Stats))
	}
	s := &Server{Server: grpc.NewServer(opts...), health: health.NewServer()}
	realtimev1.RegisterPublisherServiceServer(s, &publisher{publish: p})
	realtimev1.RegisterSubscriberServiceServer(s, realtimev1.UnimplementedSubscriberServiceServer{})
	realtimev1.RegisterPresenceServiceServer(s, realtimev1.UnimplementedPresenceServiceServer{})
	realtimev1.RegisterControlServiceServer(s, realtimev1.UnimplementedControlServiceServer{})
	healthpb.RegisterHealthServer(s, s.health)
	s.SetServing(false)
	if cfg.Reflection {
		reflection.Register(s)
	}
	return s
}

// SetServing sets what health answers for "" and for each service.
func (s *Server) SetServing(ok bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range append([]string{""}, services...) {
		s.health.SetServingStatus(name, state)
	}
}

// Shutdown ends streams of health watchers, lets calls in flight finish, and stops at once when ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	s.GracefulStop()
}
