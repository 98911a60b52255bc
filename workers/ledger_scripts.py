"""What the ledger does in one step in the broker, in Lua: of two at once, one comes first.

Which keys and arguments each takes, its caller in ``workers.ledger`` says.
"""

from __future__ import annotations

START = """
local current = redis.call('GET', KEYS[1])
if current and current ~= ARGV[1] then
  -- One that is closed, or forgotten, is not at work, whatever it has left behind.
  local other = 'reconciler:ledger:' .. current
  if redis.call('EXISTS', other) == 1 and redis.call('HEXISTS', other, 'closed') == 0 then
    return 0
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 2
end
redis.call('HSET', KEYS[2], 'mode', ARGV[3], 'segments', ARGV[4],
  'started_at', ARGV[5], 'progress_at', ARGV[5], 'coverage', ARGV[6])
for i = 7, #ARGV do
  redis.call('SADD', KEYS[3], ARGV[i])
  redis.call('SADD', KEYS[4], ARGV[i])
end
for i = 2, 4 do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""

CLOSE = """
if ARGV[1] == 'close' and redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
if redis.call('HSETNX', KEYS[2], 'closed', '1') == 0 then
  return 0
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[6], ARGV[5])
if ARGV[4] == 'last complete' then
  redis.call('SET', KEYS[7], ARGV[5])
  if ARGV[6] == 'full' then
    redis.call('SET', KEYS[10], ARGV[5])
  end
  redis.call('DEL', KEYS[8])
  if redis.call('EXISTS', KEYS[5]) == 1 then
    redis.call('RENAME', KEYS[5], KEYS[8])
    redis.call('PERSIST', KEYS[8])
  end
end
redis.call('DEL', KEYS[3], KEYS[4])
if redis.call('GET', KEYS[1]) == ARGV[2] then
  redis.call('DEL', KEYS[1])
end
redis.call('RPUSH', KEYS[9], ARGV[5])
redis.call('EXPIRE', KEYS[9], ARGV[3])
return 1
"""

OPEN = """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[1], 'closed') == 1 then
  return 3
end
if redis.call('SADD', KEYS[3], ARGV[1]) == 0 then
  return 2 - redis.call('SISMEMBER', KEYS[2], ARGV[1])
end
redis.call('SADD', KEYS[2], ARGV[1])
for i = 1, 3 do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
if redis.call('GET', KEYS[4]) == ARGV[3] then
  redis.call('EXPIRE', KEYS[4], ARGV[2])
end
return 0
"""

SETTLE = """
if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return -1
end
local added = cjson.decode(ARGV[2])
for name, amount in pairs(added) do
  redis.call('HINCRBYFLOAT', KEYS[2], name, amount)
end
local oldest = cjson.decode(ARGV[3])
for code, seconds in pairs(oldest) do
  local name = 'oldest:' .. code
  local stands = tonumber(redis.call('HGET', KEYS[2], name) or '0')
  if seconds > stands then
    redis.call('HSET', KEYS[2], name, tostring(seconds))
  end
end
redis.call('HSET', KEYS[2], 'progress_at', ARGV[4])
if ARGV[5] ~= 'no' then
  redis.call('HSET', KEYS[2], 'paused_since', ARGV[5])
end
for i = 8, #ARGV, 2 do
  redis.call('ZADD', KEYS[3], ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1001)
-- However long a sweep takes, it is not forgotten while anything of it is heard.
for i = 1, 4 do
  redis.call('EXPIRE', KEYS[i], ARGV[6])
end
if redis.call('GET', KEYS[5]) == ARGV[7] then
  redis.call('EXPIRE', KEYS[5], ARGV[6])
end
return redis.call('SCARD', KEYS[1])
"""
