package auth

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/message"
)

// Ops are operations in a room.
type Ops uint8

// Each is a letter of a grant.
const (
	Receive Ops = 1 << iota // r: join, receive, resume
	Write                   // w: send
	See                     // p: presence frames, who, counts
	History                 // h: history beyond resuming
)

const letters = "rwph" // bit i is letter i

// String returns the letters, always in the order rwph.
func (o Ops) String() string {
	var b []byte
	for i := range len(letters) {
		if o&(1<<i) != 0 {
			b = append(b, letters[i])
		}
	}
	return string(b)
}

// ParseOps reads letters in any order; "" is no operation. Unknown and repeated letters are errors.
func ParseOps(s string) (Ops, error) {
	var o Ops
	for i := range len(s) {
		bit := Ops(1) << max(0, strings.IndexByte(letters, s[i]))
		if strings.IndexByte(letters, s[i]) < 0 || o&bit != 0 {
			return 0, fmt.Errorf("operations %s: they are letters of %q, each at most once", quoted(s), letters)
		}
		o |= bit
	}
	return o, nil
}

// MaxRoomKeys is how many rooms and prefixes one set of grants may name.
const MaxRoomKeys = 1000

// Grants say which operations are allowed in which rooms. They are immutable and shared; nil grants nothing.
type Grants struct {
	exact    map[message.Room]Ops
	prefixes []prefix // sorted by text
}

// prefix is a key that ended in "*".
type prefix struct {
	text string
	ops  Ops
	up   int // the longest other prefix that text begins with, -1: none
}

// CompileGrants reads room keys and their operations. A key is a room's name, or what a room's name may begin with and one
// final "*" that stands for any rest, also an empty one; "*" alone is every room.
func CompileGrants(rooms map[string]string) (*Grants, error) {
	if len(rooms) > MaxRoomKeys {
		return nil, fmt.Errorf("%d room keys, the limit is %d", len(rooms), MaxRoomKeys)
	}
	g := &Grants{exact: make(map[message.Room]Ops)}
	for k, letters := range rooms {
		ops, err := ParseOps(letters)
		if err != nil {
			return nil, fmt.Errorf("room key %s: %w", quoted(k), err)
		}
		text, star := strings.CutSuffix(k, "*")
		if !keyOK(text, star) {
			return nil, fmt.Errorf("room key %s: it is a room's name, or how one begins and a final *", quoted(k))
		}
		if star {
			g.prefixes = append(g.prefixes, prefix{text: text, ops: ops})
		} else {
			g.exact[message.Room(text)] = ops
		}
	}
	slices.SortFunc(g.prefixes, func(a, b prefix) int { return strings.Compare(a.text, b.text) })
	// What a text begins with sorts before it, and whatever lies between the two begins with it as well: so it is the
	// neighbour below or one of those that the neighbour begins with.
	for i := range g.prefixes {
		up := i - 1
		for up >= 0 && !strings.HasPrefix(g.prefixes[i].text, g.prefixes[up].text) {
			up = g.prefixes[up].up
		}
		g.prefixes[i].up = up
	}
	return g, nil
}

func keyOK(text string, star bool) bool {
	if _, err := message.ParseRoom(text); err == nil {
		return true
	}
	_, err := message.ParseRoom(text + "a")
	return star && err == nil
}

// For returns what is allowed in a room: the longest matching key decides alone, exact names first. Rooms that nobody is
// granted, message.Global and users' own, are none of its business and get nothing.
func (g *Grants) For(room message.Room) Ops {
	if g == nil || !room.Ordinary() {
		return 0
	}
	if ops, ok := g.exact[room]; ok {
		return ops
	}
	lo, hi := 0, len(g.prefixes)
	for lo < hi { // the last prefix that is not above the room
		if mid := (lo + hi) / 2; g.prefixes[mid].text <= string(room) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for i := lo - 1; i >= 0; i = g.prefixes[i].up {
		if strings.HasPrefix(string(room), g.prefixes[i].text) {
			return g.prefixes[i].ops
		}
	}
	return 0
}

// quoted makes a foreign string fit for a log: ASCII, escaped, short.
func quoted(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
