package broker

import (
	"context"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slack5/realtime/internal/message"
)

// MemoryConfig configures a Memory; the zero value is the protocol's defaults.
type MemoryConfig struct {
	NodeID         string                      // as replies to Ask name this node
	Retention      Retention                   // of rooms that no pattern names; default DefaultRetention
	Patterns       message.Patterns[Retention] // by room pattern
	IdempotencyTTL time.Duration               // default DefaultIdempotencyTTL
	MaxBytes       int64                       // all rooms' history; above it the largest rooms lose their oldest; default 512 MiB
	MaxKeys        int64                       // idempotency keys remembered; above it ErrOverloaded; default 1,000,000
	Logger         *slog.Logger                // nil: silent
}

func (c *MemoryConfig) setDefaults() {
	if c.Retention == (Retention{}) {
		c.Retention = DefaultRetention
	}
	if c.IdempotencyTTL == 0 {
		c.IdempotencyTTL = DefaultIdempotencyTTL
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 512 << 20
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 1_000_000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

const (
	memoryStripes = 64
	// vouchFor is how long past its retention a room without entries is remembered: so long a resume is told truly.
	vouchFor      = time.Hour
	memoryJanitor = time.Second
	askTimeout    = 2 * time.Second
)

// Memory is the bus of a single node: rooms live in its memory and end with it.
type Memory struct {
	cfg   MemoryConfig
	born  message.Position
	sink  atomic.Pointer[Sink] // nil before Run and after it
	rooms [memoryStripes]memoryStripe
	bytes atomic.Int64
	keys  atomic.Int64
	nudge chan struct{}
	serve func(context.Context, Request) Reply

	mu      sync.Mutex                // guards what follows
	revoked map[Revocation]Revocation // by target alone
	version uint64
}

var _ Broker = (*Memory)(nil)

type memoryStripe struct {
	mu    sync.RWMutex
	rooms map[message.Room]*memoryRoom
}

// memoryRoom is guarded by its lock. Its sink calls are made under it, so they come in position order.
type memoryRoom struct {
	mu         sync.Mutex
	keep       Retention
	entries    []*message.Message // oldest first
	before     message.Position   // of the entry before the first kept
	tip, cut   message.Position
	bytes      int64
	subscribed bool
	dead       bool // dropped from the map: look it up again
	keys       map[callerKey]remembered
}

type callerKey struct{ caller, key string }

type remembered struct {
	receipt Receipt
	until   time.Time
}

// NewMemory makes a bus that accepts nothing until Run.
func NewMemory(cfg MemoryConfig) *Memory {
	cfg.setDefaults()
	b := &Memory{cfg: cfg, born: message.At(time.Now().UnixMilli(), 0), nudge: make(chan struct{}, 1), revoked: make(map[Revocation]Revocation)}
	for i := range b.rooms {
		b.rooms[i].rooms = make(map[message.Room]*memoryRoom)
	}
	return b
}

// Run implements Broker.
func (b *Memory) Run(ctx context.Context, s Sink, ready func()) error {
	b.sink.Store(&s)
	defer b.stop()
	ready()
	tick := time.NewTicker(memoryJanitor)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.sweep(time.Now())
		case <-b.nudge:
		}
		b.shrink()
	}
}

// stop returns when no call of the sink is under way; none comes after it.
func (b *Memory) stop() {
	b.sink.Store(nil)
	b.each(func(_ message.Room, r *memoryRoom) {
		r.mu.Lock()   // a publish that saw the sink is through
		r.mu.Unlock() //nolint:staticcheck // it is waited for, nothing is done
	})
}

// room returns the room, locked.
func (b *Memory) room(name message.Room) *memoryRoom {
	st := &b.rooms[name.Tag()%memoryStripes]
	for {
		st.mu.RLock()
		r := st.rooms[name]
		st.mu.RUnlock()
		if r == nil {
			st.mu.Lock()
			if r = st.rooms[name]; r == nil {
				r = &memoryRoom{keep: b.retention(name)}
				st.rooms[name] = r
			}
			st.mu.Unlock()
		}
		r.mu.Lock()
		if !r.dead {
			return r
		}
		r.mu.Unlock()
	}
}

func (b *Memory) retention(name message.Room) Retention {
	if keep, ok := b.cfg.Patterns.Lookup(name); ok {
		return keep
	}
	return b.cfg.Retention
}

// Subscribe implements Broker.
func (b *Memory) Subscribe(name message.Room) {
	r := b.room(name)
	defer r.mu.Unlock()
	if s := b.sink.Load(); s != nil {
		r.subscribed = true
		(*s).Live(name, r.tip, false)
	}
}

// Unsubscribe implements Broker.
func (b *Memory) Unsubscribe(name message.Room) {
	r := b.room(name)
	r.subscribed = false
	r.mu.Unlock()
}

// Publish implements Broker.
func (b *Memory) Publish(ctx context.Context, p Publication) (Receipt, error) {
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	now := time.Now()
	m := *p.Message
	r := b.room(m.Room)
	defer r.mu.Unlock()
	s := b.sink.Load()
	if s == nil {
		return Receipt{}, ErrClosed
	}
	key := callerKey{p.Caller, p.Key}
	if p.Key != "" {
		if old, ok := r.keys[key]; ok && now.Before(old.until) {
			old.receipt.Duplicate = true
			return old.receipt, nil
		}
		if b.keys.Load() >= b.cfg.MaxKeys {
			return Receipt{}, ErrOverloaded
		}
	}
	e := message.Entry{Message: &m}
	if m.Ephemeral {
		e.Flags = message.Ephemeral
		if m.ID.Position = r.tip; r.tip == 0 {
			m.ID.Position = b.Now()
		}
	} else {
		m.ID.Position = max(message.At(now.UnixMilli(), 0), r.tip+1)
		e.Prev = r.tip
		r.tip = m.ID.Position
		b.store(r, &m, now)
	}
	receipt := Receipt{ID: m.ID, Timestamp: m.Timestamp}
	if p.Key != "" {
		b.remember(r, key, remembered{receipt, now.Add(b.cfg.IdempotencyTTL)})
	}
	if r.subscribed {
		(*s).Append(e)
	}
	return receipt, nil
}

func (b *Memory) remember(r *memoryRoom, key callerKey, what remembered) {
	if r.keys == nil {
		r.keys = make(map[callerKey]remembered)
	}
	if _, again := r.keys[key]; !again {
		b.keys.Add(1)
	}
	r.keys[key] = what
}

func (b *Memory) store(r *memoryRoom, m *message.Message, now time.Time) {
	n := sizeOf(m)
	r.entries = append(r.entries, m)
	r.bytes += n
	total := b.bytes.Add(n)
	b.trim(r, now)
	if total > b.cfg.MaxBytes {
		select {
		case b.nudge <- struct{}{}:
		default:
		}
		for total > b.cfg.MaxBytes+b.cfg.MaxBytes/8 && len(r.entries) > 1 { // the janitor does not keep up
			b.drop(r)
			total = b.bytes.Load()
		}
	}
}

// sizeOf is what a kept message costs, about.
func sizeOf(m *message.Message) int64 {
	n := 200 + len(m.Data) + len(m.From) + len(m.Room)
	for _, s := range m.ExcludeSessions {
		n += 16 + len(s)
	}
	for _, s := range m.ExcludeUsers {
		n += 16 + len(s)
	}
	return int64(n)
}

func (b *Memory) trim(r *memoryRoom, now time.Time) {
	oldest := message.At(now.Add(-r.keep.Age).UnixMilli(), 0)
	for len(r.entries) > 0 && (len(r.entries) > r.keep.Messages || r.entries[0].ID.Position < oldest) {
		b.drop(r)
	}
}

func (b *Memory) drop(r *memoryRoom) {
	m := r.entries[0]
	r.before = m.ID.Position
	r.entries[0] = nil
	if r.entries = r.entries[1:]; len(r.entries) == 0 {
		r.entries = nil
	}
	n := sizeOf(m)
	r.bytes -= n
	b.bytes.Add(-n)
}

// Delete implements Broker.
func (b *Memory) Delete(ctx context.Context, name message.Room) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := b.room(name)
	defer r.mu.Unlock()
	s := b.sink.Load()
	if s == nil {
		return ErrClosed
	}
	if r.tip == 0 {
		return nil
	}
	for len(r.entries) > 0 {
		b.drop(r)
	}
	r.cut = r.tip
	if r.subscribed {
		(*s).Deleted(name, r.cut)
	}
	return nil
}

// Now implements Broker.
func (b *Memory) Now() message.Position {
	return message.At(time.Now().UnixMilli()-1, 4095)
}

// History implements Broker.
func (b *Memory) History(ctx context.Context, q message.Query) (message.Page, error) {
	if err := ctx.Err(); err != nil {
		return message.Page{}, err
	}
	now := time.Now()
	r := b.room(q.Room)
	defer r.mu.Unlock()
	b.trim(r, now)
	p := message.Page{Tip: r.tip, Cut: r.cut, Since: max(b.born, message.At(now.Add(-r.keep.Age-vouchFor).UnixMilli(), 0))}
	es := r.entries
	from, to := 0, len(es)
	at := func(pos message.Position) int {
		return sort.Search(len(es), func(i int) bool { return es[i].ID.Position >= pos })
	}
	room := func(n int, size int64) bool {
		return (q.Limit <= 0 || n < q.Limit) && (n == 0 || q.Bytes <= 0 || size <= int64(q.Bytes))
	}
	size := int64(0)
	if q.Backward {
		if q.From != 0 {
			to = at(q.From)
		}
		for from = to; from > 0; from-- {
			if size += sizeOf(es[from-1]); !room(to-from, size) {
				break
			}
		}
		p.More = from > 0
	} else {
		from = at(q.From + 1)
		for to = from; to < len(es); to++ {
			if size += sizeOf(es[to]); !room(to-from, size) {
				break
			}
		}
		p.More = to < len(es)
	}
	p.Entries = make([]message.Entry, 0, to-from)
	for i := from; i < to; i++ {
		e := message.Entry{Message: es[i], Prev: r.before}
		if i > 0 {
			e.Prev = es[i-1].ID.Position
		}
		p.Entries = append(p.Entries, e)
	}
	return p, nil
}

func (b *Memory) each(f func(message.Room, *memoryRoom)) {
	for i := range b.rooms {
		st := &b.rooms[i]
		st.mu.RLock()
		rs := make(map[message.Room]*memoryRoom, len(st.rooms))
		for name, r := range st.rooms {
			rs[name] = r
		}
		st.mu.RUnlock()
		for name, r := range rs {
			f(name, r)
		}
	}
}

// sweep forgets what is too old: entries, keys, and rooms of which nothing is left to tell.
func (b *Memory) sweep(now time.Time) {
	b.each(func(name message.Room, r *memoryRoom) {
		r.mu.Lock()
		b.trim(r, now)
		for k, v := range r.keys {
			if now.After(v.until) {
				delete(r.keys, k)
				b.keys.Add(-1)
			}
		}
		silent := r.tip < message.At(now.Add(-r.keep.Age-vouchFor).UnixMilli(), 0)
		r.dead = silent && !r.subscribed && len(r.entries) == 0 && len(r.keys) == 0
		dead := r.dead
		r.mu.Unlock()
		if dead {
			st := &b.rooms[name.Tag()%memoryStripes]
			st.mu.Lock()
			delete(st.rooms, name)
			st.mu.Unlock()
		}
	})
}

// shrink takes the oldest entries of the largest rooms until an eighth of the bound is free.
func (b *Memory) shrink() {
	if b.bytes.Load() <= b.cfg.MaxBytes {
		return
	}
	type sized struct {
		r *memoryRoom
		n int64
	}
	var rs []sized
	b.each(func(_ message.Room, r *memoryRoom) {
		r.mu.Lock()
		rs = append(rs, sized{r, r.bytes})
		r.mu.Unlock()
	})
	sort.Slice(rs, func(i, j int) bool { return rs[i].n > rs[j].n })
	goal := b.cfg.MaxBytes - b.cfg.MaxBytes/8
	for i := 0; i < len(rs) && b.bytes.Load() > goal; i++ {
		down := rs[i].n / 2 // half of the largest, then of the next: the small ones keep theirs
		rs[i].r.mu.Lock()
		for rs[i].r.bytes > down && len(rs[i].r.entries) > 0 && b.bytes.Load() > goal {
			b.drop(rs[i].r)
		}
		rs[i].r.mu.Unlock()
	}
	b.cfg.Logger.Warn("history above its bound: the largest rooms lost their oldest messages", "limit_bytes", b.cfg.MaxBytes)
}

// Ask implements Broker: there is one node.
func (b *Memory) Ask(ctx context.Context, r Request) ([]Reply, []string, error) {
	if b.serve == nil {
		return nil, []string{b.cfg.NodeID}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply := b.serve(ctx, r)
	reply.Node = b.cfg.NodeID
	return []Reply{reply}, nil, nil
}

// Serve implements Broker.
func (b *Memory) Serve(f func(context.Context, Request) Reply) { b.serve = f }

// Revoke implements Broker.
func (b *Memory) Revoke(ctx context.Context, r Revocation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	target := Revocation{User: r.User, TokenID: r.TokenID, All: r.All}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	if r.Expires.IsZero() {
		delete(b.revoked, target)
	} else {
		b.revoked[target] = r
	}
	return nil
}

// Revocations implements Broker.
func (b *Memory) Revocations(ctx context.Context) ([]Revocation, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	var rs []Revocation
	for k, r := range b.revoked {
		if now.After(r.Expires) {
			delete(b.revoked, k)
			continue
		}
		rs = append(rs, r)
	}
	return rs, b.version, nil
}
