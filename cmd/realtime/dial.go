package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/slack5/realtime/internal/config"
)

// callTimeout bounds connecting, and each call that is answered once. The node takes the caller's bound for its own.
const callTimeout = 10 * time.Second

// dial are the options of every command that calls a node.
type dial struct {
	Addr     string `default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"gRPC address of a node (${default})."`
	Key      string `placeholder:"FILE" help:"File that holds the key to call with, or env:NAME."`
	TLS      bool   `name:"tls" help:"Use TLS and trust the system's certificates."`
	TLSCA    string `name:"tls-ca" placeholder:"FILE" help:"Use TLS and trust the certificates of this file instead."`
	TLSCert  string `name:"tls-cert" placeholder:"FILE" help:"Use TLS and show this certificate, PEM, to a node that asks for one."`
	TLSKey   string `name:"tls-key" placeholder:"FILE" help:"Its private key, PEM."`
	Insecure bool   `env:"-" help:"Let the key leave this machine without TLS."`
	JSON     bool   `name:"json" env:"-" help:"Print JSON, one object a line."`

	key       bearer
	transport credentials.TransportCredentials
	handshake *handshake // nil without TLS
}

// AfterApply reads what the options name, so that what is wrong with them is told before anybody is called.
func (d *dial) AfterApply() (err error) {
	if d.key, err = readKey(d.Key); err != nil {
		return err
	}
	d.transport = insecure.NewCredentials()
	if (d.TLSCert == "") != (d.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key need each other")
	}
	if d.TLS || d.TLSCA != "" || d.TLSCert != "" {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if d.TLSCA != "" {
			pem, err := os.ReadFile(d.TLSCA)
			if err != nil {
				return fmt.Errorf("--tls-ca: %w", err)
			}
			if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
				return fmt.Errorf("--tls-ca: %s holds no certificate in PEM", d.TLSCA)
			}
		}
		if d.TLSCert != "" {
			pair, err := tls.LoadX509KeyPair(d.TLSCert, d.TLSKey)
			if err != nil {
				return fmt.Errorf("--tls-cert, --tls-key: %w", err)
			}
			cfg.Certificates = []tls.Certificate{pair}
		}
		d.handshake = &handshake{TransportCredentials: credentials.NewTLS(cfg)}
		d.transport = d.handshake
	} else if d.key != "" && !d.Insecure && !config.Loopback(d.Addr) {
		return fmt.Errorf("--key would go to %s for all on the way to read: add --tls or --tls-ca FILE, or --insecure if that is wanted", d.Addr)
	}
	return nil
}

// readKey reads FILE or env:NAME. Its errors do not repeat the option: it may be the key itself, given by mistake.
func readKey(option string) (bearer, error) {
	name, inEnvironment := strings.CutPrefix(option, "env:")
	key := ""
	switch {
	case option == "":
		return "", nil
	case inEnvironment:
		key = strings.TrimSpace(os.Getenv(name))
	default:
		b, err := os.ReadFile(option)
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		if err != nil {
			return "", fmt.Errorf("--key: %w: it takes the name of a file that holds the key, or env:NAME", err)
		}
		key = strings.TrimSpace(string(b))
	}
	switch {
	case key == "":
		return "", errors.New("--key: nothing is in there: the file is empty, or the variable is not set")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("--key: what is in there is no key: one line of letters, digits and signs, without blanks")
	}
	return bearer(key), nil
}

// bearer sends a key along with each call. Whether it may go out at all has been decided before.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// handshake remembers what the last one failed with: gRPC tells it only as text.
type handshake struct {
	credentials.TransportCredentials
	failed atomic.Pointer[error]
}

func (h *handshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		h.failed.Store(&err)
	}
	return conn, info, err
}

// connect returns a connection that stands: who cannot be reached is told before anything is asked of it.
func (d *dial) connect(ctx context.Context) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(d.transport), grpc.WithUnaryInterceptor(bounded)}
	if d.key != "" {
		options = append(options, grpc.WithPerRPCCredentials(d.key))
	}
	conn, err := grpc.NewClient(d.Addr, options...)
	if err != nil {
		return nil, fmt.Errorf("--addr: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn.Connect()
	state := conn.GetState()
	for state != connectivity.Ready && state != connectivity.TransientFailure && conn.WaitForStateChange(ctx, state) {
		state = conn.GetState()
	}
	if state == connectivity.Ready {
		return conn, nil
	}
	_ = conn.Close()
	if d.handshake != nil {
		if why := d.handshake.failed.Load(); why != nil {
			return nil, fmt.Errorf("no TLS with %s: %w: --tls-ca names the certificates to trust", d.Addr, *why)
		}
	}
	return nil, fmt.Errorf("no node answers at %s: is `realtime serve` running there? --addr names another, --tls uses TLS", d.Addr)
}

func bounded(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return invoke(ctx, method, req, reply, conn, options...)
}

// call connects and lets f ask. What f is refused becomes an error of the command.
func (d *dial) call(e *env, command string, f func(*grpc.ClientConn) error) error {
	conn, err := d.connect(e.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := f(conn); err != nil {
		return fmt.Errorf("%s: %w", command, refusal(d.Addr, err))
	}
	return nil
}
