-- ARGV: the new generation, so that no fill under way lands in the emptied cache
-- Floors stay: each dies with its lease, and one too many only costs a miss.
redis.call('DEL', VALUES, VERSIONS, EXPIRY, RECENCY)
redis.call('SET', GENERATION, ARGV[1])
