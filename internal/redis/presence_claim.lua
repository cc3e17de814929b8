-- presence_claim.lua: one more session of a user on one node, if with those on other nodes there are not too many.
-- KEYS  1 rt:u:{ch}
-- ARGV  1 inc  2 ttl in s  3 value with the session  4 sessions in it  5 most  6.. incs of nodes that are dead
-- reply {'1'} taken; {'0', incs of the other nodes that were counted} not
local call, sum, counted, dead = redis.call, tonumber(ARGV[4]), {'0'}, {[ARGV[1]] = true}
for i = 6, #ARGV do dead[ARGV[i]] = true end
local all = call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local n = string.match(all[i + 1], '^%w+,%w+,%w+,%w+,(%w+)')
  n = n and tonumber(n, 36) or 0
  if n > 0 and not dead[all[i]] then
    sum = sum + n
    counted[#counted + 1] = all[i]
  end
end
if sum > tonumber(ARGV[5]) then return counted end
call('HSET', KEYS[1], ARGV[1], ARGV[3])
call('EXPIRE', KEYS[1], ARGV[2])
return {'1'}
