-- publish.lua: store and publish n messages of one room, atomically. n = 1 is the ordinary publish.
-- KEYS  1 rt:s:{ch}  2 rt:t:{ch}  3.. rt:i:{ch}:<hash>, one per message that has an idempotency key
-- ARGV  1 ch  2 PUBLISH|SPUBLISH  3 MINID|MAXLEN  4 trim threshold  5 stream ttl s  6 tip ttl s  7 idempotency ttl s
--       8 retry floor ('' on the first try)  9 guard floor ('' normally)  10.. n envs
--       then, only if any message has a key: n indexes into KEYS ('' = none), and n as the last argument
-- reply prev, then per message: '+pos' stored, '~' not stored (ephemeral), both now published;
--       '=pos|prev' found by the retry scan; '!pos|env[0:25]' idempotency hit: the receipt of the first
local call, sub, s = redis.call, string.sub, KEYS[1]
local n = #KEYS > 2 and tonumber(ARGV[#ARGV]) or #ARGV - 9
-- 1. reads: a foreign type fails here, before any write
local prev, done, rec = call('GET', KEYS[2]) or '', nil, nil
if ARGV[8] ~= '' then                                    -- outcome of the first try unknown: is it there?
  local from, low = '(' .. ARGV[8], {}; done = {}
  for i = 10, 9 + n do low[sub(ARGV[i], 1, 8)] = true end
  for _ = 1, 8 do                                        -- oldest first: ours sits just behind the floor
    local es = call('XRANGE', s, from, '+', 'COUNT', 1024)
    for _, e in ipairs(es) do
      local l = sub(e[2][4] or '', 1, 8)
      if low[l] then done[l] = '=' .. e[1] .. '|' .. e[2][2] end
    end
    if #es < 1024 then break end
    from = '(' .. es[1024][1]
  end
end
if #KEYS > 2 then rec = {}; for i = 3, #KEYS do rec[KEYS[i]] = call('GET', KEYS[i]) end end
-- 2. writes
local out, body, k, first, last = {prev}, {}, 0, nil, prev
for i = 1, n do
  local env, key = ARGV[9 + i], rec and KEYS[tonumber(ARGV[9 + n + i])]
  if done and done[sub(env, 1, 8)] then out[i + 1] = done[sub(env, 1, 8)]
  elseif key and rec[key] then out[i + 1] = '!' .. rec[key]
  else
    if bit.band(string.byte(env, 9), 4) ~= 0 then out[i + 1] = '~'   -- flag E: not stored
    else
      local id, floor
      if first then floor = last                         -- positions of one script are consecutive by construction
      else
        id = call('XADD', s, ARGV[3], '~', ARGV[4], '*', 'p', prev, 'd', env)
        local a, b = sub(prev, 1, 13), sub(id, 1, 13)    -- 13 digits of ms until 2286
        if a > b or a == b and (#prev > #id or #prev == #id and prev >= id) then floor = prev end
        if ARGV[9] ~= '' then                            -- guard floor; > 10 s ahead of Redis' clock: poison, ignored
          local g, f, now = ARGV[9], floor or id, call('TIME')
          local x, y = sub(g, 1, 13), sub(f, 1, 13)
          if (x > y or x == y and (#g > #f or #g == #f and g >= f))
            and tonumber(x) <= now[1] * 1000 + now[2] / 1000 + 10000 then floor = g end
        end
        if not floor and #id >= 18 and tonumber(sub(id, 15)) > 4095 then floor = id end
        if floor then call('XDEL', s, id) end
      end
      if floor then                                      -- the position after floor; 12 bits of seq
        local ms, seq = tonumber(sub(floor, 1, 13)), tonumber(sub(floor, 15))
        if seq >= 4095 then ms, seq = ms + 1, -1 end
        id = string.format('%d-%d', ms, seq + 1)
        call('XADD', s, id, 'p', last, 'd', env)
      end
      first, last, out[i + 1] = first or id, id, '+' .. id
    end
    if key then
      rec[key] = last .. '|' .. sub(env, 1, 25)
      call('SET', key, rec[key], 'EX', ARGV[7])
    end
    k = k + 1
    body[2 * k - 1], body[2 * k] = struct.pack('>I4', #env), env
  end
end
if first then
  call('SET', KEYS[2], last, 'EX', ARGV[6])
  if sub(prev, 1, 8) ~= sub(last, 1, 8) then call('EXPIRE', s, ARGV[5]) end   -- at most every 100 s
end
if k > 0 then                                            -- pos1|prev|n| then n x (length, env)
  call(ARGV[2], ARGV[1], (first or '') .. '|' .. prev .. '|' .. k .. '|' .. table.concat(body))
end
return out
