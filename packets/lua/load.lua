-- script: load
-- keys: meta
-- argv: epoch claimants field value ...
--
-- Puts the stock of a lane's new epoch in place. Refuses to replace an equal or higher epoch: of two
-- loaders the slower one changes nothing. Replies {1, epoch} when loaded, {0, epoch found} when not.
-- Claimants: full (their records are all there), partial (ask Postgres), or keep: what it was in the
-- epoch before, whose marked records stay valid. `loaded` stays in any case: the records survive a
-- new epoch, so their loader goes on there.

local head = redis.call('HMGET', KEYS[1], 'epoch', 'claimants', 'loaded')
local found, claimants, loaded = head[1], ARGV[2], head[3]
if claimants == 'keep' then
  claimants = head[2] or 'partial'
end
-- guard:load begin
if found and tonumber(found) >= tonumber(ARGV[1]) then
  return {0, tonumber(found)}
end
-- guard:load end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'claimants', claimants, unpack(ARGV, 3))
if loaded then
  redis.call('HSET', KEYS[1], 'loaded', loaded)
end
return {1, tonumber(ARGV[1])}
