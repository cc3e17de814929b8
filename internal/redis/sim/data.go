package sim

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/redis"
)

// Errors that Redis answers.
const (
	errType  = redis.ServerError("WRONGTYPE Operation against a key holding the wrong kind of value")
	errSmall = redis.ServerError("The ID specified in XADD is equal or smaller than the target stream top item")
	errID    = redis.ServerError("Invalid stream ID specified as stream command argument")
)

// id is the id of a stream's entry. The zero id is none.
type id struct{ ms, seq uint64 }

func (a id) compare(b id) int { return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.seq, b.seq)) }

func (a id) String() string {
	if a == (id{}) {
		return ""
	}
	return strconv.FormatUint(a.ms, 10) + "-" + strconv.FormatUint(a.seq, 10)
}

// next is the id behind one; its sequence number has 12 bits, as our positions have.
func (a id) next() id {
	if a.seq >= 4095 {
		return id{a.ms + 1, 0}
	}
	return id{a.ms, a.seq + 1}
}

// parseID reads an id; what is none is the zero id.
func parseID(s string) id {
	a, b, _ := strings.Cut(s, "-")
	ms, err := strconv.ParseUint(a, 10, 64)
	seq, err2 := strconv.ParseUint(b, 10, 64)
	if err != nil || err2 != nil {
		return id{}
	}
	return id{ms, seq}
}

// entry is an entry of a stream: names and values in turn.
type entry struct {
	id     id
	fields []string
}

// second is the value of its n-th field, "" if it has less.
func (e entry) value(n int) string {
	if 2*n+1 < len(e.fields) {
		return e.fields[2*n+1]
	}
	return ""
}

func (e entry) named(name string) (v string) {
	for i := 0; i+1 < len(e.fields); i += 2 {
		if e.fields[i] == name {
			v = e.fields[i+1]
		}
	}
	return v
}

type kind uint8

const (
	text kind = iota
	stream
	scores
	fields
)

// value is what a key holds.
type value struct {
	kind    kind
	text    string
	entries []entry
	last    id // the largest id the stream ever had, as far as it knows
	scores  map[string]int64
	fields  map[string]string
	ends    int64 // Unix ms; 0: never
}

// data is all that a server holds. Its methods are Redis' commands at a given time, in ms.
type data map[string]*value

func (d data) clone() data {
	c := make(data, len(d))
	for k, v := range d {
		w := *v
		w.entries, w.scores, w.fields = slices.Clone(v.entries), maps.Clone(v.scores), maps.Clone(v.fields)
		c[k] = &w
	}
	return c
}

// look returns what a key holds, nil if nothing.
func (d data) look(key string, k kind, now int64) (*value, error) {
	v := d[key]
	if v != nil && v.ends != 0 && v.ends <= now {
		delete(d, key)
		return nil, nil
	}
	if v != nil && v.kind != k {
		return nil, errType
	}
	return v, nil
}

// make is look, and what is not there is made.
func (d data) make(key string, k kind, now int64) (*value, error) {
	v, err := d.look(key, k, now)
	if v == nil && err == nil {
		v = &value{kind: k}
		switch k {
		case scores:
			v.scores = make(map[string]int64)
		case fields:
			v.fields = make(map[string]string)
		case text, stream:
		}
		d[key] = v
	}
	return v, err
}

func (d data) get(key string, now int64) (s string, ok bool, err error) {
	v, err := d.look(key, text, now)
	if v == nil {
		return "", false, err
	}
	return v.text, true, nil
}

func (d data) set(key, s string, ends int64) { d[key] = &value{kind: text, text: s, ends: ends} }

func (d data) expire(key string, ends int64) {
	if v := d[key]; v != nil {
		v.ends = ends
	}
}

// trim is how much of a stream is kept; the zero trim keeps all.
type trim struct {
	how       string // MINID, MAXLEN
	threshold uint64
	most      int // so many are removed at once; 0: no bound
}

// trimMost is what a server with one entry per node of a stream removes at once if it is asked to trim about so much.
const trimMost = 100

// xadd appends an entry; at is its id, or the zero id for the next one.
func (d data) xadd(key string, now int64, t trim, at id, fs ...string) (id, error) {
	v, err := d.make(key, stream, now)
	if err != nil {
		return id{}, err
	}
	switch {
	case at == (id{}) && uint64(now) > v.last.ms:
		at = id{uint64(now), 0}
	case at == (id{}):
		at = id{v.last.ms, v.last.seq + 1}
	case at.compare(v.last) <= 0:
		return id{}, errSmall
	}
	v.entries = append(v.entries, entry{at, fs})
	v.last = at
	v.trim(t)
	return at, nil
}

// trim is exact. A server that is asked to trim about so much may keep more.
func (v *value) trim(t trim) (n int) {
	switch t.how {
	case "MAXLEN":
		n = max(0, len(v.entries)-int(min(t.threshold, math.MaxInt32)))
	case "MINID":
		n, _ = v.find(id{t.threshold, 0})
	}
	if t.most > 0 {
		n = min(n, t.most)
	}
	v.entries = slices.Delete(v.entries, 0, n)
	return n
}

// find returns where an id is, or would be.
func (v *value) find(at id) (int, bool) {
	return slices.BinarySearchFunc(v.entries, at, func(e entry, at id) int { return e.id.compare(at) })
}

func (d data) xdel(key string, now int64, ids ...id) error {
	v, err := d.look(key, stream, now)
	if v == nil {
		return err
	}
	for _, at := range ids {
		if i, ok := v.find(at); ok {
			v.entries = slices.Delete(v.entries, i, i+1)
		}
	}
	return nil
}

// xrange reads up to count entries between two ids as XRANGE takes them, the newest first if backward; count 0: all.
func (d data) xrange(key, from, to string, backward bool, count int, now int64) ([]entry, error) {
	v, err := d.look(key, stream, now)
	if v == nil {
		return nil, err
	}
	i, j := 0, len(v.entries)
	if from != "-" {
		at := parseID(strings.TrimPrefix(from, "("))
		if at == (id{}) {
			return nil, errID
		}
		var found bool
		if i, found = v.find(at); found && from[0] == '(' {
			i++
		}
	}
	if to != "+" {
		at := parseID(strings.TrimPrefix(to, "("))
		if at == (id{}) {
			return nil, errID
		}
		var found bool
		if j, found = v.find(at); found && to[0] != '(' {
			j++
		}
	}
	if i >= j {
		return nil, nil
	}
	es := slices.Clone(v.entries[i:j])
	if backward {
		slices.Reverse(es)
	}
	if count > 0 && len(es) > count {
		es = es[:count]
	}
	return es, nil
}
