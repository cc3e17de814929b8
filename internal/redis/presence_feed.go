package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// presenceFeed brings the presence frames of channels to a Presence: by subscribed it says that from now on all come, by changes it
// hands over the payload of each. After a connection was lost it says subscribed again for every channel. Neither waits.
//
// The Broker's own subscriptions can take this place: presence frames come over the same channels.
type presenceFeed interface {
	run(ctx context.Context, dialled <-chan struct{})
	follow(channel string)   // never waits; a channel that is followed already stays so
	unfollow(channel string) // never waits
}

// subscriptions is a presenceFeed over a connection of its own.
type subscriptions struct {
	p    *Presence
	news chan struct{}

	mu      sync.Mutex
	want    map[string]bool
	changed map[string]bool // since they were last looked at
}

func newSubscriptions(p *Presence) *subscriptions {
	return &subscriptions{p: p, news: make(chan struct{}, 1), want: make(map[string]bool), changed: make(map[string]bool)}
}

func (s *subscriptions) follow(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want[channel], s.changed[channel] = true, true
	signal(s.news)
}

func (s *subscriptions) unfollow(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.want, channel)
	s.changed[channel] = true
	signal(s.news)
}

// run connects, and again whenever the connection is lost.
func (s *subscriptions) run(ctx context.Context, dialled <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-dialled:
	}
	const again = 100 * time.Millisecond // a connection that breaks at once is not made faster
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		s.connect(ctx, s.p.conn.Load().subscription)
		pause.Reset(again)
	}
}

// connect serves one connection to its end.
func (s *subscriptions) connect(ctx context.Context, client rueidis.Client) {
	c, release := client.Dedicate()
	defer release()
	defer c.Close()
	lost := c.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) {
			if payload, mine := presenceOf(m.Message); mine {
				s.p.changes(m.Channel, payload)
			}
		},
		OnSubscription: func(m rueidis.PubSubSubscription) {
			if m.Kind == "subscribe" {
				s.p.subscribed(m.Channel)
			}
		},
	})
	s.mu.Lock()
	clear(s.changed)
	add := make([]string, 0, len(s.want))
	for ch := range s.want {
		add = append(add, ch)
	}
	s.mu.Unlock()
	var remove []string
	has := make(map[string]bool)
	for {
		if s.apply(ctx, c, remove, add) != nil {
			return
		}
		for _, ch := range remove {
			delete(has, ch)
		}
		for _, ch := range add {
			has[ch] = true
		}
		select {
		case <-ctx.Done():
			return
		case err := <-lost:
			s.p.log.Debug("the connection that brings changes is lost, it is made anew", "error", err)
			return
		case <-s.news:
		}
		add, remove = s.changes(has)
	}
}

// changes are the channels to subscribe, and those to leave of the ones that the connection has. What is wanted anew is left
// first, so that it is confirmed anew.
func (s *subscriptions) changes(has map[string]bool) (add, remove []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.changed {
		if has[ch] {
			remove = append(remove, ch)
		}
		if s.want[ch] {
			add = append(add, ch)
		}
	}
	clear(s.changed)
	return add, remove
}

func (s *subscriptions) apply(ctx context.Context, c rueidis.DedicatedClient, remove, add []string) error {
	const each = 256 // channels a command
	var cmds []rueidis.Completed
	for len(remove) > 0 {
		n := min(each, len(remove))
		cmds = append(cmds, c.B().Unsubscribe().Channel(remove[:n]...).Build())
		remove = remove[n:]
	}
	for len(add) > 0 {
		n := min(each, len(add))
		cmds = append(cmds, c.B().Subscribe().Channel(add[:n]...).Build())
		add = add[n:]
	}
	if len(cmds) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.p.opts.ReadTimeout)
	defer cancel()
	for _, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}
