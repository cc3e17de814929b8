-- check.lua: try what the other scripts need.
-- KEYS 1 rt:check:{ctl}   ARGV 1 a channel
local call, k = redis.call, KEYS[1]
call('XADD', k, 'MINID', '~', '1', '*', 'p', '', 'd', '')
call('DEL', k)
call('PUBLISH', ARGV[1], 'check')
return call('TIME')
