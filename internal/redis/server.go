package redis

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

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

// maxInFlight bounds what waits for answers on the command connection: the library's own ring blocks without a deadline
// when it is full.
const maxInFlight = 768

// server is the Port to a real Redis.
type server struct {
	opts    Options
	clients atomic.Pointer[serverClients] // nil: not open
	slots   chan struct{}
}

// serverClients are the clients for commands, and for connections that hold subscriptions.
type serverClients struct{ commands, subscriptions rueidis.Client }

var _ Port = (*server)(nil)

func newServer(opts Options) *server {
	return &server{opts: opts, slots: make(chan struct{}, maxInFlight)}
}

// Open implements Port.
func (s *server) Open(_ context.Context, redialled func()) error {
	var dials atomic.Int64
	o := s.opts.command(func() {
		if dials.Add(1) > 1 {
			redialled()
		}
	})
	o.DialCtxFn = telling(o.DialCtxFn, func() {
		if s.clients.Load() != nil { // it is none of those that Close ends
			redialled()
		}
	})
	commands, err := rueidis.NewClient(o)
	if err != nil {
		return fromServer(err)
	}
	subscriptions, err := rueidis.NewClient(s.opts.subscription())
	if err != nil {
		commands.Close()
		return fromServer(err)
	}
	s.clients.Store(&serverClients{commands, subscriptions})
	return nil
}

// Close implements Port.
func (s *server) Close() {
	if c := s.clients.Swap(nil); c != nil {
		c.commands.Close()
		c.subscriptions.Close()
	}
}

// do runs f with a place among what is in flight.
func (s *server) do(ctx context.Context, f func(rueidis.Client) error) error {
	c := s.clients.Load()
	if c == nil {
		return errNotDialled
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.slots }()
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
	err = s.do(ctx, func(c rueidis.Client) error {
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
	err = s.do(ctx, func(c rueidis.Client) (err error) {
		values, err = c.Do(ctx, c.B().Mget().Key(keys...).Build()).AsStrSlice()
		return err
	})
	return values, err
}

// Range implements Port.
func (s *server) Range(ctx context.Context, r StreamRange) (part StreamPart, err error) {
	err = s.do(ctx, func(c rueidis.Client) error {
		list := c.B().Xrange().Key(r.Stream).Start(r.From).End(r.To).Count(int64(r.Count)).Build()
		if r.Backward {
			list = c.B().Xrevrange().Key(r.Stream).End(r.To).Start(r.From).Count(int64(r.Count)).Build()
		}
		replies := c.DoMulti(ctx, c.B().Get().Key(r.Cut).Build(), c.B().Get().Key(r.Tip).Build(), c.B().Xlen().Key(r.Stream).Build(), list)
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
	return s.do(ctx, func(c rueidis.Client) error {
		return c.Do(ctx, c.B().Publish().Channel(channel).Message(text).Build()).Error()
	})
}

// Listen implements Port. A connection that cannot be dialled is lost at once.
func (s *server) Listen(_ context.Context, on Events) (Listener, error) {
	c := s.clients.Load()
	if c == nil {
		return nil, errNotDialled
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
