-- delete.lua: empty a room's history; its tip stays, so positions go on.
-- KEYS 1 rt:s:{ch}  2 rt:t:{ch}  3 rt:x:{ch}   ARGV 1 ch  2 PUBLISH|SPUBLISH  3 tip ttl s
local tip = redis.call('GET', KEYS[2])
if not tip then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[3], tip, 'EX', ARGV[3])
local n = redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
redis.call(ARGV[2], ARGV[1], tip .. '|D|0|')             -- to every log: drop what it holds up to tip, append one gap/deleted
return n
