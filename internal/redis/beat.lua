-- beat.lua: say that a node is there, and learn what all nodes must know.
-- KEYS 1 rt:bus:{ctl}  2 rt:born:{ctl}   ARGV 1 the node, inc:name ('' = only ask)  2 lease ms
-- reply Redis' ms, ms since when this data set exists, then the nodes that are there
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('SET', KEYS[2], now, 'NX')
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now - 60000)
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
end
local out = {tostring(now), redis.call('GET', KEYS[2]) or ''}
for _, m in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do out[#out + 1] = m end
return out
