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
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	realtimev1 "github.com/slack5/realtime/gen/realtime/v1"
)

// pair is a certificate of its own authority for 127.0.0.1, in two files.
type pair struct {
	t         testing.TB
	cert, key string
	roots     *x509.CertPool // of the newest
}

func newPair(t testing.TB) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{t: t, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	p.renew("first")
	return p
}

// renew puts a new certificate with this name in place of the one before.
func (p *pair) renew(name string) {
	p.t.Helper()
	cert, key := p.make(name)
	p.write(p.cert, cert)
	p.write(p.key, key)
	p.roots = x509.NewCertPool()
	p.roots.AppendCertsFromPEM(cert)
}

func (p *pair) make(name string) (cert, key []byte) {
	p.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		p.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		p.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// version is what every write of a test gives its file for a time: none has that of the one before.
var version = time.Unix(1_000_000_000, 0)

func (p *pair) write(name string, b []byte) {
	p.t.Helper()
	version = version.Add(time.Second)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chtimes(name, version, version); err != nil {
		p.t.Fatal(err)
	}
}

// trust is how who trusts the newest certificate connects.
func (p *pair) trust(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: p.roots, NextProtos: protocols}
}

// secure is a server with TLS on both listeners.
func secure(t *testing.T, args ...string) (*Running, *pair) {
	t.Helper()
	p := newPair(t)
	args = append([]string{"--drain-delay=0s", "--drain-window=0s"}, args...)
	args = append(args, "--edge-tls-cert="+p.cert, "--edge-tls-key="+p.key, "--grpc-tls-cert="+p.cert, "--grpc-tls-key="+p.key)
	r := startWith(t, func(s *Server) { s.cfg.Dev = false }, args...)
	r.ws = strings.Replace(r.ws, "ws:", "wss:", 1)
	transport := &http.Transport{TLSClientConfig: p.trust()}
	r.hc = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	r.creds = credentials.NewTLS(p.trust())
	return r, p
}

func TestASessionAndABackendOverTLSFromTheirJoinToTheDrain(t *testing.T) {
	r, _ := secure(t, "--drain-window=200ms", "--drain-timeout=10s")
	a, b, pub := r.join("general"), r.join("general"), r.publisher()
	big := `"` + strings.Repeat("a", 60<<10) + `"` // more than a TLS record
	if _, err := pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: big}}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*guest{a, b} {
		if f := s.want("chat"); string(f.Data) != big {
			t.Errorf("got %d bytes, want %d", len(f.Data), len(big))
		}
	}
	if err := a.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"chat","data":"from a session"}`)); err != nil {
		t.Fatal(err)
	}
	if f := b.want("chat"); string(f.Data) != `"from a session"` {
		t.Errorf("what a session sends arrives as %s", f.Data)
	}
	r.stop()
	for _, s := range []*guest{a, b} {
		s.want("reconnect")
		if code := s.closed(); code != 1012 {
			t.Errorf("closed with %d, want 1012", code)
		}
	}
	if _, err := r.wait(time.Now()); err != nil {
		t.Errorf("Run = %v", err)
	}
	for _, level := range []string{"WARN", "ERROR"} {
		if got := r.log.find(level, ""); got != nil {
			t.Errorf("logged %q", got)
		}
	}
}

func TestPeersThatAreDeadDoNotHoldUpTheEndOverTLS(t *testing.T) {
	r, p := secure(t, "--drain-window=100ms", "--drain-timeout=1s")
	var peers []net.Conn
	for range 5 {
		conn, err := tls.Dial("tcp", r.edgeL.Addr().String(), p.trust("http/1.1"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.NetConn().Close() }()
		shake(t, conn, "general")
		peers = append(peers, conn.NetConn())
	}
	pub := r.publisher()
	big := `"` + strings.Repeat("a", 60<<10) + `"`
	eventually(t, "their sockets are full", func() bool {
		_, _ = pub.Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{Data: big}}) // overloaded at last
		_, _, body := fetch(t, r.http+"/metrics")
		return strings.Contains(body, "realtime_sessions_blocked 5\n")
	})
	if _, err := r.end(); err != nil {
		t.Errorf("Run = %v", err)
	}
	for i, nc := range peers {
		_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("the connection of peer %d is still open", i)
		}
	}
}

func TestWhatEachListenerSpeaksOverTLS(t *testing.T) {
	r, p := secure(t)
	edge, rpc, _ := r.Addrs()
	for name, c := range map[string]struct {
		addr   string
		change func(*tls.Config)
		want   string // "": refused
	}{
		"HTTP/1.1 is offered to browsers": {edge, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, "http/1.1"},
		"HTTP/2 alone is not":             {edge, func(c *tls.Config) { c.NextProtos = []string{"h2"} }, ""},
		"HTTP/2 is gRPC's":                {rpc, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, "h2"},
		"TLS 1.2 to sessions":             {edge, func(c *tls.Config) { c.NextProtos, c.MaxVersion = []string{"http/1.1"}, tls.VersionTLS12 }, "http/1.1"},
		"TLS 1.1 is refused to sessions":  {edge, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, ""},
		"TLS 1.1 is refused to backends":  {rpc, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := p.trust()
			c.change(cfg)
			conn, err := tls.Dial("tcp", c.addr, cfg)
			if err != nil {
				if c.want != "" {
					t.Error(err)
				}
				return
			}
			defer func() { _ = conn.Close() }()
			if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
				t.Errorf("speaks %q, want %q", got, c.want)
			}
		})
	}
	r.creds = nil
	_, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a backend in plaintext: %v, want UNAVAILABLE", err)
	}
	if res := raw(t, edge, "GET /ws/general HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a session in plaintext: %d, want 400", res.StatusCode)
	}
	want := fmt.Sprintf("sessions    wss://%s/ws/{room}\n", edge)
	eventually(t, "it tells where to connect over TLS", func() bool { return strings.HasPrefix(r.printed.String(), want) })
}

// shown is the name in the certificate that a handshake shows.
func shown(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // it looks, and trusts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestARenewedCertificateIsShownWithoutARestart(t *testing.T) {
	r, p := secure(t)
	edge, rpc, _ := r.Addrs()
	for _, addr := range []string{edge, rpc} {
		if got := shown(t, addr); got != "first" {
			t.Errorf("%s shows %q", addr, got)
		}
	}
	s := r.join("general")
	p.renew("second")
	for _, addr := range []string{edge, rpc} {
		eventually(t, addr+" shows the new one", func() bool { return shown(t, addr) == "second" })
	}
	r.creds = credentials.NewTLS(p.trust())
	if _, err := r.publisher().Publish(t.Context(), &realtimev1.PublishRequest{Room: "general", Message: &realtimev1.MessageContent{}}); err != nil {
		t.Fatal(err)
	}
	s.want("chat") // who is connected stays
}

func TestABadNewCertificateLeavesTheOldOneAndIsToldOnce(t *testing.T) {
	p, log := newPair(t), &journal{}
	_, key := p.make("other")
	cfg, err := serverTLS("edge", p.cert, p.key, log.logger(t))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		name := func() string {
			c, err := cfg.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf.Subject.CommonName
		}
		time.Sleep(time.Minute) // the pair was loaded in real time
		if got := name(); got != "first" {
			t.Fatalf("shows %q", got)
		}
		cert, err := os.ReadFile(p.cert)
		if err != nil {
			t.Fatal(err)
		}
		for i, harm := range []func(){
			func() { p.write(p.key, key) }, // of another certificate
			func() { p.write(p.cert, []byte("-----BEGIN")) },
			func() { _ = os.Remove(p.cert) },
			func() { p.write(p.cert, cert); _ = os.Chmod(p.key, 0o644) },
		} {
			harm()
			for range 3 {
				time.Sleep(lookEvery)
				if got := name(); got != "first" {
					t.Fatalf("after harm %d it shows %q", i, got)
				}
			}
			if got := log.find("ERROR", "certificate not usable"); len(got) != i+1 {
				t.Fatalf("harm %d: told %d times in all, want %d: %q", i, len(got), i+1, got)
			}
		}
		p.renew("second")
		_ = os.Chmod(p.key, 0o600)
		if got := name(); got != "first" {
			t.Errorf("looked at again within %v: shows %q", lookEvery, got)
		}
		time.Sleep(lookEvery)
		if got := name(); got != "second" {
			t.Errorf("shows %q, want the new one", got)
		}
		if got := log.find("INFO", "certificate reloaded"); len(got) != 1 {
			t.Errorf("reloading is told %d times: %q", len(got), got)
		}
	})
}

func TestABadCertificateFailsTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*pair)
		want string
	}{
		"no certificate":        {func(p *pair) { _ = os.Remove(p.cert) }, "no such file"},
		"no files at all":       {func(p *pair) { _, _ = os.Remove(p.cert), os.Remove(p.key) }, "no such file"},
		"not a certificate":     {func(p *pair) { p.write(p.cert, []byte("junk")) }, "PEM"},
		"another's key":         {func(p *pair) { _, key := p.make("other"); p.write(p.key, key) }, "private key does not match"},
		"a key for all to read": {func(p *pair) { _ = os.Chmod(p.key, 0o604) }, "chmod o-rwx " + "/"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, listener := range []string{"edge", "grpc"} {
				p := newPair(t)
				c.harm(p)
				args := []string{"--" + listener + "-tls-cert=" + p.cert, "--" + listener + "-tls-key=" + p.key}
				failsToStart(t, args, "--"+listener+"-tls-cert", c.want)
			}
		})
	}
	p := newPair(t)
	if err := os.Chmod(p.key, 0o640); err != nil { // a group's is its own matter
		t.Fatal(err)
	}
	if _, err := serverTLS("edge", p.cert, p.key, (&journal{}).logger(t)); err != nil {
		t.Error(err)
	}
}

func TestAHandshakeThatIsNotTLSEndsWithItsTime(t *testing.T) {
	r, _ := secure(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.edgeL.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r.stop() // one that says nothing does not hold up the end
	if _, err := r.wait(time.Now()); err != nil {
		t.Errorf("Run = %v", err)
	}
}
