// Package redis is the bus between nodes over Redis: a room is a stream that keeps its history and a channel that brings
// it to every node with members. Broker fulfils broker.Broker.
//
// All dialling happens in Run. A Redis that is away is no error: the node goes on by itself and heals when it is back.
package redis

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"strings"
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
// commands go over one connection in their order.
func (o *Options) command() rueidis.ClientOption {
	c := o.Client
	c.Dialer = net.Dialer{Timeout: o.DialTimeout, KeepAlive: 500 * time.Millisecond}
	c.ConnWriteTimeout = 2 * time.Second
	c.PipelineMultiplex = -1
	c.AlwaysPipelining, c.DisableRetry, c.DisableCache = true, true, true
	return c
}

// subscription is the option of clients whose connections are dedicated to subscriptions.
func (o *Options) subscription() rueidis.ClientOption {
	c := o.command()
	c.ReadBufferEachConn = 1 << 20
	c.RingScaleEachConn = 8
	return c
}
