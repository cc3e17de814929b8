-- check.lua: try what the other scripts need.
-- KEYS 1 rt:check:{ctl}   ARGV 1 PUBLISH or SPUBLISH  2 a channel in the key's slot
local call, k = redis.call, KEYS[1]
call('XADD', k, 'MINID', '~', '1', '*', 'p', '', 'd', '')
call('DEL', k)
call(ARGV[1], ARGV[2], 'check')
return call('TIME')
