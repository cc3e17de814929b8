-- revoke.lua: add a revocation or take it back.
-- KEYS 1 rt:rev:{ctl}  2 rt:rev:{ctl}:at  3 rt:rev:{ctl}:v
-- ARGV 1 target  2 expiry, ms ('' = take back)  3 issued before, ms  4 now, ms
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[4], 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[1], gone); redis.call('HDEL', KEYS[2], gone)
end
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1]); redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]); redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
return redis.call('INCR', KEYS[3])
