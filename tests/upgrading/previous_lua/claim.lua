-- script: claim
-- keys: meta bucket
-- argv: member known_absent
-- include: splitting
--
-- Reserves the next portion of a lane for one participant: already claimed -> claimants loaded ->
-- paused or closed -> window -> portion -> record. O(1). It checks first and writes last, because a
-- script that fails does not undo what it wrote. Replies {code, epoch, ...}; the codes are
-- packets.claiming.effects.Reserved:
--   {0 new | 1 repeat | 2 marked, epoch, index, amount_fen, tier, left_count, committed_ms}
--   {3 lookup | 4 missing | 5 paused | 6 closed | 7 not started | 8 ended | 9 empty, epoch}
-- A record is "epoch,index,amount_fen,tier,committed_ms"; committed_ms 0: not marked as committed.

local f = redis.call('HMGET', KEYS[1],
  'epoch', 'state', 'opens_ms', 'closes_ms', 'left_fen', 'left_count', 'index', 'claimants',
  'strategy', 'remainder', 'key', 'min_fen', 'max_fen', 'evenness', 'start_fen', 'start_count',
  'tier_amounts')
if not f[1] then
  return {4, 0}
end
local epoch, left_count = tonumber(f[1]), tonumber(f[6])

local record = redis.call('HGET', KEYS[2], ARGV[1])
if record then
  local e, i, a, t, ms = string.match(record, '^(%d+),(%d+),(%d+),(%d+),(%d+)$')
  -- guard:mark begin
  if ms and ms ~= '0' then
    return {2, tonumber(e), tonumber(i), tonumber(a), tonumber(t), left_count, tonumber(ms)}
  end
  -- guard:mark end
  if e and tonumber(e) == epoch then
    return {1, epoch, tonumber(i), tonumber(a), tonumber(t), left_count, 0}
  end
  -- A reservation of an older epoch that nobody committed is void: the portion was given back.
  -- So is a record that can't be read; Postgres knows better.
end
if f[8] ~= 'full' and ARGV[2] ~= '1' then
  return {3, epoch}
end
if f[2] == 'paused' then
  return {5, epoch}
elseif f[2] ~= 'open' then
  return {6, epoch}
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now_ms < tonumber(f[3]) then
  return {7, epoch}
elseif now_ms >= tonumber(f[4]) then
  return {8, epoch}
elseif left_count == 0 then
  return {9, epoch}
end

local tiers = {}
if f[17] ~= '' then
  for amount in string.gmatch(f[17], '%d+') do
    local left = redis.call('HGET', KEYS[1], 'tier_' .. string.format('%.0f', #tiers + 1))
    tiers[#tiers + 1] = {tonumber(amount), tonumber(left)}
  end
end
local index, left_fen = tonumber(f[7]), tonumber(f[5])
local amount, tier = split({
  strategy = tonumber(f[9]), remainder = tonumber(f[10]), key = f[11], index = index,
  left_fen = left_fen, left_count = left_count,
  start_fen = tonumber(f[15]), start_count = tonumber(f[16]),
  min_fen = tonumber(f[12]), max_fen = tonumber(f[13]), evenness = tonumber(f[14]), tiers = tiers,
})

local function text(x)
  return string.format('%.0f', x)
end
redis.call('HSET', KEYS[2], ARGV[1],
  text(epoch) .. ',' .. text(index) .. ',' .. text(amount) .. ',' .. text(tier) .. ',0')
redis.call('HSET', KEYS[1], 'left_fen', text(left_fen - amount), 'left_count', text(left_count - 1),
  'index', text(index + 1))
if tier > 0 then
  redis.call('HINCRBY', KEYS[1], 'tier_' .. text(tier), -1)
end
return {0, epoch, index, amount, tier, left_count - 1, 0}
