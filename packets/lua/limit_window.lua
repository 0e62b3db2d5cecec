-- script: limit_window
-- keys: counter
-- argv: limit window_ms offset_ms cost
--
-- Counts within windows that follow one another without a gap (of a day: from midnight on, by the
-- offset). A cost of 0 asks whether anything is left. Times are the server's.
--
-- Replies {1, left, window, wait_ms} when counted, {0, 0, window, wait_ms} when that would be too
-- many; wait_ms is the time to the window's end.

local limit, window_ms, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[3])
local window = math.floor(now_ms / window_ms)
local wait_ms = (window + 1) * window_ms - now_ms

local held = redis.call('HMGET', KEYS[1], 'window', 'count')
local count = 0
if held[1] and tonumber(held[1]) == window then
  count = tonumber(held[2])
end
-- guard:limit begin
if count + math.max(cost, 1) > limit then
  return {0, 0, window, wait_ms}
end
-- guard:limit end
if cost > 0 then
  redis.call('HSET', KEYS[1], 'window', string.format('%.0f', window),
    'count', string.format('%.0f', count + cost))
  redis.call('PEXPIRE', KEYS[1], wait_ms)
end
return {1, limit - count - cost, window, wait_ms}
