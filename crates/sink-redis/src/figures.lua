-- Members of lists, and how many of them have rank 1, if the caller holds the figures or nobody does; else nothing.
-- KEYS: holder, lists...
-- ARGV: the caller, for how long it holds them then (ms)
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return false end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local counts = {}
for i = 2, #KEYS do
  counts[#counts + 1] = redis.call('ZCARD', KEYS[i])
  counts[#counts + 1] = redis.call('ZCOUNT', KEYS[i], 1, 1)
end
return counts
