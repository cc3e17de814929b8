package presence

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/slack5/realtime/internal/message"
)

// MemoryConfig configures a Memory; zero fields take their defaults.
type MemoryConfig struct {
	SeenFor time.Duration // how long it is known when a user was last seen; default 7 days
	MaxSeen int           // of how many users; above it those who left first are forgotten. Default 100,000
}

func (c *MemoryConfig) setDefaults() {
	if c.SeenFor <= 0 {
		c.SeenFor = 7 * 24 * time.Hour
	}
	if c.MaxSeen <= 0 {
		c.MaxSeen = 100_000
	}
}

// Memory is the Store of a node that is alone: there are no others whose fields it could have. It remembers when those who
// left were last seen.
type Memory struct {
	cfg  MemoryConfig
	seen *lru.Cache[string, int64]
	ran  atomic.Bool

	mu   sync.Mutex // guards sink, and is held while it is called
	sink Sink       // nil before Run and after it
}

var _ Store = (*Memory)(nil)

// NewMemory makes a Store that does nothing until Run.
func NewMemory(cfg MemoryConfig) *Memory {
	cfg.setDefaults()
	seen, _ := lru.New[string, int64](cfg.MaxSeen) // it refuses sizes below 1 only
	return &Memory{cfg: cfg, seen: seen}
}

// Run implements Store. A Memory runs once.
func (s *Memory) Run(ctx context.Context, sink Sink, ready func()) error {
	if s.ran.Swap(true) {
		return errors.New("presence: a Memory runs only once")
	}
	s.serve(sink)
	defer s.serve(nil)
	ready()
	<-ctx.Done()
	return nil
}

func (s *Memory) serve(sink Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink = sink
}

// Put implements Store.
func (s *Memory) Put(room message.Room, changes []Field, _ Totals) {
	if room != message.Global {
		return
	}
	for _, f := range changes {
		if f.Status == Offline {
			s.seen.Add(f.User, f.Active)
		}
	}
}

// Follow implements Store.
func (s *Memory) Follow(room message.Room) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink != nil {
		s.sink.Roster(room, nil)
	}
}

// Unfollow implements Store.
func (s *Memory) Unfollow(message.Room) {}

// Read implements Store.
func (s *Memory) Read(ctx context.Context, _ message.Room) ([]Field, error) { return nil, ctx.Err() }

// Count implements Store.
func (s *Memory) Count(ctx context.Context, rooms []message.Room) ([]Totals, error) {
	return make([]Totals, len(rooms)), ctx.Err()
}

// Users implements Store.
func (s *Memory) Users(ctx context.Context, users []string) ([]Seen, error) {
	known := make([]Seen, len(users))
	oldest := time.Now().Add(-s.cfg.SeenFor).UnixMilli()
	for i, u := range users {
		if at, ok := s.seen.Peek(u); ok && at >= oldest {
			known[i].Last = at
		}
	}
	return known, ctx.Err()
}

// Rooms implements Store.
func (s *Memory) Rooms(ctx context.Context, _ string, _ message.Room, _ int) ([]message.Room, error) {
	return nil, ctx.Err()
}

// Claim implements Store.
func (s *Memory) Claim(ctx context.Context, own Field, most int) (bool, error) {
	return int(own.Sessions) <= most, ctx.Err()
}

// Stale implements Store.
func (s *Memory) Stale() bool { return false }

// Leave implements Store.
func (s *Memory) Leave() {}
