package redis

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

var (
	//go:embed publish.lua
	publishLua string
	//go:embed delete.lua
	deleteLua string
	//go:embed restore.lua
	restoreLua string
	//go:embed lease.lua
	leaseLua string
	//go:embed lease_end.lua
	leaseEndLua string
	//go:embed revoke.lua
	revokeLua string

	scripts = [scriptCount]*rueidis.Lua{
		ScriptPublish:  rueidis.NewLuaScript(publishLua),
		ScriptDelete:   rueidis.NewLuaScript(deleteLua),
		ScriptRestore:  rueidis.NewLuaScript(restoreLua),
		ScriptLease:    rueidis.NewLuaScript(leaseLua),
		ScriptLeaseEnd: rueidis.NewLuaScript(leaseEndLua),
		ScriptRevoke:   rueidis.NewLuaScript(revokeLua),
	}
)

// maxInFlight bounds what waits for answers on a connection for commands: the library's own ring blocks without a deadline
// when it is full.
const maxInFlight = 768

// server is the Port to a real Redis.
type server struct {
	opts       Options
	keys       keys
	probeAfter time.Duration
	clients    atomic.Pointer[serverClients] // nil: not open
	flight     chan struct{}
}

// serverClients are the clients for commands, and for connections that hold subscriptions, which in a cluster have one each.
type serverClients struct {
	commands, subscriptions rueidis.Client
	cluster                 *cluster // nil: it is none
}

func (c *serverClients) close() {
	if c.cluster != nil {
		c.cluster.close()
	}
	c.commands.Close()
	if c.subscriptions != nil {
		c.subscriptions.Close()
	}
}

var _ Port = (*server)(nil)

// newServer makes one. probeAfter is how long a connection to a primary of a cluster may bring nothing before it is tried.
func newServer(opts Options, probeAfter time.Duration) *server {
	return &server{opts: opts, keys: keys(opts.Prefix), probeAfter: probeAfter, flight: make(chan struct{}, maxInFlight)}
}

// Open implements Port.
func (s *server) Open(ctx context.Context, redialled func()) error {
	dials := newRedials(redialled)
	o := s.opts.command(dials)
	o.DialCtxFn = telling(o.DialCtxFn, func() {
		if s.clients.Load() != nil { // it is none of those that Close ends
			redialled()
		}
	})
	commands, err := rueidis.NewClient(o)
	if err != nil {
		return fromServer(err)
	}
	dials.opened(commands)
	c := &serverClients{commands: commands}
	asking, cancel := context.WithTimeout(ctx, s.opts.ReadTimeout)
	defer cancel()
	switch {
	case commands.Mode() != rueidis.ClientModeCluster && hidden(asking, commands):
		err = errHidden
	case commands.Mode() == rueidis.ClientModeCluster:
		c.cluster, err = newCluster(ctx, commands, s.opts.CallTimeout, s.keys.check(0), redialled)
	default:
		c.subscriptions, err = rueidis.NewClient(s.opts.subscription())
	}
	if err != nil {
		commands.Close()
		return fromServer(err)
	}
	s.clients.Store(c)
	return nil
}

// Close implements Port.
func (s *server) Close() {
	if c := s.clients.Swap(nil); c != nil {
		c.close()
	}
}

// do runs f with a place among what is in flight where a key lives; "": in several places.
func (s *server) do(ctx context.Context, key string, f func(rueidis.Client) error) error {
	c := s.clients.Load()
	if c == nil {
		return errNotDialled
	}
	flight := s.flight
	if c.cluster != nil && key != "" {
		flight = c.cluster.flight(key)
	}
	select {
	case flight <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-flight }()
	return fromServer(f(c.commands))
}

// fromServer makes what Redis answered a ServerError.
func fromServer(err error) error {
	if e, ok := rueidis.IsRedisErr(err); ok && !e.IsNil() {
		return ServerError(e.Error())
	}
	return err
}

// Script implements Port.
func (s *server) Script(ctx context.Context, script Script, keys, args []string) (reply []string, err error) {
	err = s.do(ctx, keys[0], func(c rueidis.Client) error {
		m, err := scripts[script].Exec(ctx, c, keys, args).ToMessage()
		if err != nil {
			return err
		}
		reply, err = texts(m)
		return err
	})
	return reply, err
}

// texts is a reply as Port.Script gives it.
func texts(m rueidis.RedisMessage) ([]string, error) {
	list := []rueidis.RedisMessage{m}
	if m.IsArray() {
		list, _ = m.ToArray() // it is one
	}
	reply := make([]string, len(list))
	for i := range list {
		var err error
		switch e := &list[i]; {
		case e.IsNil():
		case e.IsInt64():
			var n int64
			n, err = e.AsInt64()
			reply[i] = strconv.FormatInt(n, 10)
		default:
			reply[i], err = e.ToString()
		}
		if err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// Values implements Port.
func (s *server) Values(ctx context.Context, keys []string) (values []string, err error) {
	err = s.do(ctx, keys[0], func(c rueidis.Client) (err error) {
		if c.Mode() == rueidis.ClientModeCluster {
			values, err = gets(ctx, c, keys...)
		} else {
			values, err = c.Do(ctx, c.B().Mget().Key(keys...).Build()).AsStrSlice()
		}
		return err
	})
	return values, err
}

// gets reads keys of any slots.
func gets(ctx context.Context, c rueidis.Client, keys ...string) ([]string, error) {
	cmds, values := make(rueidis.Commands, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		cmds[i] = c.B().Get().Key(key).Build()
	}
	for i, r := range c.DoMulti(ctx, cmds...) {
		v, err := r.ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// Range implements Port. Where a slot is moving the library asks for each key at both places, one after the other: so what
// is read first comes apart.
func (s *server) Range(ctx context.Context, r StreamRange) (part StreamPart, err error) {
	err = s.do(ctx, r.Stream, func(c rueidis.Client) error {
		list := c.B().Xrange().Key(r.Stream).Start(r.From).End(r.To).Count(int64(r.Count)).Build()
		if r.Backward {
			list = c.B().Xrevrange().Key(r.Stream).End(r.To).Start(r.From).Count(int64(r.Count)).Build()
		}
		cmds := rueidis.Commands{
			c.B().Get().Key(r.Cut).Build(), c.B().Get().Key(r.Tip).Build(), c.B().Xlen().Key(r.Stream).Build(), list,
		}
		var replies []rueidis.RedisResult
		if c.Mode() == rueidis.ClientModeCluster {
			replies = append(c.DoMulti(ctx, cmds[:2]...), c.DoMulti(ctx, cmds[2:]...)...)
		} else {
			replies = c.DoMulti(ctx, cmds...)
		}
		for i, to := range []*string{&part.Cut, &part.Tip} {
			if *to, err = replies[i].ToString(); err != nil && !rueidis.IsRedisNil(err) {
				return err
			}
		}
		if part.Length, err = replies[2].AsInt64(); err != nil {
			return err
		}
		entries, err := replies[3].AsXRange()
		if err != nil {
			return err
		}
		part.Entries = make([]StreamEntry, len(entries))
		for i, e := range entries {
			part.Entries[i] = StreamEntry{ID: e.ID, Prev: e.FieldValues["p"], Env: e.FieldValues["d"]}
		}
		return nil
	})
	return part, err
}

// Publish implements Port.
func (s *server) Publish(ctx context.Context, channel, text string) error {
	return s.do(ctx, channel, func(c rueidis.Client) error {
		cmd := c.B().Publish().Channel(channel).Message(text).Build()
		if c.Mode() == rueidis.ClientModeCluster {
			cmd = c.B().Spublish().Channel(channel).Message(text).Build()
		}
		return c.Do(ctx, cmd).Error()
	})
}

// Listen implements Port. A connection that cannot be dialled is lost at once.
func (s *server) Listen(ctx context.Context, on Events) (Listener, error) {
	c := s.clients.Load()
	switch {
	case c == nil:
		return nil, errNotDialled
	case c.cluster != nil:
		return s.listenCluster(ctx, c.cluster, on), nil
	}
	l := &serverListener{}
	l.client, l.release = c.subscriptions.Dedicate()
	lost := l.client.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) { on.Message(m.Channel, m.Message) },
		OnSubscription: func(m rueidis.PubSubSubscription) {
			switch m.Kind {
			case "subscribe":
				on.Subscribed(m.Channel)
			case "unsubscribe":
				on.Unsubscribed(m.Channel)
			}
		},
	})
	l.reader.Go(func() {
		var first error
		for err := range lost { // it is closed with the connection, when no hook runs any more
			first = err
		}
		if first == nil {
			first = errClosed
		}
		on.Lost(fromServer(first))
	})
	return l, nil
}

var errClosed = errors.New("the connection was closed")

// serverListener is a dedicated connection.
type serverListener struct {
	client  rueidis.DedicatedClient
	release func()
	reader  sync.WaitGroup
}

// Subscribe implements Listener.
func (l *serverListener) Subscribe(ctx context.Context, channels ...string) error {
	return fromServer(l.client.Do(ctx, l.client.B().Subscribe().Channel(channels...).Build()).Error())
}

// Unsubscribe implements Listener.
func (l *serverListener) Unsubscribe(ctx context.Context, channels ...string) error {
	return fromServer(l.client.Do(ctx, l.client.B().Unsubscribe().Channel(channels...).Build()).Error())
}

// Close implements Listener.
func (l *serverListener) Close() {
	l.client.Close()
	l.reader.Wait()
	l.release()
}
