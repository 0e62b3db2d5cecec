-- script: limit_pace
-- keys: arrival
-- argv: window_us limit burst cost
--
-- GCRA (ATM Forum, Traffic Management 4.0): the key holds the theoretical arrival time of what
-- comes next, as whole microseconds and a numerator over `limit`, so that no rate is rounded.
-- `burst` may come at once, and `limit` more in every window. A cost of 0 asks whether one more may
-- come. Times are the server's.
--
-- Replies {1, left, 0, wait_ms} when counted, {0, 0, 0, wait_ms} when it came too early; wait_ms is
-- the time until one more may come.

local window_us, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local burst, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
local interval_us = window_us / limit
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])

local held = redis.call('HMGET', KEYS[1], 'us', 'part')
local us, part = tonumber(held[1] or 0), tonumber(held[2] or 0)
if us < now_us then
  us, part = now_us, 0
end
local ahead_us = us - now_us + part / limit

-- A thousandth of a microsecond is what the fractions may err by, and no interval is as short.
local early_us = ahead_us + (math.max(cost, 1) - burst) * interval_us
-- guard:limit begin
if early_us > 0.001 then
  return {0, 0, 0, math.ceil(early_us / 1000)}
end
-- guard:limit end
if cost > 0 then
  local add = cost * window_us
  local whole = math.floor(add / limit)
  us, part = us + whole, part + add - whole * limit
  if part >= limit then
    us, part = us + 1, part - limit
  end
  redis.call('HSET', KEYS[1], 'us', string.format('%.0f', us), 'part', string.format('%.0f', part))
  redis.call('PEXPIRE', KEYS[1], math.max(1, math.ceil((us + 1 - now_us) / 1000)))
  ahead_us = us - now_us + part / limit
end
local left = math.max(0, math.floor(burst - ahead_us / interval_us + 0.001))
local wait_us = left > 0 and 0 or ahead_us + (1 - burst) * interval_us
return {1, left, 0, math.ceil(wait_us / 1000)}
