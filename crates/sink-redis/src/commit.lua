-- One call of a commit: taken only if the lane's link is the one it follows (rule: fleetlog_projection::judge).
-- KEYS: lane, ledger, homes..., lists...
-- ARGV: follows ('' for none), leaves, number of homes, for each of them (in one text) + if it has to be there, - if it
--       must not, ? if both is well,
--       number of progress arguments, field, value, ...
--       number of set-asides, then offset, JSON of each
--       number of entries that a command changes, then offset, JSON of each
--       per home: number of set arguments, number of removed fields, expiry ('' untouched, '-' never, else ms),
--                 field, value, ..., removed field, ...
--       per list: number of add arguments, number of removed members, score, member, ..., removed member, ...
-- Returns 1 if taken, 0 if it was its turn but a home is not as it has to be, else the stored link ('' for none).
local lane, ledger = KEYS[1], KEYS[2]
local follows, leaves, homes, expected = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- Types are looked at before anything is written, because Redis does not undo the first half of a script.
local function type_error(key, expected)
  local found = redis.call('TYPE', key).ok
  if found ~= expected and found ~= 'none' then
    return redis.error_reply('WRONGTYPE key `' .. key .. '` holds a ' .. found .. ', not a ' .. expected)
  end
end

local wrong = type_error(lane, 'hash')
if wrong then return wrong end
local stored = redis.call('HGET', lane, 'link') or ''
if stored == leaves or stored ~= follows then return stored end
wrong = type_error(ledger, 'hash')
if wrong then return wrong end
for i = 3, 2 + homes do
  -- Cheaper than its type, and an error where it is no hash.
  local fields = redis.pcall('HLEN', KEYS[i])
  if type(fields) == 'table' then return type_error(KEYS[i], 'hash') or fields end
  local sign = string.byte(expected, i - 2)
  if (sign == 43 and fields == 0) or (sign == 45 and fields > 0) then return 0 end
end
for i = 3 + homes, #KEYS do
  wrong = type_error(KEYS[i], 'zset')
  if wrong then return wrong end
end

local at = 5
local function number()
  at = at + 1
  return tonumber(ARGV[at - 1])
end
-- Calls a command with `count` arguments, in pieces that Lua's stack holds; 4000 keeps pairs together.
local function call(command, key, count)
  local last = at + count - 1
  while at <= last do
    local to = math.min(at + 3999, last)
    redis.call(command, key, unpack(ARGV, at, to))
    at = to + 1
  end
end

local progress_count = number()
local progress_at = at
at = at + progress_count

-- The first write of every call is HSET or HSETNX, which Redis refuses when memory is short; once a script has
-- written it is not refused any more, so a call is taken whole or not at all.
local set_asides = number()
if set_asides > 0 then
  local named_max = tonumber(redis.call('HGET', lane, 'named_max') or '-1')
  for _ = 1, set_asides do
    -- An entry that is there stays: a closed one must not be opened again by a late write.
    redis.call('HSETNX', ledger, ARGV[at], ARGV[at + 1])
    named_max = math.max(named_max, tonumber(ARGV[at]))
    at = at + 2
  end
  redis.call('HSET', lane, 'named_max', string.format('%.0f', named_max))
end

call('HSET', ledger, number())

for i = 3, 2 + homes do
  local set, removed = number(), number()
  local expire = ARGV[at]
  at = at + 1
  call('HSET', KEYS[i], set)
  if removed > 0 then call('HDEL', KEYS[i], removed) end
  if expire == '-' then
    redis.call('PERSIST', KEYS[i])
  elseif expire ~= '' then
    redis.call('PEXPIREAT', KEYS[i], expire)
  end
end
for i = 3 + homes, #KEYS do
  local added, removed = number(), number()
  call('ZADD', KEYS[i], added)
  call('ZREM', KEYS[i], removed)
end
redis.call('HSET', lane, 'link', leaves, unpack(ARGV, progress_at, progress_at + progress_count - 1))
return 1
