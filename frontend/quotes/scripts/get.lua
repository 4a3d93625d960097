-- ARGV: name
-- Returns {value}, or {generation, now} for a token.
local name = ARGV[1]
local now = now_ms()

local value = redis.call('HGET', VALUES, name)
if value and is_live(name, now) then
  mark_used(name)
  return {value}
end
return {generation, now}
