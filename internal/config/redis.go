package config

import "strings"

// checkRedis leaves the URL to who dials it.
func (c *Serve) checkRedis(p *problems) {
	if c.RedisURL == "" && (c.RedisTLSCA != "" || c.ReadyNeedsRedis) {
		p.add("--redis-tls-ca and --ready-needs-redis say nothing without --redis-url")
	}
	if strings.ContainsAny(c.RedisPrefix, "{}") {
		p.add("--redis-prefix must not contain { or }: they mark what Redis Cluster hashes")
	}
	if c.RedisWait < 0 {
		p.add("--redis-wait must not be below 0")
	}
	for room, mode := range c.DegradedRoom {
		if mode != "local" && mode != "reject" {
			p.add("--degraded-room: %s=%s: the mode is local or reject", room, mode)
		}
	}
}
