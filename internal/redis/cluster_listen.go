package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	placeFirst = 50 * time.Millisecond // behind a place that was none, until the next is tried
	placeMost  = time.Second
)

// clusterListener is a Listener over all primaries of a cluster: a channel is held over a connection to the one that has
// its slot. It breaks never; what a connection held that breaks, or whose slot has moved, is told as unsubscribed.
type clusterListener struct {
	s     *server
	c     *cluster
	on    Events
	name  string // of its probes
	wake  chan struct{}
	stop  context.CancelFunc
	group sync.WaitGroup
	base  context.Context // of what runs until Close
	begin time.Time

	mu     sync.Mutex // held while on is told of subscriptions
	subs   map[string]*shardSub
	lines  map[string]*shardLine // by the primary's address
	parked []*shardSub           // without a place
}

// shardSub is a channel that is to be held, or is held still.
type shardSub struct {
	ch     string
	want   bool
	owed   int        // confirmations that are waited for
	at     *shardLine // where it is, or is to be; nil: nowhere, then it is parked or not asked for any more
	asked  bool       // a command with it is under way there
	held   bool       // confirmed there
	listed bool       // in the line's todo
	wait   time.Duration
	due    time.Time // when it is placed, if it is parked
}

func (s *server) listenCluster(ctx context.Context, c *cluster, on Events) *clusterListener {
	l := &clusterListener{
		begin: time.Now(), s: s, c: c, on: on, name: strings.ToLower(rand.Text()[:8]), wake: make(chan struct{}, 1),
		subs: make(map[string]*shardSub), lines: make(map[string]*shardLine),
	}
	l.base, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	c.listeners[l] = struct{}{}
	c.mu.Unlock()
	l.group.Go(l.run)
	return l
}

// Close implements Listener.
func (l *clusterListener) Close() {
	l.stop()
	l.group.Wait()
	l.c.mu.Lock()
	delete(l.c.listeners, l)
	l.c.mu.Unlock()
	l.on.Lost(errClosed)
}

// Subscribe implements Listener. It does not fail: what has no place is tried again until it is confirmed.
func (l *clusterListener) Subscribe(_ context.Context, channels ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ch := range channels {
		s := l.subs[ch]
		if s == nil {
			s = &shardSub{ch: ch}
			l.subs[ch] = s
		}
		s.want = true
		s.owed++
		if s.at == nil {
			l.place(s)
		} else {
			s.at.list(s)
		}
	}
	return nil
}

// Unsubscribe implements Listener.
func (l *clusterListener) Unsubscribe(_ context.Context, channels ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ch := range channels {
		s := l.subs[ch]
		if s == nil {
			continue
		}
		s.want = false
		l.confirm(s)
		if s.at == nil {
			delete(l.subs, ch)
		} else {
			s.at.list(s)
		}
	}
	return nil
}

// confirm tells all confirmations that are owed; the lock is held.
func (l *clusterListener) confirm(s *shardSub) {
	for ; s.owed > 0; s.owed-- {
		l.on.Subscribed(s.ch)
	}
}

// place has a channel be subscribed where its slot is; the lock is held.
func (l *clusterListener) place(s *shardSub) {
	addr := l.c.view.Load().addr(slotOf(s.ch))
	if addr == "" || l.base.Err() != nil {
		l.park(s)
		return
	}
	k := l.lines[addr]
	if k == nil {
		k = &shardLine{l: l, addr: addr, wake: make(chan struct{}, 1)}
		running, stop := context.WithCancel(l.base)
		k.stop = stop
		l.lines[addr] = k
		l.group.Go(func() { k.run(running) })
	}
	s.at = k
	k.list(s)
}

// park has a channel be placed later; the lock is held.
func (l *clusterListener) park(s *shardSub) {
	s.wait = min(max(2*s.wait, placeFirst), placeMost)
	s.due = time.Now().Add(s.wait)
	l.parked = append(l.parked, s)
	signal(l.wake)
}

// displace ends a channel's time where it was; the lock is held. Who was told that it is held is told of the end, and asks
// again.
func (l *clusterListener) displace(s *shardSub) {
	held := s.held
	s.at, s.held, s.asked, s.listed = nil, false, false, false
	if !s.want {
		delete(l.subs, s.ch)
		return
	}
	if s.owed > 0 {
		l.park(s)
	}
	if held {
		l.on.Unsubscribed(s.ch)
	}
}

// run places what is parked, and what waits at primaries that do not have its slot any more.
func (l *clusterListener) run() {
	tick := time.NewTicker(placeFirst)
	defer tick.Stop()
	for old := l.c.view.Load(); ; {
		select {
		case <-l.base.Done():
			return
		case <-l.wake:
		case <-tick.C:
		}
		v := l.c.view.Load()
		l.mu.Lock()
		if v != old {
			l.follow(v)
			old = v
		}
		parked := l.parked
		l.parked = nil
		for _, s := range parked {
			switch {
			case l.subs[s.ch] != s || s.at != nil: // it is not asked for any more, or has a place
			case time.Now().Before(s.due):
				l.parked = append(l.parked, s)
			default:
				l.place(s)
			}
		}
		l.mu.Unlock()
	}
}

// follow gives up what the cluster has given up; the lock is held. What a primary holds it holds until it tells otherwise,
// or falls silent: the view may be older than that.
func (l *clusterListener) follow(v *clusterView) {
	for _, s := range l.subs {
		if s.at != nil && !s.held && !s.asked && v.addr(slotOf(s.ch)) != s.at.addr {
			l.displace(s)
			if s.owed > 0 {
				s.due = time.Time{}
			}
		}
	}
	for addr, k := range l.lines {
		if v.of(addr) == (slots{}) {
			delete(l.lines, addr)
			k.stop()
		}
	}
}

// shardLine is the connection to one primary. Its run dials it again whenever it breaks.
type shardLine struct {
	l    *clusterListener
	addr string
	stop context.CancelFunc
	wake chan struct{}
	todo []*shardSub // l's lock guards it

	probe atomic.Pointer[string] // its channel for messages to itself; nil: none is subscribed
	heard atomic.Int64           // when a message came last, as a time since l's begin
}

// list has the next command see to a channel; the lock is held.
func (k *shardLine) list(s *shardSub) {
	if !s.listed {
		s.listed = true
		k.todo = append(k.todo, s)
	}
	signal(k.wake)
}

func (k *shardLine) run(ctx context.Context) {
	defer k.lose()
	for wait := placeFirst; ; wait = min(2*wait, placeMost) {
		begin := time.Now()
		err := k.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > 5*time.Second {
			wait = placeFirst
		}
		k.l.on.Trouble(fmt.Errorf("subscriptions at %s: %w", k.addr, err))
		k.lose()
		k.l.c.doubt()
		if !pause(ctx, wait) {
			return
		}
	}
}

// lose tells of all that the connection held. What it was to hold it is to hold still, or another.
func (k *shardLine) lose() {
	l := k.l
	l.mu.Lock()
	defer l.mu.Unlock()
	k.todo = nil
	for _, s := range l.subs {
		if s.at == k {
			l.displace(s)
		}
	}
}

// serve holds one connection until it breaks or falls silent, or the context ends.
func (k *shardLine) serve(ctx context.Context) error {
	o := k.l.s.opts.subscription()
	o.InitAddress, o.ForceSingleClient = []string{k.addr}, true
	client, err := rueidis.NewClient(o)
	if err != nil {
		return fromServer(err)
	}
	defer client.Close()
	d, release := client.Dedicate()
	defer release()
	lost := d.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: k.message, OnSubscription: k.subscription})
	broken := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		first := errClosed
		for err := range lost { // it is closed with the connection, when no hook runs any more
			first = err
		}
		broken <- fromServer(first)
	})
	defer reader.Wait()
	defer d.Close()
	k.probe.Store(nil)
	k.heard.Store(int64(time.Since(k.l.begin)))
	tick := time.NewTicker(k.l.s.probeAfter / 4)
	defer tick.Stop()
	for sent := time.Duration(0); ; {
		for {
			more, err := k.command(ctx, d)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err
		case <-k.wake:
		case <-tick.C:
			if sent, err = k.alive(ctx, d, sent); err != nil {
				return err
			}
		}
	}
}

// alive probes a connection that brings nothing. sent is when the last probe was sent that was not heard, 0 for none; it
// returns that.
func (k *shardLine) alive(ctx context.Context, d rueidis.DedicatedClient, sent time.Duration) (time.Duration, error) {
	after, heard, now := k.l.s.probeAfter, time.Duration(k.heard.Load()), time.Since(k.l.begin)
	switch {
	case sent != 0 && heard < sent && now-sent < after:
		return sent, nil
	case sent != 0 && heard < sent:
		return sent, fmt.Errorf("nothing came for %v, not even what was sent to it", (now - heard).Round(time.Millisecond))
	case now-heard < after:
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.l.s.opts.CallTimeout)
	defer cancel()
	probe := k.probe.Load()
	if probe == nil {
		mine := k.l.c.view.Load().of(k.addr)
		slot, ok := mine.first()
		if !ok {
			return 0, nil
		}
		name := k.l.s.keys.shardProbe(k.l.name, slot)
		if err := fromServer(d.Do(ctx, d.B().Ssubscribe().Channel(name).Build()).Error()); err != nil {
			if _, refused := answered(err); refused { // the slot is another's, or the primary has failed
				k.l.c.doubt()
				return 0, nil
			}
			return 0, err
		}
		probe = &name
		k.probe.Store(probe)
	}
	if k.l.s.Publish(ctx, *probe, "probe") != nil { // that proves nothing
		return 0, nil
	}
	return now, nil
}

// command sends what is to be subscribed and unsubscribed; more tells whether there is more of it.
func (k *shardLine) command(ctx context.Context, d rueidis.DedicatedClient) (more bool, err error) {
	on, off, more := k.next()
	if len(on)+len(off) == 0 {
		return more, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.l.s.opts.ReadTimeout)
	defer cancel()
	cmds := make(rueidis.Commands, 0, len(on)+len(off))
	for _, s := range on {
		cmds = append(cmds, d.B().Ssubscribe().Channel(s.ch).Build())
	}
	for _, ch := range off {
		cmds = append(cmds, d.B().Sunsubscribe().Channel(ch).Build())
	}
	for i, r := range d.DoMulti(ctx, cmds...) {
		err := fromServer(r.Error())
		text, refused := answered(err)
		switch {
		case err != nil && !refused:
			return false, err
		case i < len(on):
			k.answered(on[i], text)
		}
	}
	return more, nil
}

// next is what to subscribe and to unsubscribe now.
func (k *shardLine) next() (on []*shardSub, off []string, more bool) {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	n := min(len(k.todo), subscribeBatch)
	for _, s := range k.todo[:n] {
		switch {
		case k.l.subs[s.ch] != s || s.at != k:
			continue
		case !s.want:
			if s.held {
				off = append(off, s.ch)
			}
			delete(k.l.subs, s.ch)
		case s.owed > 0:
			s.asked = true
			on = append(on, s)
		}
		s.listed = false
	}
	k.todo = k.todo[n:]
	return on, off, len(k.todo) > 0
}

// answered is told how a subscription was answered; text is the error that the primary has answered with.
func (k *shardLine) answered(s *shardSub, text string) {
	elsewhere := text != "" && k.l.c.redirected(text)
	if text != "" && !elsewhere {
		k.l.on.Trouble(fmt.Errorf("subscription at %s: %w", k.addr, ServerError(text)))
	}
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if s.at != k {
		return
	}
	if s.asked = false; text != "" {
		k.l.displace(s)
	}
}

// subscription takes what the primary tells of subscriptions.
func (k *shardLine) subscription(m rueidis.PubSubSubscription) {
	l := k.l
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.subs[m.Channel]
	mine := s != nil && s.at == k
	switch m.Kind {
	case "ssubscribe":
		if mine {
			s.held, s.asked, s.wait = true, false, 0
			l.confirm(s)
		}
	case "sunsubscribe":
		l.c.doubt()
		if probe := k.probe.Load(); probe != nil && *probe == m.Channel {
			k.probe.Store(nil)
		}
		if mine && s.held && !s.asked {
			l.displace(s)
		}
	}
}

// message takes a message.
func (k *shardLine) message(m rueidis.PubSubMessage) {
	k.heard.Store(int64(time.Since(k.l.begin)))
	if probe := k.probe.Load(); probe == nil || *probe != m.Channel {
		k.l.on.Message(m.Channel, m.Message)
	}
}
