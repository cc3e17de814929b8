package sim

import (
	"cmp"
	"slices"
	"strconv"
)

// scored returns the members of a set whose scores lie between two, by score and name, up to most of them; 0: all.
func (v *value) scored(from, to int64, most int) (names []string) {
	if v == nil {
		return nil
	}
	for name, n := range v.scores {
		if n >= from && n <= to {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(v.scores[a], v.scores[b]), cmp.Compare(a, b)) })
	if most > 0 && len(names) > most {
		names = names[:most]
	}
	return names
}

const (
	lowest  = -1 << 63
	highest = 1<<63 - 1
)

// lease is lease.lua.
func (c *call) lease(keys, args []string) ([]string, error) {
	inc, state := args[0], "0"
	v, err := c.make(keys[0], scores, c.now)
	if err != nil {
		return nil, err
	}
	if inc != "" {
		if ends, ok := v.scores[inc]; !ok || ends <= c.now {
			state = "1"
		}
		if old := c.data[keys[1]]; old == nil {
			c.set(keys[1], strconv.FormatInt(c.now, 10), 0)
		}
		v.scores[inc] = c.now + number(args[1])
		for _, name := range v.scored(lowest, c.now-number(args[2]), 0) {
			delete(v.scores, name)
		}
	}
	reply := []string{state, strconv.FormatInt(c.now, 10)}
	for _, key := range keys[1:] {
		s, _, err := c.get(key, c.now)
		if err != nil {
			return nil, err
		}
		reply = append(reply, s)
	}
	for _, name := range v.scored(c.now+1, highest, 0) {
		reply = append(reply, name, strconv.FormatInt(v.scores[name], 10))
	}
	return reply, nil
}

// leaseEnd is lease_end.lua.
func (c *call) leaseEnd(keys, args []string) ([]string, error) {
	v, err := c.make(keys[0], scores, c.now)
	if err != nil {
		return nil, err
	}
	delete(v.scores, args[0])
	_, there := v.scores[args[0]+"~"]
	v.scores[args[0]+"~"] = c.now + number(args[1])
	if there {
		return []string{"0"}, nil
	}
	return []string{"1"}, nil
}

// revoke is revoke.lua.
func (c *call) revoke(keys, args []string) ([]string, error) {
	ends, err := c.make(keys[0], scores, c.now)
	if err != nil {
		return nil, err
	}
	since, err := c.make(keys[1], fields, c.now)
	if err != nil {
		return nil, err
	}
	for _, gone := range ends.scored(lowest, number(args[3]), 1000) {
		delete(ends.scores, gone)
		delete(since.fields, gone)
	}
	if args[1] == "" {
		delete(ends.scores, args[0])
		delete(since.fields, args[0])
	} else {
		ends.scores[args[0]], since.fields[args[0]] = number(args[1]), args[2]
	}
	v, _, err := c.get(keys[2], c.now)
	if err != nil {
		return nil, err
	}
	version := strconv.FormatInt(number(v)+1, 10)
	c.set(keys[2], version, 0)
	return []string{version}, nil
}
