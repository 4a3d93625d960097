-- ARGV: a floor's life in ms, then name and version of each stock
-- A floor lives longer than a token is valid. A reader of an older version got its token before
-- this moment.
local floor_ms = ARGV[1]

for i = 2, #ARGV, 2 do
  local name, version = ARGV[i], ARGV[i + 1]
  local cached = tonumber(redis.call('HGET', VERSIONS, name))
  if not cached or cached < tonumber(version) then
    drop(name)
  end
  local floor = redis.call('GET', FLOOR .. name)
  if floor and tonumber(floor) > tonumber(version) then
    version = floor
  end
  redis.call('SET', FLOOR .. name, version, 'PX', floor_ms)
end
