-- restore.lua: put lost entries of one room back at their original positions. Idempotent.
-- KEYS  1 rt:s:{ch}  2 rt:t:{ch}  3 rt:x:{ch}
-- ARGV  1 ch  2 PUBLISH|SPUBLISH  3 stream ttl s  4 tip ttl s  5 longest suffix (500)
--       6.. per entry, ascending: pos, prev, env  (as the journal has them)
-- reply restored, then the indexes (from 0) of entries whose position another message holds; '-1': suffix too long, nothing done
local call, sub, s = redis.call, string.sub, KEYS[1]
local function ge(a, b)
  local x, y = sub(a, 1, 13), sub(b, 1, 13)
  return x > y or x == y and (#a > #b or #a == #b and a >= b)
end
local tip, cut = call('GET', KEYS[2]), call('GET', KEYS[3])
local suf = call('XRANGE', s, ARGV[6], '+', 'COUNT', ARGV[5] + 1)
if #suf > tonumber(ARGV[5]) then return {'-1'} end
local low, used, all, miss, clash = {}, {}, {}, {}, {}
for _, e in ipairs(suf) do
  if e[2][4] then                                        -- (an entry of another shape is not ours: dropped)
    low[sub(e[2][4], 1, 8)], used[e[1]], all[#all + 1] = true, true, {e[1], e[2][2], e[2][4]}
  end
end
for i = 6, #ARGV, 3 do
  if not low[sub(ARGV[i + 2], 1, 8)] and not (cut and ge(cut, ARGV[i])) then   -- not what DeleteHistory removed
    if used[ARGV[i]] then clash[#clash + 1] = tostring((i - 6) / 3)
    else
      used[ARGV[i]], low[sub(ARGV[i + 2], 1, 8)] = true, true
      miss[#miss + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2]}; all[#all + 1] = miss[#miss]
    end
  end
end
if #miss == 0 then return {'0', unpack(clash)} end
table.sort(all, function(a, b) return not ge(a[1], b[1]) end)
for i = 1, #suf, 100 do                                  -- cut the suffix off
  local ids = {}
  for j = i, math.min(i + 99, #suf) do ids[#ids + 1] = suf[j][1] end
  call('XDEL', s, unpack(ids))
end
local top = call('XREVRANGE', s, '+', '-', 'COUNT', 1)[1]
if not top then call('DEL', s)
elseif redis.pcall('XSETID', s, top[1]).err then         -- newer servers refuse to go below a deleted id: rewrite all
  local pre = call('XRANGE', s, '-', '+'); call('DEL', s)
  for _, e in ipairs(pre) do call('XADD', s, e[1], unpack(e[2])) end
end
local before = top and top[1] or ''
for _, e in ipairs(all) do                               -- prev = what it was, or the new predecessor if that is later
  if before ~= '' and (e[2] == '' or ge(before, e[2])) then e[2] = before end
  call('XADD', s, e[1], 'p', e[2], 'd', e[3]); before = e[1]
end
call('EXPIRE', s, ARGV[3])
if tip and ge(tip, before) then before = tip end
call('SET', KEYS[2], before, 'EX', ARGV[4])
for _, e in ipairs(miss) do
  call(ARGV[2], ARGV[1], e[1] .. '|R|1|' .. struct.pack('>I4', #e[3]) .. e[3])
end
return {tostring(#miss), unpack(clash)}
