-- presence_user.lua: what one node has of a user, in whatever room.
-- KEYS  1 rt:u:{ch}  2 rt:seen:{ch}  3 rt:t:{ch}
-- ARGV  1 ch  2 PUBLISH|SPUBLISH  3 inc  4 ttl in s  5 value ('': gone)  6 last seen, Unix ms  7 ttl of that in s
--       8 length and env of the frame that tells of it
local call = redis.call
local tip = redis.pcall('GET', KEYS[3])
if ARGV[5] == '' then call('HDEL', KEYS[1], ARGV[3]) else call('HSET', KEYS[1], ARGV[3], ARGV[5]) end
call('EXPIRE', KEYS[1], ARGV[4])
local seen = redis.pcall('GET', KEYS[2])
seen = type(seen) == 'string' and tonumber(seen) or 0
if tonumber(ARGV[6]) >= seen then call('SET', KEYS[2], ARGV[6], 'EX', ARGV[7]) end
call(ARGV[2], ARGV[1], '|' .. (type(tip) == 'string' and tip or '') .. '|1|' .. ARGV[8])
return 1
