package redis

import (
	"context"
	_ "embed" // the script
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/slack5/realtime/internal/message"
	"github.com/slack5/realtime/internal/presence"
)

var (
	//go:embed presence_claim.lua
	presenceClaimLua string

	presenceClaimScript = rueidis.NewLuaScript(presenceClaimLua)
)

// Claim implements presence.Store. The script does not know which nodes live: it counts all that have a field. Those that turn
// out to be dead are left out the next time.
func (p *Presence) Claim(ctx context.Context, own presence.Field, most int) (taken bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	c := p.conn.Load()
	ch := p.keys.channel(message.UserRoom(own.User))
	if c == nil || p.Stale() || p.bus.isAway(ch) || p.left.Load() {
		return int(own.Sessions) <= most, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.CallTimeout)
	defer cancel()
	args := []string{
		p.inc, seconds(p.cfg.TTL), string(appendState(nil, &own.State)), strconv.Itoa(int(own.Sessions)), strconv.Itoa(most),
	}
	key := p.keys.users(ch)
	defer p.behindWrites(ctx, own.User)()
	for {
		counted, err := p.tryClaim(ctx, c.command, key, args)
		if err != nil && (p.Stale() || p.bus.isAway(ch)) && ctx.Err() == nil {
			return int(own.Sessions) <= most, nil
		}
		if err != nil {
			return false, fmt.Errorf("claim of a session: %w", err)
		}
		if counted == nil {
			return true, nil
		}
		alive, err := p.alive(ctx, counted)
		if err != nil {
			return false, fmt.Errorf("claim of a session: %w", err)
		}
		before := len(args)
		for inc := range counted {
			if !alive[inc] {
				args = append(args, inc)
				p.waste.add(key, inc, inc)
			}
		}
		if len(args) == before {
			return false, nil
		}
	}
}

// behindWrites waits until what was put of a user is written, which else would take his claim back; then nothing is written
// until the returned function is called. A Redis that is slow is not waited for.
func (p *Presence) behindWrites(ctx context.Context, user string) (release func()) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.CallTimeout/2)
	defer cancel()
	for {
		if p.writing.TryRLock() {
			if !p.own.waits(user) {
				return p.writing.RUnlock
			}
			p.writing.RUnlock()
			signal(p.flush)
		}
		if !pause(ctx, 2*time.Millisecond) {
			return func() {}
		}
	}
}

// tryClaim returns the nodes that stand in the way; nil: the claim is taken.
func (p *Presence) tryClaim(ctx context.Context, c rueidis.Client, key string, args []string) (counted map[string]bool, err error) {
	reply, err := presenceClaimScript.Exec(ctx, c, []string{key}, args).AsStrSlice()
	if err != nil {
		return nil, err
	}
	if len(reply) == 0 {
		return nil, errJunk
	}
	if reply[0] == "1" {
		return nil, nil
	}
	counted = make(map[string]bool, len(reply)-1)
	for _, inc := range reply[1:] {
		counted[inc] = true
	}
	return counted, nil
}
