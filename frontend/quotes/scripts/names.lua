-- Returns the names of the live entries, the least recently used first.
local now = now_ms()
local names = {}
for _, name in ipairs(redis.call('ZRANGE', RECENCY, 0, -1)) do
  if is_live(name, now) then
    names[#names + 1] = name
  end
end
return names
