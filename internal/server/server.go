// Package server is the service: a node with its three listeners (sessions, gRPC, operations), built from the options and
// run until it is told to stop. New opens everything, so that a port in use or a bad option shows at once; Run serves.
//
// It decides nothing about rooms. Two contexts are kept apart: stop, which begins the orderly end, and base, on which
// sessions and broker live until that end is over.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/hooks"
	"github.com/slack5/realtime/internal/node"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/rpc"
	"github.com/slack5/realtime/internal/telemetry"
)

// What the HTTP listeners allow a peer.
const (
	headerTimeout  = 10 * time.Second // a handshake that does not come
	idleTimeout    = 60 * time.Second
	maxHeaderBytes = 16 << 10 // tokens and cookies included
)

// Server is a node with its listeners.
type Server struct {
	cfg       *config.Serve
	out       io.Writer
	log       *slog.Logger
	node      *node.Node
	sessions  http.Handler
	hooks     *hooks.Chain // nil: none
	rpc       *rpc.Server
	redis     *redisBus // nil: this node is alone
	telemetry *telemetry.Providers

	devSecret []byte         // signs the tokens that development hands out; nil: none
	verifier  *auth.Verifier // judges sessions' tokens; nil: there are no keys
	services  *auth.Verifier // judges services' tokens; nil likewise

	edge, ops          *http.Server
	edgeL, grpcL, opsL net.Listener
	closers            []func() error // of what New opened, to be run last first
	state              atomic.Int32
	health             health
	over               time.Time // when the end must be over; set when it begins
}

const (
	starting int32 = iota
	serving
	draining
)

// New builds a server and opens its listeners. ctx bounds their opening, not what is opened. out gets the lines that tell a
// person where to go. If it fails, nothing is left open.
func New(ctx context.Context, cfg *config.Serve, out io.Writer, logger *slog.Logger) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, out: out, log: logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	number := s.number(ctx)
	if s.telemetry, err = telemetry.New(ctx, telemetry.Config{Version: Version(), Node: node.NameOf(number)}); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { return s.flush(context.WithoutCancel(ctx)) })
	edgeTLS, err := serverTLS("edge", cfg.EdgeTLSCert, cfg.EdgeTLSKey, logger)
	if err != nil {
		return nil, err
	}
	calls, err := s.callers()
	if err != nil {
		return nil, err
	}
	if err = s.compose(context.WithoutCancel(ctx), number, calls); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() error { s.rpc.Shutdown(context.WithoutCancel(ctx)); return nil })
	if s.edgeL, err = s.listen(ctx, "--edge-addr", cfg.EdgeAddr, sessionSocket(int(cfg.SndbufBytes))); err != nil {
		return nil, err
	}
	if err = s.behindProxies(); err != nil {
		return nil, err
	}
	if edgeTLS != nil {
		s.edgeL = tls.NewListener(s.edgeL, edgeTLS)
	}
	if s.grpcL, err = s.listen(ctx, "--grpc-addr", cfg.GRPCAddr, net.ListenConfig{}); err != nil {
		return nil, err
	}
	if s.opsL, err = s.listen(ctx, "--ops-addr", cfg.OpsAddr, net.ListenConfig{}); err != nil {
		return nil, err
	}
	quiet := slog.NewLogLogger(logger.Handler(), slog.LevelDebug) // what peers do wrong in HTTP is not ours to warn of
	s.edge = &http.Server{Handler: s.edgeHandler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: quiet}
	s.ops = &http.Server{Handler: s.opsHandler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: quiet}
	return s, nil
}

func (s *Server) listen(ctx context.Context, option, addr string, lc net.ListenConfig) (net.Listener, error) {
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: choose another address with %s", option, err, option)
	}
	s.closers = append(s.closers, func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return l, nil
}

func (s *Server) close() (err error) {
	for _, closer := range slices.Backward(s.closers) {
		err = errors.Join(err, closer())
	}
	s.closers = nil
	return err
}

// Addrs tells where the listeners are: sessions, gRPC, operations.
func (s *Server) Addrs() (edge, grpc, ops string) {
	return s.edgeL.Addr().String(), s.grpcL.Addr().String(), s.opsL.Addr().String()
}

// Run serves until ctx ends or a part fails, then ends in order within the drain timeout. It returns the failure, or nil.
func (s *Server) Run(ctx context.Context) error {
	defer func() { _ = s.close() }()
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, stop := errgroup.WithContext(ctx)
	g.Go(func() error {
		found, err := s.redis.find(stop, s.cfg.RedisWait)
		if err != nil || stop.Err() != nil {
			return err
		}
		if !found {
			g.Go(func() error { return redis.FindLater(stop, s.redis.opts) })
		}
		return s.node.Run(base)
	})
	tried := make(chan struct{})
	if s.services != nil {
		g.Go(func() error { s.services.Run(base, func() { close(tried) }); return nil })
	} else {
		close(tried)
	}
	g.Go(func() error { return served("ops listener", s.ops.Serve(s.opsL)) })
	g.Go(func() error {
		for _, begun := range []<-chan struct{}{s.node.Ready(), tried} {
			select {
			case <-begun:
			case <-stop.Done():
				return nil
			}
		}
		g.Go(func() error { return served("edge listener", s.edge.Serve(s.edgeL)) })
		g.Go(func() error { return served("gRPC listener", s.rpc.Serve(s.grpcL)) })
		s.beginServing()
		if s.state.CompareAndSwap(starting, serving) { // else the end has begun already
			s.announce()
		}
		s.watchHealth(stop)
		return nil
	})
	g.Go(func() error {
		<-stop.Done()
		s.stop(base)
		end()
		return nil
	})
	err := g.Wait()
	s.log.Info("stopped")
	return err
}

func served(what string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// announce tells a person where to go: one line per listener.
func (s *Server) announce() {
	edge, grpc, ops := s.Addrs()
	secure := ""
	if s.cfg.EdgeTLSCert != "" {
		secure = "s"
	}
	fmt.Fprintf(s.out, "sessions    ws%s://%s/ws/{room}\n", secure, edge)
	fmt.Fprintf(s.out, "gRPC        %s\n", grpc)
	fmt.Fprintf(s.out, "operations  http://%s/metrics /healthz /readyz\n", ops)
	if s.cfg.Dev {
		fmt.Fprintf(s.out, "\nopen        http%s://%s/\n", secure, edge)
	}
	s.log.Info("serving", "node", s.node.Name(), "edge", edge, "grpc", grpc, "ops", ops, "dev", s.cfg.Dev)
}

// stop is the orderly end: unready first, then nobody new, then everyone out over the window, all within one budget. It
// returns when sessions and calls have ended or the budget has.
func (s *Server) stop(base context.Context) {
	begin := time.Now()
	s.over = begin.Add(s.cfg.DrainTimeout)
	wasServing := s.state.Swap(draining) == serving
	s.tellHealth()
	ctx, cancel := context.WithDeadline(base, s.over.Add(-s.kept()))
	defer cancel()
	if wasServing {
		s.log.Info("draining", "sessions", s.node.Stats().Sessions, "timeout", s.cfg.DrainTimeout.String())
		if !s.cfg.Dev { // nobody balances a developer's load
			pause(ctx, s.cfg.DrainDelay)
		}
	}
	var g errgroup.Group
	g.Go(func() error { s.rpc.Shutdown(ctx); return nil })
	if wasServing {
		g.Go(func() error { s.node.Drain(ctx); return nil })
	}
	_ = g.Wait()
	for _, h := range []*http.Server{s.edge, s.ops} {
		quick, cancel := context.WithTimeout(ctx, time.Second)
		if h.Shutdown(quick) != nil {
			_ = h.Close()
		}
		cancel()
	}
	s.log.Info("drained", "took", time.Since(begin).Round(time.Millisecond).String())
}

// flushTime is what of the drain's budget is kept for telemetry that is pushed: without it the end of a bad drain, of which one
// wants to know most, would go untold.
const flushTime = 2 * time.Second

// kept is that, and what the hook for disconnecting gets.
func (s *Server) kept() (d time.Duration) {
	if s.telemetry.Pushing() {
		d = min(flushTime, s.cfg.DrainTimeout/10)
	}
	if s.hooks.Asks(hooks.Disconnect) {
		d += s.hookFlush()
	}
	return d
}

// flush ends telemetry within the drain's budget.
func (s *Server) flush(ctx context.Context) error {
	over := s.over
	if over.IsZero() { // it never ran
		over = time.Now().Add(flushTime)
	}
	ctx, cancel := context.WithDeadline(ctx, over)
	defer cancel()
	if err := s.telemetry.Shutdown(ctx); err != nil {
		s.log.Warn("telemetry not flushed", "err", err)
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
