"""What the ledger does in one step in the broker, in Lua: of two at once, one comes first.

Which keys and arguments each takes, its caller in ``workers.ledger`` says.
"""

from __future__ import annotations

START = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 2
end
local function at_work(key)
  -- One that is closed, or forgotten, is not at work, whatever it has left behind.
  local id = redis.call('GET', key)
  local facts = id and 'reconciler:ledger:' .. id
  if facts and redis.call('EXISTS', facts) == 1 and redis.call('HEXISTS', facts, 'closed') == 0 then
    return facts
  end
  return nil
end
if at_work(KEYS[5]) then
  return 0
end
local slot, other = KEYS[1], at_work(KEYS[1])
if other then
  if ARGV[7] ~= 'beside' or redis.call('HGET', other, 'coverage') ~= 'full' then
    return 0
  end
  slot = KEYS[5]
  redis.call('HSET', other, 'beside', '1')
end
redis.call('HSET', KEYS[2], 'mode', ARGV[3], 'segments', ARGV[4],
  'started_at', ARGV[5], 'progress_at', ARGV[5], 'coverage', ARGV[6])
if ARGV[7] == 'beside' then
  -- Also where the other has ended since this one was planned.
  redis.call('HSET', KEYS[2], 'beside', '1')
end
for i = 8, #ARGV do
  redis.call('SADD', KEYS[3], ARGV[i])
  redis.call('SADD', KEYS[4], ARGV[i])
end
if ARGV[6] == 'active' then
  redis.call('ZUNIONSTORE', KEYS[6], 1, KEYS[7])
end
for _, i in ipairs({2, 3, 4, 6}) do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
redis.call('SET', slot, ARGV[1], 'EX', ARGV[2])
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

local stands = ARGV[4] == 'last complete'
local function orchestration(entry)
  return cjson.decode(entry)['orchestration_id']
end
local function name(entry)
  return orchestration(entry) .. ' ' .. tostring(cjson.decode(entry)['sub_issue_id'])
end
local function counted(said)
  local total = 0
  for _, count in pairs(said and cjson.decode(said)['stuck'] or {}) do
    total = total + count
  end
  return total
end

local function replace_the_list()
  redis.call('DEL', KEYS[8], KEYS[12])
  if redis.call('EXISTS', KEYS[5]) == 1 then
    redis.call('RENAME', KEYS[5], KEYS[8])
    redis.call('PERSIST', KEYS[8])
  end
end

-- Put in what the sweep found. One that is complete takes out what it was given and has looked at;
-- of another it may be that a release is lost, and the last complete sweep counted it.
local function add_to_the_list()
  local whole = counted(redis.call('GET', KEYS[7])) <= redis.call('ZCARD', KEYS[8])
    and tonumber(ARGV[8]) <= redis.call('ZCARD', KEYS[5])
  for _, entry in ipairs(stands and redis.call('ZRANGE', KEYS[13], 0, -1) or {}) do
    local unit = 'evaluate:' .. orchestration(entry)
    if redis.call('SISMEMBER', KEYS[4], unit) == 1
      and redis.call('SISMEMBER', KEYS[3], unit) == 0 then
      redis.call('ZREM', KEYS[8], entry)
    end
  end
  local found = {}
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
    found[name(entry)] = true
  end
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[8], 0, -1)) do
    if found[name(entry)] then
      redis.call('ZREM', KEYS[8], entry)
    end
  end
  -- What the other was given and this one found to be so still is not for the other to take out.
  for _, slot in ipairs({KEYS[1], KEYS[11]}) do
    local id = redis.call('GET', slot)
    if id and id ~= ARGV[2] then
      for _, entry in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
        redis.call('ZREM', 'reconciler:ledger:' .. id .. ':given', entry)
      end
    end
  end
  redis.call('ZUNIONSTORE', KEYS[8], 2, KEYS[8], KEYS[5])
  if redis.call('ZREMRANGEBYRANK', KEYS[8], 0, -1001) > 0 or not whole then
    redis.call('SET', KEYS[12], '1')
  end
end

local beside = redis.call('HEXISTS', KEYS[2], 'beside') == 1
if stands and ARGV[6] == 'full' and not beside then
  replace_the_list()
elseif ARGV[7] == 'listed' then
  add_to_the_list()
end
if stands then
  redis.call('SET', KEYS[7], ARGV[5])
  if ARGV[6] == 'full' then
    redis.call('SET', KEYS[10], ARGV[5])
  end
end
redis.call('DEL', KEYS[3], KEYS[4], KEYS[13])
if redis.call('GET', KEYS[11]) == ARGV[2] then
  redis.call('DEL', KEYS[11])
end
if redis.call('GET', KEYS[1]) == ARGV[2] then
  redis.call('DEL', KEYS[1])
  -- What is at work beside it is the one that is under way from now on.
  if redis.call('EXISTS', KEYS[11]) == 1 then
    redis.call('RENAME', KEYS[11], KEYS[1])
  end
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
for i = 1, 4 do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
for i = 5, 6 do
  if redis.call('GET', KEYS[i]) == ARGV[3] then
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
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
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[6])
end
for i = 6, 7 do
  if redis.call('GET', KEYS[i]) == ARGV[7] then
    redis.call('EXPIRE', KEYS[i], ARGV[6])
  end
end
return redis.call('SCARD', KEYS[1])
"""
