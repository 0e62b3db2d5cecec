-- script: flags
-- keys: meta
-- argv: epoch field value ...
--
-- Sets flags of a lane (state, window, claimants) where the lane is loaded and its epoch is the one
-- that the caller saw. Replies 1 when set, 0 when the lane is missing or has moved on.

local found = redis.call('HGET', KEYS[1], 'epoch')
if not found or (ARGV[1] ~= '' and found ~= ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
