-- lease.lua: renew a node's lease, and tell which nodes live. Times are ms of Redis' clock.
-- KEYS  1 rt:nodes:{ctl}
-- ARGV  1 inc ('': only look)  2 how long the lease is  3 how long one that is over is remembered
--       4 '1': the inc's number (what stands before its first dot) must be one that no lease has
-- reply {state, now, inc, end, inc, end, ...}
--       state 0: the lease stood  1: it was over, or not there  2: the number is taken, nothing was done
local call, nodes, inc = redis.call, KEYS[1], ARGV[1]
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function ms(n) return string.format('%.0f', n) end
local state = 0
if inc ~= '' then
  if ARGV[4] == '1' then
    local number = string.match(inc, '^[^.]*%.')
    for _, other in ipairs(call('ZRANGE', nodes, 0, -1)) do
      if number and string.sub(other, 1, #number) == number then return {2} end
    end
  end
  local ends = call('ZSCORE', nodes, inc)
  if not ends or tonumber(ends) <= now then state = 1 end
  call('ZADD', nodes, ms(now + ARGV[2]), inc)
end
call('ZREMRANGEBYSCORE', nodes, '-inf', ms(now - ARGV[3]))
local reply = {state, ms(now)}
for _, v in ipairs(call('ZRANGEBYSCORE', nodes, '(' .. ms(now), '+inf', 'WITHSCORES')) do reply[#reply + 1] = v end
return reply
