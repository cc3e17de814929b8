package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/config"
	"github.com/slack5/realtime/internal/rpc"
)

// lookEvery bounds how often handshakes have a certificate's files looked at.
const lookEvery = time.Second

// serverTLS is how a listener that --NAME-tls-cert and --NAME-tls-key configure speaks TLS; nil if they are not set. The edge
// offers HTTP/1.1 alone, since a WebSocket begins with it.
func serverTLS(name, cert, key string, logger *slog.Logger) (*tls.Config, error) {
	if cert == "" {
		return nil, nil
	}
	k := &keyPair{cert: cert, key: key, log: logger.With("component", "tls")}
	if err := k.load(); err != nil {
		return nil, fmt.Errorf("--%s-tls-cert, --%[1]s-tls-key: %w", name, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.get, NextProtos: []string{"http/1.1"}}
	if name == "grpc" {
		c.NextProtos = []string{"h2"}
	}
	return c, nil
}

// grpcTLS is how the gRPC listener speaks TLS, and whom it lets shake hands: whoever bears one of names in a certificate that
// --grpc-tls-ca vouches for, if that is set.
func grpcTLS(c *config.Serve, names rpc.Names, logger *slog.Logger) (*tls.Config, error) {
	base, err := serverTLS("grpc", c.GRPCTLSCert, c.GRPCTLSKey, logger)
	if err != nil || c.GRPCTLSCA == "" {
		return base, err
	}
	a := &authority{path: c.GRPCTLSCA, base: base, log: logger.With("component", "tls")}
	base.ClientAuth, base.SessionTicketsDisabled = tls.RequireAndVerifyClientCert, true // a resumed session would be judged by what held before
	base.VerifyConnection = func(s tls.ConnectionState) error {
		if !names.Allow(s.PeerCertificates[0]) {
			return errors.New("the certificate has none of the names of --grpc-tls-san")
		}
		return nil
	}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("--grpc-tls-ca: %w", err)
	}
	base = base.Clone()
	base.GetConfigForClient = a.get
	return base, nil
}

// authority are the certificates in a file that vouch for others', read again when it changes. A version that cannot be used
// leaves the one before in place.
type authority struct {
	path string
	base *tls.Config
	log  *slog.Logger
	now  atomic.Pointer[tls.Config] // base with what the file has

	mu     sync.Mutex
	looked time.Time
	seen   stamp // of the version that was read last, usable or not
}

// get is called in handshakes. One of them looks at the file, the others do not wait for it.
func (a *authority) get(*tls.ClientHelloInfo) (*tls.Config, error) {
	if a.mu.TryLock() {
		if now := time.Now(); now.Sub(a.looked) >= lookEvery {
			a.looked = now
			a.refresh()
		}
		a.mu.Unlock()
	}
	return a.now.Load(), nil
}

// refresh reads the file if it has changed. Each bad version is told once.
func (a *authority) refresh() {
	seen := a.seen
	err := a.load()
	switch {
	case a.seen == seen:
	case err != nil:
		a.log.Error("certificates of an authority not usable, those before are kept", "ca", a.path, "err", err)
	default:
		a.log.Info("certificates of an authority reloaded", "ca", a.path)
	}
}

// load reads the file, unless it is the version that was read last.
func (a *authority) load() error {
	var seen stamp
	info, err := os.Stat(a.path)
	if err == nil {
		seen = stamp{info.ModTime(), info.Size(), info.Mode()}
	}
	if seen == a.seen && a.now.Load() != nil {
		return nil
	}
	a.seen = seen // before it is read: who changes it now is noticed the next time
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(a.path)
	if err != nil {
		return err
	}
	c := a.base.Clone()
	if c.ClientCAs = x509.NewCertPool(); !c.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate in PEM", a.path)
	}
	a.now.Store(c)
	return nil
}

// keyPair is a certificate in two files, which are read again when they change. A pair that cannot be used leaves the one
// before in place.
type keyPair struct {
	cert, key string
	log       *slog.Logger
	pair      atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	looked time.Time
	seen   [2]stamp // of the files that were read last, usable or not
}

// stamp tells versions of a file apart.
type stamp struct {
	at   time.Time
	size int64
	mode fs.FileMode
}

// get is called in handshakes. One of them looks at the files, the others do not wait for it.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.mu.TryLock() {
		if now := time.Now(); now.Sub(k.looked) >= lookEvery {
			k.looked = now
			k.refresh()
		}
		k.mu.Unlock()
	}
	return k.pair.Load(), nil
}

// refresh reads the files if they have changed. Each bad version is told once.
func (k *keyPair) refresh() {
	seen := k.seen
	err := k.load()
	switch {
	case k.seen == seen:
	case err != nil:
		k.log.Error("certificate not usable, the one before is kept", "cert", k.cert, "err", err)
	default:
		k.log.Info("certificate reloaded", "cert", k.cert, "not_after", k.pair.Load().Leaf.NotAfter)
	}
}

// load reads the files, unless they are those that were read last.
func (k *keyPair) load() error {
	var seen [2]stamp
	var open error
	for i, name := range []string{k.cert, k.key} {
		info, err := os.Stat(name)
		if err != nil {
			open = errors.Join(open, err)
			continue
		}
		seen[i] = stamp{info.ModTime(), info.Size(), info.Mode()}
		if i == 1 {
			open = errors.Join(open, secret(name, info.Mode()))
		}
	}
	if seen == k.seen && k.pair.Load() != nil {
		return nil
	}
	k.seen = seen // before they are read: who changes them now is noticed the next time
	if open != nil {
		return open
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err != nil {
		return err
	}
	k.pair.Store(&pair)
	return nil
}

// secret refuses a private key that everyone on the machine may read. Windows has no such mode.
func secret(name string, mode fs.FileMode) error {
	if mode.Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s is a private key that everyone may read (mode %04o): chmod o-rwx %[1]s", name, mode.Perm())
	}
	return nil
}
