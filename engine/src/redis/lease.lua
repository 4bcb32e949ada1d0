-- tollgate leases, version 1. One bucket for each key: "level microseconds", by the store's own clock.
-- ARGV: tokens, the microseconds in which they come back, burst; then for each key: tokens wanted, tokens to take off.
-- Answers for each key: tokens granted, thousandths left. A full bucket is not kept; others leave when they would be full.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local count, per, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer = {}
for i, key in ipairs(KEYS) do
  local want, debit = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3])
  local level = burst
  local kept = redis.call('GET', key)
  if kept then
    local was, at = string.match(kept, '^(%S+) (%d+)$')
    was, at = tonumber(was), tonumber(at)
    if was and at then
      level = math.min(burst, was + math.max(0, now - at) * count / per)
    end
  end
  level = math.max(-burst, math.min(burst, level - debit))
  local granted = math.max(0, math.min(want, math.floor(level)))
  level = level - granted
  local wait = math.ceil((burst - level) * per / count / 1000)
  if wait <= 0 then
    redis.call('DEL', key)
  else
    redis.call('SET', key, string.format('%.17g %.0f', level, now), 'PX', wait + 1000)
  end
  answer[2 * i - 1] = granted
  answer[2 * i] = math.floor(level * 1000)
end
return answer
