-- What wrk sends and reports: wrk … -s load.lua URL -- KIND ARGUMENTS
--
-- get PATH FIRST LAST START  PATH with each number from FIRST to LAST in place of its `#`, in turn,
--                            beginning with the START-th, or with any if that is 0; of very many
--                            numbers, some spread over them
-- trade STOCKS KEYS          one share of stock1, stock2, … in turn, bought and then sold, each
--                            trade under a key of its own that begins with KEYS
-- timed STOCKS KEYS          the same, and reports when each answer came
-- session STOCKS KEYS P SEED lookups of random stocks, each followed by a trade of that stock with
--                            the probability P, and reports the two apart; as many threads as
--                            connections, so that each thread is one client
--
-- The last line that wrk prints is the report, in JSON.

local ffi = require("ffi")
ffi.cdef [[
  struct timespec { long seconds; long nanoseconds; };
  int clock_gettime(int clock, struct timespec *now);
]]

local CLOCK_MONOTONIC = 1
local moment = ffi.new("struct timespec")

local function now_us()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
  return tonumber(moment.seconds) * 1e6 + tonumber(moment.nanoseconds) / 1e3
end

-- ---------------------------------------------------------------- what is sent

local MOST_PATHS = 100000

local bodies = {}
local trades = 0

local function trade_of(stock, kind)
  trades = trades + 1
  local place = kind .. stock
  bodies[place] = bodies[place]
    or string.format('{"name":"stock%d","quantity":1,"type":"%s"}', stock, kind)
  local headers = {
    ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = string.format("%s-%d-%d", keys, id, trades),
  }
  return wrk.format("POST", "/orders", headers, bodies[place])
end

local kinds = {}

function kinds.get(path, first, last, start)
  local ready = {}
  local step = math.ceil((last - first + 1) / MOST_PATHS)
  for number = tonumber(first), tonumber(last), step do
    ready[#ready + 1] = wrk.format("GET", (path:gsub("#", string.format("%d", number))))
  end
  -- Two runs that both began with the first would find in a cache what the other one left there.
  math.randomseed(now_us())
  local sent = start == "0" and math.random(#ready) or start - 1
  function request()
    sent = sent % #ready + 1
    return ready[sent]
  end
end

function kinds.trade(stocks, prefix)
  keys = prefix
  local count = tonumber(stocks)
  function request()
    local stock = math.floor(trades / 2) % count + 1
    return trade_of(stock, trades % 2 == 0 and "BUY" or "SELL")
  end
end

function kinds.timed(stocks, prefix)
  kinds.trade(stocks, prefix)
  times = {}
  function response(status)
    if status == 200 then
      times[#times + 1] = now_us()
    end
  end
end

function kinds.session(stocks, prefix, probability, seed)
  keys = prefix
  math.randomseed(tonumber(seed) * 1000 + id)
  local count, chance = tonumber(stocks), tonumber(probability)
  local stock, is_trade, asked_us = 1, false, 0
  lookups_us, trades_us = {}, {}
  function request()
    asked_us = now_us()
    if is_trade then
      return trade_of(stock, math.random() < 0.5 and "BUY" or "SELL")
    end
    stock = math.random(count)
    return wrk.format("GET", "/stocks?stockname=stock" .. stock)
  end
  function response()
    local list = is_trade and trades_us or lookups_us
    list[#list + 1] = now_us() - asked_us
    is_trade = not is_trade and math.random() < chance
  end
end

function init(arguments)
  kinds[arguments[1]](unpack(arguments, 2))
end

-- ---------------------------------------------------------------- what is reported

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("id", #threads)
end

local function all(name)
  local found = {}
  for _, thread in ipairs(threads) do
    for _, value in ipairs(thread:get(name) or {}) do
      found[#found + 1] = string.format("%.0f", value)
    end
  end
  return string.format('"%s":[%s]', name, table.concat(found, ","))
end

function done(summary, latency)
  local parts = {}
  for _, name in ipairs({ "requests", "duration" }) do
    parts[#parts + 1] = string.format('"%s":%.0f', name, summary[name])
  end
  for _, name in ipairs({ "connect", "read", "write", "timeout", "status" }) do
    parts[#parts + 1] = string.format('"%s":%.0f', name, summary.errors[name])
  end
  parts[#parts + 1] = string.format(
    '"mean_us":%.1f,"p50_us":%.0f,"p99_us":%.0f,"max_us":%.0f',
    latency.mean, latency:percentile(50), latency:percentile(99), latency.max)
  for _, name in ipairs({ "times", "lookups_us", "trades_us" }) do
    parts[#parts + 1] = all(name)
  end
  io.write("{", table.concat(parts, ","), "}\n")
end
