package server

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/edge"
	"github.com/slack5/realtime/internal/message"
)

// edgeConfig says who may come in, and what sessions may do.
func (s *Server) edgeConfig() (edge.Config, error) {
	c := s.cfg
	e := edge.Config{
		MaxSessions: s.sessionCap(), Origins: c.Origin, LoopbackOrigins: c.Dev,
		NoQueryToken: !c.QueryToken, AwayAfter: c.PresenceAway, HookHeaders: c.HooksHeader,
		Hosts: c.Host, TrustedProxies: c.TrustedProxy, MaxRooms: c.SessionRooms, AssemblyTimeout: c.MessageTimeout, Limits: limitsOf(&c.Limits),
		RefuseSessions: c.MaxSessionsPolicy == "refuse",
		Types:          make(map[message.Type]edge.TypeConfig),
	}
	if c.PresenceAway == 0 {
		e.AwayAfter = -1 // 0 would be the default
	}
	for t, kind := range c.Type {
		e.Types[message.Type(t)] = edge.TypeConfig{Ephemeral: kind == "ephemeral"}
	}
	if c.Dev && len(c.Type) == 0 {
		e.Types["typing"] = edge.TypeConfig{Ephemeral: true} // the demo page's
	}
	if c.Grant != nil {
		g, err := auth.CompileGrants(c.Grant)
		if err != nil {
			return e, fmt.Errorf("--grant: %w", err)
		}
		e.Grants = g
	}
	issuers := c.Issuers()
	a := auth.Config{
		Keys: c.JWTKey, KeySets: issuers[0].KeySets, Algorithms: c.JWTAlg, Issuer: issuers[0].Name, Audience: issuers[0].Audience,
		MaxLifetime: c.JWTMaxLifetime, Rooms: c.Grant, NotFor: c.GRPCJWTAudience, PlainHTTP: c.JWKSInsecure, Logger: s.log,
	}
	for _, i := range issuers[1:] {
		a.Issuers = append(a.Issuers, auth.Issuer(i))
	}
	known := len(a.Keys) > 0 || len(a.KeySets) > 0 || len(a.Issuers) > 0
	e.Anonymous = c.Anonymous || c.Dev || !known && c.HooksDecide()
	if c.Dev && !known {
		s.devSecret = []byte(rand.Text() + rand.Text())
		a.Secret = s.devSecret
	}
	if !known && a.Secret == nil {
		return e, nil
	}
	v, err := auth.New(a)
	if err != nil {
		return e, fmt.Errorf("--jwt-key, --jwks-url, --jwks-file: %w", err)
	}
	s.verifier, e.Verify, e.Refresh = v, v.Verify, v.Run
	return e, nil
}

// devLifetime is that of the tokens that development hands out.
const devLifetime = time.Hour

// devToken makes anybody the user he says he is: in development only, and only for pages of this node. A page of another
// origin cannot read the answer, and one whose name was pointed here (DNS rebinding) shows in Host.
func (s *Server) devToken(w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	refuse := func(status int, code, text string) {
		answer(w, status, map[string]map[string]string{"error": {"code": code, "message": text}})
	}
	if s.devSecret == nil {
		refuse(http.StatusNotFound, "no_dev_key", "tokens come from whoever has the key of --jwt-key: realtime token makes one")
		return
	}
	if !addressed(r.Host) {
		refuse(http.StatusForbidden, "bad_host", "ask by localhost or the address")
		return
	}
	if err := message.CheckUser(user); err != nil {
		refuse(http.StatusBadRequest, "bad_user", err.Error())
		return
	}
	now := time.Now().Truncate(time.Second)
	expires := now.Add(devLifetime)
	token, err := auth.SignWith(s.devSecret, auth.Claims{User: user, IssuedAt: now, Expires: expires})
	if err != nil {
		s.log.Error("no token made", "err", err)
		refuse(http.StatusInternalServerError, "internal", "no token could be made")
		return
	}
	answer(w, http.StatusOK, struct {
		Token   string    `json:"token"`
		User    string    `json:"user"`
		Expires time.Time `json:"expires"`
	}{token, user, expires.UTC()})
}

// addressed tells a host that is an address or localhost from a name, which anybody may point anywhere.
func addressed(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	_, err = netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

// answer sends JSON.
func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.MarshalWrite(w, body, json.Deterministic(true)) // the peer has left: nobody to tell
}
