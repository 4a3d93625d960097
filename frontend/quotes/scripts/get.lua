-- ARGV: name, a generation in case there is none
-- Returns {value}, or {generation, now} for a token.
local name, offered = ARGV[1], ARGV[2]
local now = now_ms()

local value = redis.call('HGET', VALUES, name)
if value and is_live(name, now) then
  mark_used(name)
  return {value}
end

redis.call('SET', GENERATION, offered, 'NX')
return {redis.call('GET', GENERATION), now}
