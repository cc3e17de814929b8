// Package redis is the bus between nodes over Redis: a room is a stream that keeps its history and a channel that brings
// it to every node with members. Broker fulfils broker.Broker.
//
// All dialling happens in Run. A Redis that is away is no error: the node goes on by itself and heals when it is back.
package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Options say which Redis it is and how long it is waited for. Zero fields but Client take their defaults.
type Options struct {
	// Client is a template: addresses, TLS, credentials, database and Sentinel are taken from it, what concerns
	// pipelining, retries and timeouts is set here.
	Client rueidis.ClientOption
	// Prefix stands before every key and channel, so that several services share one Redis. No { or }.
	Prefix string

	DialTimeout time.Duration // default 1 s
	CallTimeout time.Duration // of one command or script; default 500 ms
	ReadTimeout time.Duration // of one read of history; default 2 s

	Logger *slog.Logger // nil: silent
}

func (o *Options) setDefaults() {
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, 500*time.Millisecond)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 2*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// check tells what no dialling can cure.
func (o *Options) check() error {
	if len(o.Client.InitAddress) == 0 {
		return errors.New("redis: no address given: set Client.InitAddress")
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return errors.New("redis: the key prefix must not contain { or }: they mark what Redis Cluster hashes")
	}
	return nil
}

// command is the option of clients that send commands: what is written is never sent twice by the library, and one key's
// commands go over one connection in their order. r is told of each new connection; nil: nobody asks.
func (o *Options) command(r *redials) rueidis.ClientOption {
	c := o.Client
	if r != nil {
		c.DialCtxFn = dial(c.DialCtxFn, c.DialFn, r.dialled)
	}
	c.Dialer = net.Dialer{Timeout: o.DialTimeout, KeepAlive: 500 * time.Millisecond}
	c.Sentinel.Dialer = c.Dialer
	c.Sentinel.TopologyRefreshInterval = cmp.Or(c.Sentinel.TopologyRefreshInterval, 5*time.Second)
	c.ClusterOption.ShardsRefreshInterval = cmp.Or(c.ClusterOption.ShardsRefreshInterval, 10*time.Second)
	c.ClusterOption.MaxMovedRedirections = cmp.Or(c.ClusterOption.MaxMovedRedirections, 5)
	c.ConnWriteTimeout = 2 * time.Second
	c.PipelineMultiplex = -1
	c.AlwaysPipelining, c.DisableRetry, c.DisableCache = true, true, true
	return c
}

type (
	dialFunc    = func(string, *net.Dialer, *tls.Config) (net.Conn, error)
	dialCtxFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)
)

// dial dials as the template says and tells when that has worked.
func dial(own dialCtxFunc, old dialFunc, dialled func(addr string)) dialCtxFunc {
	return func(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (conn net.Conn, err error) {
		switch {
		case own != nil:
			conn, err = own(ctx, addr, d, cfg)
		case old != nil:
			conn, err = old(addr, d, cfg)
		case cfg != nil:
			conn, err = (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, "tcp", addr)
		default:
			conn, err = d.DialContext(ctx, "tcp", addr)
		}
		if err == nil {
			dialled(addr)
		}
		return conn, err
	}
}

// redials tells of connections behind which there may be another server than before. The library dials those of a cluster
// when it first needs them.
type redials struct {
	again func()

	mu           sync.Mutex
	open, shards bool
	seen         map[string]bool // addresses
}

func newRedials(again func()) *redials { return &redials{again: again, seen: make(map[string]bool)} }

// opened is called when the client has been made.
func (r *redials) opened(c rueidis.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open, r.shards = true, c.Mode() == rueidis.ClientModeCluster
}

func (r *redials) dialled(addr string) {
	r.mu.Lock()
	first := !r.seen[addr]
	r.seen[addr] = true
	quiet := !r.open || r.shards && first
	r.mu.Unlock()
	if !quiet {
		r.again()
	}
}

// subscription is the option of clients whose connections are dedicated to subscriptions.
func (o *Options) subscription() rueidis.ClientOption {
	c := o.command(nil)
	c.ReadBufferEachConn = 1 << 20
	c.RingScaleEachConn = 8
	return c
}

// told is a connection that tells when it ends.
type told struct {
	net.Conn
	ended func()
}

// Close implements net.Conn.
func (c told) Close() error {
	c.ended()
	return c.Conn.Close()
}

// telling dials connections that tell when they end.
func telling(f dialCtxFunc, ended func()) dialCtxFunc {
	return func(ctx context.Context, addr string, d *net.Dialer, cfg *tls.Config) (net.Conn, error) {
		conn, err := f(ctx, addr, d, cfg)
		if err != nil {
			return nil, err
		}
		return told{conn, ended}, nil
	}
}
