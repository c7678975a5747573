-- A lane at one moment: link, progress, and the offsets at or above it that the ledger names.
-- KEYS: lane, ledger. Returns link, log, main, inbox, last_offset, last_hash ('' where absent), then offsets.
local lane = redis.call('HMGET', KEYS[1], 'link', 'log', 'main', 'inbox', 'last_offset', 'last_hash', 'named_max')
local read = {}
for i = 1, 6 do read[i] = lane[i] or '' end
-- The ledger is kept for ever, so it is searched only if an interrupted commit left names above progress.
local main = tonumber(lane[3] or '0')
if lane[7] and tonumber(lane[7]) >= main then
  for _, offset in ipairs(redis.call('HKEYS', KEYS[2])) do
    if tonumber(offset) >= main then read[#read + 1] = offset end
  end
end
return read
