package sim

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/slack5/realtime/internal/redis"
)

// errRefused is Redis' answer to a script whose user may not publish on a channel.
const errRefused = redis.ServerError("The user executing the script can't publish to the channel mentioned in the command")

// published is what was published.
type published struct{ channel, text string }

// call is a script under way: a transition of the data at a time, and what it publishes. As in Redis, what was written
// before an error stays.
type call struct {
	data
	now   int64 // Unix ms
	mute  bool  // publishing is refused
	loose bool  // trimming keeps all, as a server may that is asked to trim about so much
	out   []published
	back  []string // the low halves of what was put back
}

// run runs a script.
func (c *call) run(s redis.Script, keys, args []string) ([]string, error) {
	switch s {
	case redis.ScriptPublish:
		return c.publish(keys, args)
	case redis.ScriptDelete:
		return c.remove(keys, args)
	case redis.ScriptRestore:
		return c.restore(keys, args)
	case redis.ScriptLease:
		return c.lease(keys, args)
	case redis.ScriptLeaseEnd:
		return c.leaseEnd(keys, args)
	case redis.ScriptRevoke:
		return c.revoke(keys, args)
	}
	return nil, redis.ServerError("NOSCRIPT No matching script")
}

func (c *call) send(channel, text string) error {
	if c.mute {
		return errRefused
	}
	c.out = append(c.out, published{channel, text})
	return nil
}

// after is the time in so many seconds.
func (c *call) after(seconds string) int64 { return c.now + number(seconds)*1000 }

// number reads what a script takes for one.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func low(env string) string { return env[:min(8, len(env))] }

// publication is what publish.lua knows between its steps.
type publication struct {
	keys, args, envs []string
	prev, last       string
	done             map[string]string // by low half, what the retry scan has found
	receipts         map[string]string
	first            string
	sent             int
	body             strings.Builder
}

func (c *call) publish(keys, args []string) ([]string, error) {
	n := len(args) - 9
	if len(keys) > 2 {
		n = int(number(args[len(args)-1]))
	}
	p := publication{keys: keys, args: args, envs: args[9 : 9+n]}
	if err := c.before(&p); err != nil {
		return nil, err
	}
	out := []string{p.prev}
	p.last = p.prev
	for i, env := range p.envs {
		key := ""
		if p.receipts != nil {
			if at := int(number(args[9+n+i])); at > 0 {
				key = keys[at-1]
			}
		}
		say, err := c.store(&p, env, key)
		if err != nil {
			return nil, err
		}
		out = append(out, say)
	}
	if p.first != "" {
		c.set(keys[1], p.last, c.after(args[5]))
		if cut8(p.prev) != cut8(p.last) {
			c.expire(keys[0], c.after(args[4]))
		}
	}
	if p.sent > 0 {
		if err := c.send(args[0], fmt.Sprintf("%s|%s|%d|%s", p.first, p.prev, p.sent, p.body.String())); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func cut8(s string) string { return s[:min(8, len(s))] }

// before reads: the tip, what a first try has stored, and receipts.
func (c *call) before(p *publication) (err error) {
	if p.prev, _, err = c.get(p.keys[1], c.now); err != nil {
		return err
	}
	if floor := p.args[7]; floor != "" {
		es, err := c.xrange(p.keys[0], "("+floor, "+", false, 8*1024, c.now)
		if err != nil {
			return err
		}
		tried := make(map[string]bool)
		for _, env := range p.envs {
			tried[low(env)] = true
		}
		p.done = make(map[string]string)
		for _, e := range es {
			if l := low(e.value(1)); tried[l] {
				p.done[l] = "=" + e.id.String() + "|" + e.value(0)
			}
		}
	}
	if len(p.keys) > 2 {
		p.receipts = make(map[string]string)
		for _, key := range p.keys[2:] {
			s, ok, err := c.get(key, c.now)
			if err != nil {
				return err
			}
			if ok {
				p.receipts[key] = s
			}
		}
	}
	return nil
}

// store does what is to be done for one message, and says it.
func (c *call) store(p *publication, env, key string) (say string, err error) {
	if s, ok := p.done[low(env)]; ok {
		return s, nil
	}
	if s, ok := p.receipts[key]; ok && key != "" {
		return "!" + s, nil
	}
	if env[8]&4 != 0 {
		say = "~"
	} else {
		at, err := c.place(p, env)
		if err != nil {
			return "", err
		}
		if p.first == "" {
			p.first = at
		}
		p.last, say = at, "+"+at
	}
	if key != "" {
		p.receipts[key] = p.last + "|" + env[:min(25, len(env))]
		c.set(key, p.receipts[key], c.after(p.args[6]))
	}
	p.sent++
	p.body.Write(binary.BigEndian.AppendUint32(nil, uint32(len(env))))
	p.body.WriteString(env)
	return say, nil
}

// place appends a message to the stream: where the server puts it, unless positions known demand a later place.
func (c *call) place(p *publication, env string) (string, error) {
	s := p.keys[0]
	floor := parseID(p.last)
	if p.first == "" {
		t := trim{p.args[2], uint64(number(p.args[3])), trimMost}
		if c.loose {
			t = trim{}
		}
		at, err := c.xadd(s, c.now, t, id{}, "p", p.prev, "d", env)
		if err != nil {
			return "", err
		}
		if floor.compare(at) < 0 {
			floor = id{}
		}
		if guard, least := parseID(p.args[8]), at; guard != (id{}) {
			if floor != (id{}) {
				least = floor
			}
			if guard.compare(least) >= 0 && int64(guard.ms) <= c.now+10_000 {
				floor = guard
			}
		}
		if floor == (id{}) && at.seq > 4095 {
			floor = at
		}
		if floor == (id{}) {
			return at.String(), nil
		}
		if err := c.xdel(s, c.now, at); err != nil {
			return "", err
		}
	}
	at, err := c.xadd(s, c.now, trim{}, floor.next(), "p", p.last, "d", env)
	return at.String(), err
}

// remove is delete.lua.
func (c *call) remove(keys, args []string) ([]string, error) {
	tip, ok, err := c.get(keys[1], c.now)
	if err != nil {
		return nil, err
	}
	if !ok {
		n := 0
		if v := c.data[keys[0]]; v != nil && (v.ends == 0 || v.ends > c.now) {
			n = 1
		}
		delete(c.data, keys[0])
		return []string{strconv.Itoa(n)}, nil
	}
	c.set(keys[2], tip, c.after(args[2]))
	v, err := c.look(keys[0], stream, c.now)
	if err != nil {
		return nil, err
	}
	n := 0
	if v != nil {
		n = v.trim(trim{how: "MAXLEN"})
	}
	if err := c.send(args[0], tip+"|D|0|"); err != nil {
		return nil, err
	}
	return []string{strconv.Itoa(n)}, nil
}
