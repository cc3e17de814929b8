-- lease_end.lua: a node leaves. What it has written stands until the grace is over, but nobody waits for its answers.
-- KEYS  1 rt:nodes:{ctl}
-- ARGV  1 inc  2 grace in ms
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2]
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('ZADD', KEYS[1], string.format('%.0f', ends), ARGV[1] .. '~')
