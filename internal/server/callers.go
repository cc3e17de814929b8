package server

import (
	"fmt"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/rpc"
)

// callers says who may call, and how.
func (s *Server) callers() (rpc.Config, error) {
	c := s.cfg
	calls := rpc.Config{Reflection: c.Dev, Rate: c.GRPCRateLimit(), Stats: s.telemetry.Calls(), Connections: c.GRPCConnections, TokenLifetime: c.JWTMaxLifetime}
	for _, k := range c.GRPCKey {
		secret, err := k.Read(config.MinGRPCKey)
		if err != nil {
			return calls, fmt.Errorf("--grpc-key: %w", err)
		}
		calls.Keys = append(calls.Keys, []byte(secret))
	}
	for _, san := range c.SANs() {
		name := rpc.Name{Name: san.Name, Scopes: rpc.AllScopes}
		if san.Scopes != nil {
			var err error
			if name.Scopes, err = rpc.ParseScope(san.Scopes); err != nil {
				return calls, fmt.Errorf("--grpc-tls-san: %s: %w", san.Name, err)
			}
		}
		calls.Names = append(calls.Names, name)
	}
	if c.JWT() {
		v, err := auth.New(auth.Config{
			Keys: c.GRPCJWTKey, KeySets: c.GRPCJWKSURL, Algorithms: c.GRPCJWTAlg, Issuer: c.GRPCJWTIssuer, Audience: c.GRPCJWTAudience,
			MaxLifetime: c.JWTMaxLifetime, PlainHTTP: c.JWKSInsecure, Logger: s.log,
		})
		if err != nil {
			return calls, fmt.Errorf("--grpc-jwt-key, --grpc-jwks-url: %w", err)
		}
		s.services, calls.Verify = v, v.VerifyService
	}
	var err error
	calls.TLS, err = grpcTLS(c, calls.Names, s.log)
	return calls, err
}
