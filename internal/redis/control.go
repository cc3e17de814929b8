package redis

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/broker"
)

const (
	askTimeout     = 2 * time.Second
	askConcurrency = 64 // questions answered at once
	controlVersion = 1
)

// letter is what control channels carry: a question, or a reply to one.
type letter struct {
	V    int    `json:"v"`
	ID   string `json:"id"`             // the question's
	From string `json:"from"`           // inc of who sends it
	Kind string `json:"kind,omitempty"` // of a question
	Body []byte `json:"body,omitempty"`
	None bool   `json:"none,omitempty"` // a reply: nobody serves here
	Back bool   `json:"back,omitempty"` // it is a reply
}

// pendings are the questions of this node that wait for replies.
type pendings struct {
	mu   sync.Mutex
	asks map[string]*pending
}

type pending struct {
	replies chan letter
}

// Serve implements broker.Broker.
func (b *Broker) Serve(f func(context.Context, broker.Request) broker.Reply) { b.serve = f }

// Ask implements broker.Broker.
func (b *Broker) Ask(ctx context.Context, r broker.Request) (replies []broker.Reply, unreached []string, err error) {
	if err := b.usable(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := b.lease.look(ctx)
	if err != nil {
		return b.askSelf(ctx, r, err)
	}
	b.know(s)
	await := maps.Clone(*b.nodes.Load())
	await[b.inc] = b.cfg.NodeID
	p := &pending{replies: make(chan letter, 2*len(await)+16)}
	id := strconv.FormatUint(b.asked.Add(1), 36)
	b.pendings.mu.Lock()
	b.pendings.asks[id] = p
	b.pendings.mu.Unlock()
	defer func() {
		b.pendings.mu.Lock()
		defer b.pendings.mu.Unlock()
		delete(b.pendings.asks, id)
	}()
	if err := b.post(ctx, b.keys.control(), letter{ID: id, Kind: r.Kind, Body: r.Body}); err != nil {
		return nil, nil, b.failed(ctx, "ask", err)
	}
	for len(await) > 0 {
		select {
		case l := <-p.replies:
			name, ok := await[l.From]
			if !ok {
				continue
			}
			delete(await, l.From)
			if l.None {
				unreached = append(unreached, name)
			} else {
				replies = append(replies, broker.Reply{Node: name, Body: l.Body})
			}
		case <-ctx.Done():
			return replies, append(unreached, slices.Sorted(maps.Values(await))...), nil
		case <-b.done:
			return nil, nil, broker.ErrClosed
		}
	}
	return replies, unreached, nil
}

// askSelf is Ask while Redis is away: this node answers, and the others that were there are named.
func (b *Broker) askSelf(ctx context.Context, r broker.Request, err error) (replies []broker.Reply, unreached []string, _ error) {
	if !b.isAway(b.keys.control()) || !b.open.Load() {
		return nil, nil, b.failed(ctx, "ask", err)
	}
	if seen := b.nodes.Load(); seen != nil {
		for inc, name := range *seen {
			if inc != b.inc {
				unreached = append(unreached, name)
			}
		}
	}
	slices.Sort(unreached)
	if b.serve == nil {
		return nil, append(unreached, b.cfg.NodeID), nil
	}
	answer := b.serve(ctx, r)
	if ctx.Err() != nil {
		return nil, append(unreached, b.cfg.NodeID), nil
	}
	answer.Node = b.cfg.NodeID
	return []broker.Reply{answer}, unreached, nil
}

// post sends a letter.
func (b *Broker) post(ctx context.Context, ch string, l letter) error {
	l.V, l.From = controlVersion, b.inc
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return b.wire.publish(ctx, ch, string(text))
}

// controls handles letters until the context ends. A question is answered apart, so that one who takes long holds up
// nobody; when too many are under way, it is left out.
func (b *Broker) controls(ctx context.Context) {
	var serving sync.WaitGroup
	defer serving.Wait()
	free := make(chan struct{}, askConcurrency)
	for {
		var text string
		select {
		case <-ctx.Done():
			return
		case text = <-b.control:
		}
		var l letter
		if err := json.Unmarshal([]byte(text), &l, json.RejectUnknownMembers(true)); err != nil || l.V != controlVersion {
			b.junk.warn(b.log, "what came on a control channel is not understood and is left out")
			continue
		}
		if l.Back {
			b.pendings.mu.Lock()
			if p := b.pendings.asks[l.ID]; p != nil {
				select {
				case p.replies <- l:
				default: // no node answers so often
				}
			}
			b.pendings.mu.Unlock()
			continue
		}
		select {
		case free <- struct{}{}:
			serving.Go(func() {
				defer func() { <-free }()
				b.answer(ctx, l)
			})
		default:
			b.undone.warn(b.log, "too many questions at once: one is not answered")
		}
	}
}

func (b *Broker) answer(ctx context.Context, l letter) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply := letter{ID: l.ID, Back: true, None: b.serve == nil}
	if b.serve != nil {
		reply.Body = b.serve(ctx, broker.Request{Kind: l.Kind, Body: l.Body}).Body
	}
	if ctx.Err() != nil {
		return
	}
	if err := b.post(ctx, b.keys.node(l.From), reply); err != nil && ctx.Err() == nil {
		b.undone.warn(b.log, "a question could not be answered", "error", err)
	}
}

// target names who a revocation concerns.
func target(r broker.Revocation) string {
	switch {
	case r.All:
		return "a:"
	case r.TokenID != "":
		return "t:" + r.TokenID
	default:
		return "u:" + r.User
	}
}

// Revoke implements broker.Broker.
func (b *Broker) Revoke(ctx context.Context, r broker.Revocation) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	expires, before := "", ""
	if !r.Expires.IsZero() {
		expires = strconv.FormatInt(r.Expires.UnixMilli(), 10)
	}
	if !r.Before.IsZero() {
		before = strconv.FormatInt(r.Before.UnixNano(), 10)
	}
	keys := []string{b.keys.shared("rev"), b.keys.shared("rev") + ":at", b.keys.shared("rev") + ":v"}
	if err := b.wire.run(ctx, ScriptRevoke, keys, []string{target(r), expires, before, strconv.FormatInt(time.Now().UnixMilli(), 10)}); err != nil {
		return b.failed(ctx, "revoke", err)
	}
	return nil
}

// Revocations implements broker.Broker. A change while it reads shows at the latest in the next version.
func (b *Broker) Revocations(ctx context.Context) (rs []broker.Revocation, version uint64, err error) {
	if err := b.usable(ctx); err != nil {
		return nil, 0, err
	}
	var v int64
	var before map[string]string
	var scores []rueidis.ZScore
	rev := b.keys.shared("rev")
	err = b.wire.query(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		got := c.DoMulti(ctx, c.B().Get().Key(rev+":v").Build(), c.B().Hgetall().Key(rev+":at").Build(),
			c.B().Zrangebyscore().Key(rev).Min(strconv.FormatInt(time.Now().UnixMilli(), 10)).Max("+inf").Withscores().Build())
		if v, err = got[0].AsInt64(); err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		if before, err = got[1].AsStrMap(); err != nil {
			return err
		}
		scores, err = got[2].AsZScores()
		return err
	})
	if err != nil {
		return nil, 0, b.failed(ctx, "revocations", err)
	}
	for _, s := range scores {
		r := broker.Revocation{Expires: time.UnixMilli(int64(s.Score))}
		if ns, err := strconv.ParseInt(before[s.Member], 10, 64); err == nil {
			r.Before = time.Unix(0, ns)
		}
		switch kind, who, _ := strings.Cut(s.Member, ":"); kind {
		case "a":
			r.All = true
		case "t":
			r.TokenID = who
		case "u":
			r.User = who
		default:
			continue
		}
		rs = append(rs, r)
	}
	return rs, uint64(v), nil
}
