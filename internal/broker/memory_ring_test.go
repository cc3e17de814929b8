package broker

import (
	"math/rand/v2"
	"testing"
)

func TestARingIsAQueueAndShrinksWithWhatItHolds(t *testing.T) {
	var r ring[int]
	next, oldest := 0, 0
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		if grow := random.IntN(2) == 0; r.n == 0 || grow && r.n < 1000 {
			for range random.IntN(40) + 1 {
				r.push(next)
				next++
			}
		} else {
			for range min(random.IntN(40)+1, r.n) {
				if got := r.pop(); got != oldest {
					t.Fatalf("pop = %d, want %d", got, oldest)
				}
				oldest++
			}
		}
		if r.n != next-oldest {
			t.Fatalf("n = %d, want %d", r.n, next-oldest)
		}
		if r.n > 0 {
			if i := random.IntN(r.n); r.at(i) != oldest+i {
				t.Fatalf("at(%d) = %d, want %d", i, r.at(i), oldest+i)
			}
		}
		if len(r.buf) > max(minRing, 4*r.n) {
			t.Fatalf("%d places for %d", len(r.buf), r.n)
		}
	}
}

func TestARingDoesNotHoldWhatWasTaken(t *testing.T) {
	var r ring[*int]
	for i := range 10 {
		r.push(&i)
	}
	for range 5 { // of 16 places: not yet few enough for a smaller ring
		r.pop()
	}
	held := 0
	for _, p := range r.buf {
		if p != nil {
			held++
		}
	}
	if held != 5 {
		t.Errorf("%d pointers are held for 5 entries", held)
	}
}
