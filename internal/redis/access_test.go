package redis_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/redis"
	"github.com/slack5/realtime/internal/redis/redistest"
)

// talks checks that two nodes hear each other.
func talks(t *testing.T, o redis.Options) (a, b *node) {
	t.Helper()
	a, b = newNode(t, 1, redis.Config{Options: o}).run(), newNode(t, 2, redis.Config{Options: o}).run()
	a.live("lobby")
	b.live("lobby")
	if _, _, err := a.say("lobby", "hi"); err != nil {
		t.Fatal(err)
	}
	until(t, "the other node hears it", func() bool { return len(b.sink.look("lobby").entries) == 1 })
	return a, b
}

// asUser makes a user with exactly the rights that a node needs, and the options of a node that is he.
func asUser(t *testing.T, s *redistest.Server, prefix string) redis.Options {
	s.Do("ACL", "SETUSER", "node", "on", ">secret", "~"+prefix+"rt:*", "resetchannels", "&"+prefix+"rt:*", "&"+prefix+"realtime:*",
		"+@all", "-@dangerous", "+info", "+role", "+cluster|slots")
	o := options(t, s.Addr, prefix)
	o.Client.Username, o.Client.Password = "node", "secret"
	return o
}

func TestAUserNeedsRightsToWhatBearsThePrefixAlone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for _, prefix := range []string{"", "app:"} {
		talks(t, asUser(t, s, prefix))
	}
	m := s.Do("KEYS", "*")
	keys, err := m.AsStrSlice()
	if err != nil || !slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "app:rt:") }) {
		t.Errorf("keys %q, %v, want some with the prefix", keys, err)
	}
}

func TestTwoPrefixesAreTwoServices(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, _ := talks(t, options(t, s.Addr, "one:"))
	b, _ := talks(t, options(t, s.Addr, "two:"))
	if n := len(b.sink.look("lobby").entries); n != 1 {
		t.Errorf("a service has %d messages, want its own", n)
	}
	if p, err := a.History(t.Context(), message.Query{Room: "lobby"}); err != nil || len(p.Entries) != 1 {
		t.Errorf("the history of a service has %d messages, %v, want its own", len(p.Entries), err)
	}
}

func TestADatabaseByNumberIsUsed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	o := options(t, s.Addr, "")
	o.Client.SelectDB = 3
	talks(t, o)
	if m := s.Do("DBSIZE"); m.IsInt64() {
		if n, err := m.AsInt64(); err != nil || n != 0 {
			t.Errorf("database 0 has %d keys, %v, want all in 3", n, err)
		}
	}
}

func TestADatabaseThatIsNotThereIsRefused(t *testing.T) {
	t.Parallel()
	clustered := redistest.Start(t, "--cluster-enabled", "yes")
	clustered.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	for _, s := range []*redistest.Server{redistest.Start(t), clustered} {
		o := options(t, s.Addr, "")
		o.Client.SelectDB = 99
		err := redis.New(redis.Config{Options: o}).Run(t.Context(), deaf{}, func() { t.Error("ready") })
		if err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("Run = %v, want that the database is refused", err)
		}
	}
}

func TestAPasswordIsSaid(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--requirepass", "secret")
	o := options(t, s.Addr, "")
	for _, wrong := range []string{"", "guess"} {
		o.Client.Password = wrong
		err := redis.New(redis.Config{Options: o}).Run(t.Context(), deaf{}, func() { t.Error("ready") })
		if err == nil || strings.Contains(err.Error(), "guess") || strings.Contains(err.Error(), "secret") {
			t.Errorf("with the password %q: Run = %v, want that it is refused", wrong, err)
		}
	}
	o.Client.Password = "secret"
	talks(t, o)
}

func TestTLSIsSpoken(t *testing.T) {
	t.Parallel()
	certs, cert, key := vouched(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	o := options(t, addr, "")
	o.Client.TLSConfig = &tls.Config{RootCAs: certs, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	talks(t, o)
}

// vouched makes a certificate of localhost that vouches for itself, and its files.
func vouched(t *testing.T) (certs *x509.CertPool, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, bytes []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certs = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	certs.AddCert(parsed)
	return certs, write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// logged is a log that can be looked at.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func TestANodeWhoseRightsAreTakenAwayGoesOnAndHeals(t *testing.T) {
	t.Parallel()
	for name, rights := range map[string]struct {
		gone, back []string
		stored     bool // the script fails where it has stored the message
	}{
		"to publish":  {gone: []string{"-publish"}, back: []string{"+publish"}, stored: true},
		"to channels": {gone: []string{"resetchannels"}, back: []string{"&rt:*", "&realtime:*"}, stored: true},
		"to keys":     {gone: []string{"resetkeys"}, back: []string{"~rt:*"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, log := redistest.Start(t), &logged{}
			o := asUser(t, s, "")
			o.Logger = slog.New(slog.NewTextHandler(log, nil))
			a, b := talks(t, o)
			s.Do(append([]string{"ACL", "SETUSER", "node"}, rights.gone...)...)
			_, r, err := a.say("lobby", "alone")
			if err != nil || r.Degraded == rights.stored {
				t.Errorf("without the right: %+v, %v, want it to be taken, and degraded: %v", r, err, !rights.stored)
			}
			until(t, "it is logged", func() bool {
				return log.has("NOPERM this user has no permissions") || log.has("user executing the script can't")
			})
			s.Do(append([]string{"ACL", "SETUSER", "node"}, rights.back...)...)
			until(t, "the other node hears it", func() bool { return len(b.sink.look("lobby").entries) == 2 })
			until(t, "the outage is over", func() bool { return len(a.sink.happened())%2 == 0 })
			if _, _, err := b.say("lobby", "again"); err != nil {
				t.Error(err)
			}
			until(t, "all hear all", func() bool {
				return len(a.sink.look("lobby").entries) == 3 && len(b.sink.look("lobby").entries) == 3
			})
		})
	}
}
