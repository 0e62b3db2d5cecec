-- script: password
-- keys: tries
-- argv: participant right limit
--
-- Counts wrong pass phrases of one participant and packet. Replies 1 when the tries are used up
-- (also for a right phrase that comes after them), 0 otherwise. The wrong try that reaches the limit
-- still hears that it was wrong.

local tries = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tries >= tonumber(ARGV[3]) then
  return 1
end
if ARGV[2] ~= '1' then
  redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
end
return 0
