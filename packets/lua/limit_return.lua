-- script: limit_return
-- keys: key
-- argv: window window_us limit
--
-- Gives back one that was counted and came to nothing: to a counter (window_us 0) if its window is
-- still the one that it was counted in, to a pace by moving the next arrival forward.

local window_us, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
if window_us == 0 then
  local held = redis.call('HMGET', KEYS[1], 'window', 'count')
  if held[1] == ARGV[1] and tonumber(held[2]) > 0 then
    redis.call('HINCRBY', KEYS[1], 'count', -1)
  end
  return 1
end
local held = redis.call('HMGET', KEYS[1], 'us', 'part')
if held[1] then
  local whole = math.floor(window_us / limit)
  local us, part = tonumber(held[1]) - whole, tonumber(held[2]) - (window_us - whole * limit)
  if part < 0 then
    us, part = us - 1, part + limit
  end
  redis.call('HSET', KEYS[1], 'us', string.format('%.0f', us), 'part', string.format('%.0f', part))
end
return 1
