package server

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// healthEvery is how often gRPC's health is made what /readyz would say.
const healthEvery = 500 * time.Millisecond

// health is what gRPC's health was told last.
type health struct {
	mu sync.Mutex
	ok bool
}

// readiness is what health and readiness answer.
type readiness struct {
	Status   string    `json:"status"`
	Reasons  []string  `json:"reasons,omitempty"`
	Headroom *headroom `json:"headroom,omitempty"`
}

type headroom struct {
	Sessions int   `json:"sessions"`
	LogBytes int64 `json:"log_bytes"`
}

// judge tells whether sessions should come here: ready, degraded, unready. It is about this node only; being full is not unready.
func (s *Server) judge() (status string, reasons []string) {
	switch s.state.Load() {
	case starting:
		return "unready", []string{"starting"}
	case draining:
		return "unready", []string{"draining"}
	}
	if s.verifier != nil && !s.verifier.Usable() && !s.cfg.Anonymous && !s.cfg.Dev { // other nodes may have keys
		return "unready", []string{"no_keys"}
	}
	unready, degraded := s.redis.judge()
	switch {
	case unready != "":
		return "unready", []string{unready}
	case degraded != "":
		return "degraded", []string{degraded}
	}
	return "ready", nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	st := s.node.Stats()
	h := readiness{Headroom: &headroom{Sessions: max(0, st.MaxSessions-st.Sessions), LogBytes: max(0, st.MaxLogBytes-st.LogBytes)}}
	h.Status, h.Reasons = s.judge()
	code := http.StatusOK
	if h.Status == "unready" {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, h)
}

// tellHealth makes gRPC's health what readiness is.
func (s *Server) tellHealth() {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	status, _ := s.judge()
	s.setServing(status != "unready")
}

// beginServing comes before the state says so: who sees the state may ask gRPC.
func (s *Server) beginServing() {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.setServing(true)
}

// setServing tells gRPC's health; its lock is held.
func (s *Server) setServing(ok bool) {
	if ok != s.health.ok {
		s.health.ok = ok
		s.rpc.SetServing(ok)
	}
}

// watchHealth does that until ctx ends; a node that is alone has nothing to watch.
func (s *Server) watchHealth(ctx context.Context) {
	s.tellHealth()
	if s.redis == nil {
		return
	}
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.tellHealth()
		}
	}
}
