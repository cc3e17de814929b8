package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
	"github.com/slack5/realtime/internal/auth"
	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/rpc"
)

const sharedSecret = "a secret of users and of services: 0123456789"

// bearing is a context whose calls bear a token of the shared secret.
func bearing(t *testing.T, change func(*auth.Claims)) (context.Context, string) {
	t.Helper()
	c := auth.Claims{User: "shop", Expires: time.Now().Add(time.Hour)}
	change(&c)
	token, err := auth.SignWith([]byte(sharedSecret), c)
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token), token
}

// Even where one key signs both, and users' tokens need no audience.
func TestAUsersTokenIsNoServicesAndAServicesNoUsers(t *testing.T) {
	t.Setenv("A_SHARED_KEY", sharedSecret)
	r := StartServer(t, "--dev=false", "--jwt-key=env:A_SHARED_KEY", "--grpc-jwt-key=env:A_SHARED_KEY", "--grpc-jwt-audience=backends", "--drain-delay=0s", "--drain-window=0s")
	for name, c := range map[string]struct {
		change        func(*auth.Claims)
		session, call bool
	}{
		"a user's":                      {func(*auth.Claims) {}, true, false},
		"a user's with rooms":           {func(c *auth.Claims) { c.Rooms = map[string]string{"*": "rwph"} }, true, false},
		"a user's with a scope":         {func(c *auth.Claims) { c.Scope = "publish" }, true, false},
		"a user's for services":         {func(c *auth.Claims) { c.Audience, c.Rooms = "backends", map[string]string{"*": "rwph"} }, false, false},
		"a service's":                   {func(c *auth.Claims) { c.Audience, c.Scope = "backends", "publish" }, false, true},
		"a service's that has no scope": {func(c *auth.Claims) { c.Audience = "backends" }, false, false},
		"a service's that has ended":    {func(c *auth.Claims) { c.Audience, c.Scope, c.Expires = "backends", "publish", time.Unix(1, 0) }, false, false},
		"a service's for everything there": {func(c *auth.Claims) {
			c.Audience, c.Scope = "backends", "publish publish:as-user subscribe presence control"
		}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, token := bearing(t, c.change)
			_, err := r.publisher().Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}})
			if want := map[bool]codes.Code{true: codes.OK, false: codes.Unauthenticated}[c.call]; status.Code(err) != want {
				t.Errorf("a call: %v, want %v", err, want)
			}
			want := map[bool]int{true: http.StatusSwitchingProtocols, false: http.StatusUnauthorized}[c.session]
			if got := raw(t, r.edgeL.Addr().String(), "GET /ws/general HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer "+token+"\r\n\r\n").StatusCode; got != want {
				t.Errorf("a session: %d, want %d", got, want)
			}
		})
	}
	if strings.Contains(r.log.String(), sharedSecret) {
		t.Error("the key is in the log")
	}
}

// company is an authority whose certificates may vouch for backends.
type company struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCompany(t testing.TB) *company {
	t.Helper()
	c := &company{t: t}
	c.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "company"}, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &c.key.PublicKey, c.key)
	if err == nil {
		c.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *company) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// vouch makes a certificate.
func (c *company) vouch(change func(*x509.Certificate)) tls.Certificate {
	c.t.Helper()
	key := newKey(c.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"shop.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &key.PublicKey, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func uri(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestBackendsAreKnownByTheNamesInTheirCertificates(t *testing.T) {
	ours, theirs := newCompany(t), newCompany(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, ours.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	r, p := secure(t, "--grpc-tls-ca="+ca, "--grpc-tls-san=shop.example", "--grpc-tls-san=spiffe://example/eye=presence+subscribe")
	good := func(*x509.Certificate) {}
	eye := func(c *x509.Certificate) { c.DNSNames, c.URIs = nil, []*url.URL{uri(t, "spiffe://example/eye")} }
	for name, c := range map[string]struct {
		shows []tls.Certificate
		from  string
		want  codes.Code // Unavailable: the handshake is refused
	}{
		"a name that may call":     {[]tls.Certificate{ours.vouch(good)}, "", codes.OK},
		"in another's name too":    {[]tls.Certificate{ours.vouch(good)}, "ada", codes.OK},
		"a name in capitals":       {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames[0] = "Shop.Example" })}, "", codes.OK},
		"one name of several":      {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "shop.example"} })}, "", codes.OK},
		"a name with other scopes": {[]tls.Certificate{ours.vouch(eye)}, "", codes.PermissionDenied},
		"none":                     {nil, "", codes.Unavailable},
		"another authority's":      {[]tls.Certificate{theirs.vouch(good)}, "", codes.Unavailable},
		"a name that may not":      {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames[0] = "mail.example" })}, "", codes.Unavailable},
		"a longer name":            {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames[0] = "evil.shop.example" })}, "", codes.Unavailable},
		"a pattern":                {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames[0] = "*.example" })}, "", codes.Unavailable},
		"the name as subject":      {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.DNSNames, c.Subject = nil, pkix.Name{CommonName: "shop.example"} })}, "", codes.Unavailable},
		"a server's":               {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, "", codes.Unavailable},
		"an old one":               {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.NotAfter = time.Unix(1e9, 0) })}, "", codes.Unavailable},
		"not yet one":              {[]tls.Certificate{ours.vouch(func(c *x509.Certificate) { c.NotBefore = time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC) })}, "", codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := p.trust()
			cfg.Certificates = c.shows
			r.creds = credentials.NewTLS(cfg)
			_, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{From: c.from}})
			if status.Code(err) != c.want {
				t.Errorf("%v, want %v", err, c.want)
			}
			bad := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer hunter2")
			if _, err := r.publisher().Publish(bad, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}}); c.want == codes.OK && status.Code(err) != codes.Unauthenticated {
				t.Errorf("with a bad key as well: %v", err)
			}
		})
	}
	if got := r.log.find("INFO", `"caller":"certificate/shop.example"`); len(got) == 0 {
		t.Error("who publishes as another is told nowhere")
	}
}

func TestANewAuthorityCountsWithoutARestart(t *testing.T) {
	first, second := newCompany(t), newCompany(t)
	p, log := newPair(t), &journal{}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	p.write(ca, first.pem())
	cfg := &config.Serve{GRPCTLSCert: p.cert, GRPCTLSKey: p.key}
	cfg.GRPCTLSCA = ca
	served, err := grpcTLS(cfg, rpc.Names{{Name: "shop.example", Scopes: rpc.AllScopes}}, log.logger(t))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		trusts := func(c *company) bool {
			now, err := served.GetConfigForClient(nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.cert.Verify(x509.VerifyOptions{Roots: now.ClientCAs, CurrentTime: time.Unix(1e9, 0)})
			return err == nil
		}
		time.Sleep(time.Minute) // the file was read in real time
		if !trusts(first) || trusts(second) {
			t.Error("not the authority of the file")
		}
		for i, harm := range []func(){func() { p.write(ca, []byte("-----BEGIN")) }, func() { _ = os.Remove(ca) }} {
			harm()
			for range 3 {
				time.Sleep(lookEvery)
				if !trusts(first) {
					t.Fatal("what cannot be used took the place of the one before")
				}
			}
			if got := log.find("ERROR", "certificates of an authority not usable"); len(got) != i+1 {
				t.Errorf("harm %d is told %d times in all", i, len(got))
			}
		}
		p.write(ca, second.pem())
		time.Sleep(lookEvery)
		if trusts(first) || !trusts(second) {
			t.Error("the new authority does not count")
		}
		if got := log.find("INFO", "certificates of an authority reloaded"); len(got) != 1 {
			t.Errorf("told %d times", len(got))
		}
	})
}

func TestWhatIsWrongWithHowBackendsAreKnownFailsTheStart(t *testing.T) {
	p := newPair(t)
	t.Setenv("A_SHORT_KEY", "0123456789abcde")
	tlsOf := []string{"--grpc-tls-cert=" + p.cert, "--grpc-tls-key=" + p.key}
	failsToStart(t, append(tlsOf, "--grpc-tls-ca="+p.cert+".not", "--grpc-tls-san=a"), "--grpc-tls-ca", "no such file")
	failsToStart(t, append(tlsOf, "--grpc-tls-ca="+p.key, "--grpc-tls-san=a"), "--grpc-tls-ca", "no certificate")
	failsToStart(t, append(tlsOf, "--grpc-tls-ca="+p.cert, "--grpc-tls-san=a=publish+all"), "--grpc-tls-san", `scope "all" is none of publish`)
	failsToStart(t, []string{"--grpc-jwt-key=env:A_SHORT_KEY", "--grpc-jwt-audience=a"}, "--grpc-jwt-key", "A_SHORT_KEY")
}

func TestServicesTokensAreJudgedByAKeySet(t *testing.T) {
	k := newSigner(t, "first")
	var says atomic.Pointer[string]
	now := set(k)
	says.Store(&now)
	r := StartServer(t, "--grpc-jwks-url="+publishes(t, &says), "--grpc-jwt-audience=backends", "--grpc-jwt-issuer=id")
	j := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"sub": "shop", "iss": "id", "aud": "backends", "scope": "publish", "exp": time.Now().Add(time.Hour).Unix()})
	j.Header["kid"] = k.kid
	token, err := j.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	if _, err := r.publisher().Publish(ctx, &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}}); err != nil {
		t.Error(err)
	}
	if _, err := healthpb.NewHealthClient(r.dial()).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health without a credential: %v", err)
	}
}
