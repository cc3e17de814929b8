package limit

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Table has a V for each of the peers that were asked for last; an attacker may name any number. It may be used concurrently,
// and the Vs must allow that too.
type Table[K comparable, V any] struct{ known *lru.Cache[K, *V] }

// NewTable makes a table of at most size peers. Beyond them it forgets who was not asked for longest.
func NewTable[K comparable, V any](size int) *Table[K, V] {
	c, _ := lru.New[K, *V](max(1, size)) // only a size below 1 is an error
	return &Table[K, V]{c}
}

// Of is what belongs to k, a zero V at first. It stays good for who holds it, also when the table has forgotten k.
func (t *Table[K, V]) Of(k K) *V {
	if v, ok := t.known.Get(k); ok {
		return v
	}
	v := new(V)
	if first, there, _ := t.known.PeekOrAdd(k, v); there {
		return first
	}
	return v
}

// Known is what belongs to k, or nil if k was not asked for or is forgotten.
func (t *Table[K, V]) Known(k K) *V {
	v, _ := t.known.Get(k)
	return v
}

// Seats counts what peers hold at the same time, up to a most for each. It may be used concurrently.
type Seats[K comparable] struct {
	most  int
	mu    sync.Mutex
	taken map[K]int
}

// NewSeats makes seats, most for each peer; not above 0: any number, and nothing is counted.
func NewSeats[K comparable](most int) *Seats[K] { return &Seats[K]{most: most, taken: make(map[K]int)} }

// Take takes a seat of k's, which Leave gives back, unless all are taken.
func (s *Seats[K]) Take(k K) bool {
	if s.most <= 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[k] >= s.most {
		return false
	}
	s.taken[k]++
	return true
}

// Leave gives a seat back.
func (s *Seats[K]) Leave(k K) {
	if s.most <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[k]--; s.taken[k] <= 0 {
		delete(s.taken, k)
	}
}
