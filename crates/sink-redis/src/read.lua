-- A lane at one moment: link, progress, and the offsets at or above it that the ledger names.
-- KEYS: lane, ledger. ARGV: 1 if the offsets are asked for. Returns link, log, main, inbox, last_offset, last_hash ('' where absent), then offsets.
local lane = redis.call('HMGET', KEYS[1], 'link', 'log', 'main', 'inbox', 'last_offset', 'last_hash', 'named_max')
local read = {}
for i = 1, 6 do read[i] = lane[i] or '' end
-- The ledger is kept for ever, so it is searched only if names lie above progress: an interrupted commit left them, or
-- one that goes in pieces is under way.
local main = tonumber(lane[3] or '0')
if ARGV[1] == '1' and lane[7] and tonumber(lane[7]) >= main then
  for _, offset in ipairs(redis.call('HKEYS', KEYS[2])) do
    if tonumber(offset) >= main then read[#read + 1] = offset end
  end
end
return read
