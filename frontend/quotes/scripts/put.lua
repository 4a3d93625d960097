-- ARGV: name, value, version, the token's generation and ms, an entry's longest life in ms, size
-- Returns 'stored', or why not.
local name, value, version, token_generation = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local expiry = tonumber(ARGV[5]) + tonumber(ARGV[6])
local size = tonumber(ARGV[7])
local now = now_ms()

local function refusal()
  -- Without it, a very late fill is stored ("token expiry": test_cache_staleness.py).
  if expiry <= now then
    return 'expired'
  end
  -- Without it, a fill outlives a restart of Redis ("generation": test_cache_staleness.py).
  if generation ~= token_generation then
    return 'generation'
  end
  -- Without it, a slow fill undoes an invalidation ("floor": test_cache_staleness.py).
  local floor = tonumber(redis.call('GET', FLOOR .. name))
  if floor and floor > tonumber(version) then
    return 'floor'
  end
  local present = tonumber(redis.call('HGET', VERSIONS, name))
  if present and present >= tonumber(version) and is_live(name, now) then
    return 'newer'
  end
end

local function make_room()
  if redis.call('ZCARD', RECENCY) <= size then
    return
  end
  for _, expired in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', now)) do
    drop(expired)
  end
  for _, oldest in ipairs(redis.call('ZRANGE', RECENCY, 0, -1 - size)) do
    drop(oldest)
  end
end

local reason = refusal()
if reason then
  return reason
end
redis.call('HSET', VALUES, name, value)
redis.call('HSET', VERSIONS, name, version)
redis.call('ZADD', EXPIRY, expiry, name)
mark_used(name)
make_room()
return 'stored'
