-- script: load
-- keys: meta
-- argv: epoch field value ...
--
-- Puts the stock of a lane's new epoch in place. Refuses to replace an equal or higher epoch: of two
-- loaders the slower one changes nothing. Replies {1, epoch} when loaded, {0, epoch found} when not.

local found = redis.call('HGET', KEYS[1], 'epoch')
-- guard:load begin
if found and tonumber(found) >= tonumber(ARGV[1]) then
  return {0, tonumber(found)}
end
-- guard:load end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], unpack(ARGV, 2))
return {1, tonumber(ARGV[1])}
