package message

import (
	"fmt"
	"sort"
	"strings"
)

// Patterns maps room names and prefixes to values. A key is a name, or a prefix followed by one final "*" that stands for
// any rest, also an empty one; "*" alone is every room. The longest matching key decides alone, exact names first. The
// zero Patterns matches nothing.
type Patterns[T any] struct {
	exact  map[string]T
	prefix []prefixed[T] // longest first
}

type prefixed[T any] struct {
	prefix string
	value  T
}

// NewPatterns compiles keys; a "*" elsewhere than at the end is an error that names the key.
func NewPatterns[T any](keys map[string]T) (Patterns[T], error) {
	p := Patterns[T]{exact: make(map[string]T)}
	for k, v := range keys {
		name, star := strings.CutSuffix(k, "*")
		if strings.Contains(name, "*") || k == "" {
			return Patterns[T]{}, fmt.Errorf("room pattern %q: it is a name, or a prefix with one * at the end", k)
		}
		if star {
			p.prefix = append(p.prefix, prefixed[T]{name, v})
		} else {
			p.exact[name] = v
		}
	}
	sort.Slice(p.prefix, func(i, j int) bool { return len(p.prefix[i].prefix) > len(p.prefix[j].prefix) })
	return p, nil
}

// Lookup returns the value of the key that decides for room.
func (p Patterns[T]) Lookup(room Room) (v T, ok bool) {
	if v, ok = p.exact[string(room)]; ok {
		return v, true
	}
	for _, e := range p.prefix {
		if strings.HasPrefix(string(room), e.prefix) {
			return e.value, true
		}
	}
	return v, false
}
