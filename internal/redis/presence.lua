-- presence.lua: what one node has in a room. Absolute, so that it can be said again.
-- KEYS  1 rt:p:{ch}  2 rt:pc:{ch}  3 rt:t:{ch}
-- ARGV  1 ch  2 PUBLISH|SPUBLISH ('': nobody is told)  3 inc  4 ttl in s  5 the node's totals ('': none)
--       6 length and env of the frame that tells of it  7 how many fields are gone  8.. these, then field, value, ...
local call, base = redis.call, 8
local gone = tonumber(ARGV[7])
local tip = ARGV[2] ~= '' and redis.pcall('GET', KEYS[3])
for i = base, base + gone - 1, 100 do
  call('HDEL', KEYS[1], unpack(ARGV, i, math.min(i + 99, base + gone - 1)))
end
for i = base + gone, #ARGV, 100 do
  call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 99, #ARGV)))
end
if ARGV[5] == '' then call('HDEL', KEYS[2], ARGV[3]) else call('HSET', KEYS[2], ARGV[3], ARGV[5]) end
call('EXPIRE', KEYS[1], ARGV[4])
call('EXPIRE', KEYS[2], ARGV[4])
if ARGV[2] ~= '' then
  call(ARGV[2], ARGV[1], '|' .. (type(tip) == 'string' and tip or '') .. '|1|' .. ARGV[6])
end
return 1
