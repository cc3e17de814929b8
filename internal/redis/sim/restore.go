package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
)

// piece is an entry as restore.lua sees it.
type piece struct {
	id        id
	prev, env string
}

// restore is restore.lua.
func (c *call) restore(keys, args []string) ([]string, error) {
	s := keys[0]
	tip, _, err := c.get(keys[1], c.now)
	if err != nil {
		return nil, err
	}
	cut, _, err := c.get(keys[2], c.now)
	if err != nil {
		return nil, err
	}
	most := int(number(args[4]))
	suffix, err := c.xrange(s, args[5], "+", false, most+1, c.now)
	if err != nil {
		return nil, err
	}
	if len(suffix) > most {
		return []string{"-1"}, nil
	}
	all, missing, clash := sortOut(suffix, args[5:], parseID(cut))
	reply := append([]string{strconv.Itoa(len(missing))}, clash...)
	if len(missing) == 0 {
		return reply, nil
	}
	for _, e := range suffix {
		if err := c.xdel(s, c.now, e.id); err != nil {
			return nil, err
		}
	}
	before, err := c.putBack(s, all, c.after(args[2]))
	if err != nil {
		return nil, err
	}
	if t := parseID(tip); t.compare(before) > 0 {
		before = t
	}
	c.set(keys[1], before.String(), c.after(args[3]))
	for _, e := range missing {
		c.back = append(c.back, low(e.env))
	}
	for _, e := range missing {
		env := string(binary.BigEndian.AppendUint32(nil, uint32(len(e.env)))) + e.env
		if err := c.send(args[0], fmt.Sprintf("%s|R|1|%s", e.id, env)); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// sortOut tells which of the given entries are missing, and the indexes of those whose place another has; all is what the
// stream's end is to be.
func sortOut(suffix []entry, given []string, cut id) (all, missing []piece, clash []string) {
	lows, used := make(map[string]bool), make(map[id]bool)
	for _, e := range suffix {
		if len(e.fields) >= 4 {
			lows[low(e.value(1))], used[e.id] = true, true
			all = append(all, piece{e.id, e.value(0), e.value(1)})
		}
	}
	for i := 0; i+2 < len(given); i += 3 {
		e := piece{parseID(given[i]), given[i+1], given[i+2]}
		switch {
		case lows[low(e.env)] || cut != (id{}) && cut.compare(e.id) >= 0:
		case used[e.id]:
			clash = append(clash, strconv.Itoa(i/3))
		default:
			used[e.id], lows[low(e.env)] = true, true
			missing, all = append(missing, e), append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b piece) int { return a.id.compare(b.id) })
	return all, missing, clash
}

// putBack appends the stream's end behind what is left of it, and returns its last id.
func (c *call) putBack(s string, all []piece, ends int64) (before id, err error) {
	v, err := c.look(s, stream, c.now)
	if err != nil {
		return id{}, err
	}
	if v != nil && len(v.entries) > 0 {
		before = v.entries[len(v.entries)-1].id
		v.last = before
	} else {
		delete(c.data, s)
	}
	for _, e := range all {
		if before != (id{}) && before.compare(parseID(e.prev)) >= 0 {
			e.prev = before.String()
		}
		if before, err = c.xadd(s, c.now, trim{}, e.id, "p", e.prev, "d", e.env); err != nil {
			return id{}, err
		}
	}
	c.expire(s, ends)
	return before, nil
}
