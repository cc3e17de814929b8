-- lease.lua: renew a node's lease, and learn what all nodes must know. Times are ms of Redis' clock.
-- KEYS  1 rt:nodes:{ctl}  2 rt:born:{ctl}  3 rt:rev:{ctl}:v
-- ARGV  1 inc ('': only look)  2 how long the lease is  3 how long one that is over is remembered
-- reply {state, now, since when this data set exists, version of the revocations, inc, end, inc, end, ...}
--       state 0: the lease stood  1: it was over, or not there
local call, nodes, inc = redis.call, KEYS[1], ARGV[1]
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function ms(n) return string.format('%.0f', n) end
local state = '0'
if inc ~= '' then
  local ends = call('ZSCORE', nodes, inc)
  if not ends or tonumber(ends) <= now then state = '1' end
  call('SET', KEYS[2], ms(now), 'NX')
  call('ZADD', nodes, ms(now + ARGV[2]), inc)
  call('ZREMRANGEBYSCORE', nodes, '-inf', ms(now - ARGV[3]))
end
local reply = {state, ms(now), call('GET', KEYS[2]) or '', call('GET', KEYS[3]) or ''}
for _, v in ipairs(call('ZRANGEBYSCORE', nodes, '(' .. ms(now), '+inf', 'WITHSCORES')) do reply[#reply + 1] = v end
return reply
