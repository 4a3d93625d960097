-- Stands before every script of the cache.
--
-- bourse:cache:generation    names the life of the cache that the other keys belong to
-- bourse:cache:values        hash, name -> what is cached
-- bourse:cache:versions      hash, name -> its version
-- bourse:cache:expiry        sorted set, name -> the moment it dies, ms on Redis's clock
-- bourse:cache:recency       sorted set, name -> number of its last use, the lowest goes first
-- bourse:cache:floor:<name>  below this version nothing may be stored; lives one lease
--
-- A version is kept as the text it came as: Lua prints a large number as 1e+15. Numbers are
-- doubles, exact below 2^53, which versions and milliseconds are.

local GENERATION = 'bourse:cache:generation'
local VALUES = 'bourse:cache:values'
local VERSIONS = 'bourse:cache:versions'
local EXPIRY = 'bourse:cache:expiry'
local RECENCY = 'bourse:cache:recency'
local FLOOR = 'bourse:cache:floor:'

-- Rounded down, so that a token is never younger than its lookup.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function is_live(name, now)
  local expiry = tonumber(redis.call('ZSCORE', EXPIRY, name))
  return expiry ~= nil and expiry > now
end

-- A count and not the time: two uses in one millisecond have an order too.
local function mark_used(name)
  local newest = redis.call('ZREVRANGE', RECENCY, 0, 0, 'WITHSCORES')
  if newest[1] == name then
    return
  end
  redis.call('ZADD', RECENCY, (tonumber(newest[2]) or 0) + 1, name)
end

local function drop(name)
  redis.call('HDEL', VALUES, name)
  redis.call('HDEL', VERSIONS, name)
  redis.call('ZREM', EXPIRY, name)
  redis.call('ZREM', RECENCY, name)
end

-- Floors stay: each dies with its lease, and one too many only costs a miss.
local function begin_generation(replication_id)
  local time = redis.call('TIME')
  local generation = replication_id .. ':' .. time[1] .. '.' .. time[2]
  redis.call('DEL', VALUES, VERSIONS, EXPIRY, RECENCY)
  redis.call('SET', GENERATION, generation)
  return generation
end

local replication = redis.call('INFO', 'replication')

-- Without it, a replica serves what its primary has dropped ("primary check": test_cache_replicas.py).
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this Redis is a replica, and a cache must be a primary')
end

-- Redis makes a new replication id at each start and at each promotion. So the keys under another
-- one came from a snapshot or from another server, and invalidations after that may be missing.
local replication_id = string.match(replication, 'master_replid:(%x+)')
local generation = redis.call('GET', GENERATION)
-- Without it, a snapshot brings an old quote back ("replication id": test_cache_staleness.py).
if not generation or string.match(generation, '^%x+') ~= replication_id then
  generation = begin_generation(replication_id)
end
