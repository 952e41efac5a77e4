"""The Lua scripts of the Redis layer: steps that Redis runs atomically.

Every topic has three keys in one hash slot:

- *meta*, a hash with the fields ``epoch``, ``offset``, ``run`` (the run id of the server that wrote last), ``bytes``
  (of the bodies in the stream), ``read`` (when a subscriber last read the position, in the server's seconds) and
  ``people`` (set while a user is counted in the topic). After a restart, ``old`` and ``end`` are the previous epoch and
  its last offset.
- *stream*, the newest bodies. Their ids are the offsets, so counting them shows a hole.
- *channel*.

Most scripts begin with the same fence. If there is no meta, the topic is new, or its key was evicted or wiped; nothing
is known of its past. If the run id differs, the server was restarted and may have lost its last writes. So offsets
above the noted one may have been issued before. A new epoch tells them apart; the offsets count on.

Each script writes before it publishes. A replica refuses the write; it would accept the publication, which nobody
would receive.
"""

import hashlib


class Script:
    """A Lua script, called by the hash of its text.

    Unless noted at the script, its keys are meta, stream and channel. Its arguments are the server's run id, a name for
    a new epoch, the meta's time to live in milliseconds, and then its own.
    """

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324  # the name of a script in Redis


_FENCE = """
local meta, stream, channel = KEYS[1], KEYS[2], KEYS[3]
local run, fresh, keep = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', meta, 'epoch', 'offset', 'run', 'old', 'end', 'bytes', 'read')
local epoch, offset, old, old_end = known[1], tonumber(known[2]), known[4], tonumber(known[5])
local is_new = not epoch or not offset
if is_new then
  epoch, offset, old = fresh, 0, false
  redis.call('DEL', meta, stream)
elseif known[3] ~= run then
  old, old_end, epoch = epoch, offset, fresh
  redis.call('HSET', meta, 'epoch', epoch, 'run', run, 'old', old, 'end', old_end)
end
local function remember()
  if is_new then redis.call('HSET', meta, 'epoch', epoch, 'offset', offset, 'run', run) end
  is_new = false
  redis.call('PEXPIRE', meta, keep)
end
"""

_CUT = """
  epoch = fresh .. '!'
  redis.call('HSET', meta, 'epoch', epoch)
  redis.call('HDEL', meta, 'old', 'end', 'bytes')
  redis.call('DEL', stream)
  redis.call('PUBLISH', channel, epoch .. ' ' .. offset .. '\\n')
"""

# Publishes a body. It is kept if the topic has subscribers, had some within the history's ttl (at least a minute), or
# `always` is '1'. At most `most` bytes of bodies are kept, and at least the newest `size` bodies if they fit. Returns
# false if nothing is known of the topic and it has no subscribers.
_PUBLISH = """
local function trim(bytes, size, most)
  local count = redis.call('XLEN', stream)
  if bytes <= most and count <= size * 1.25 then return bytes end
  while count > 0 and (count > size or bytes > most or (count > 1 and bytes > most * 0.75)) do
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', 32)) do
      if count > size or bytes > most or (count > 1 and bytes > most * 0.75) then
        bytes, count = bytes - #(entry[2][2] or ''), count - 1
      end
    end
    redis.call('XTRIM', stream, 'MAXLEN', count)
  end
  return bytes
end

local function publish(body, size, ttl, most, always)
  size, ttl, most = tonumber(size), tonumber(ttl), tonumber(most)
  if not is_new then redis.call('HSET', meta, 'offset', offset + 1) end
  local heard = redis.call('PUBLISH', channel, epoch .. ' ' .. (offset + 1) .. '\\n' .. body)
  if heard == 0 and always ~= '1' then
    local read = tonumber(known[7])
    if not read or redis.call('TIME')[1] - read > math.max(ttl / 1000, 60) then
      if is_new then return false end
      offset = offset + 1
      return true
    end
  end
  offset = offset + 1
  remember()
  local added = redis.pcall('XADD', stream, offset .. '-0', 'd', body)
  if type(added) == 'table' and added.err then  -- written by another program: the past is lost, which shows as a hole
    redis.call('DEL', stream)
    redis.call('XADD', stream, offset .. '-0', 'd', body)
  end
  local bytes = redis.call('XLEN', stream) == 1 and #body or (tonumber(known[6]) or 0) + #body
  known[6] = trim(bytes, size, most)
  redis.call('HSET', meta, 'bytes', known[6])
  redis.call('PEXPIRE', stream, ttl)
  return true
end
"""

# Publishes a body, ARGV[2], without history. DEL is the write before the publication; it changes nothing, because the
# channel is not a key.
TELL = Script("redis.call('DEL', KEYS[3])\nreturn redis.call('PUBLISH', KEYS[3], '- 0\\n' .. ARGV[2])\n")

# ARGV[4..8]: the body; the history's size, ttl (ms) and bytes; '1' to keep it without subscribers. Returns the
# position, or nothing if there is none.
PUBLISH = Script(
    _FENCE
    + _PUBLISH
    + "if publish(ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]) then return {epoch, offset} end\nreturn false\n"
)

# ARGV[4..8]: the epoch and offset to read from; the most events; '1' if the caller had everything up to there; how long
# (ms) a topic without events is remembered, so that subscribing to one unused route after another does not fill Redis.
# Returns the position, the entries or false, and the offset up to which both epochs have the same past.
READ = Script(
    _FENCE
    + """
local since_epoch, since, limit = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
remember()
redis.call('HSET', meta, 'read', redis.call('TIME')[1])
if offset == 0 then redis.call('PEXPIRE', meta, ARGV[8]) end
if (since_epoch == epoch and since <= offset) or (since_epoch == old and since <= old_end) then
  local shared = since_epoch == epoch and offset or old_end
  if since == offset then return {epoch, offset, {}, shared} end
  if offset - since <= limit then
    local found = redis.call('XRANGE', stream, (since + 1) .. '-0', '+')
    if #found == offset - since then return {epoch, offset, found, shared} end
  end
elseif ARGV[7] == '1' and old then
"""
    + _CUT
    + """
end
return {epoch, offset, false, 0}
"""
)

INVALIDATE = Script(_FENCE + "remember()\n" + _CUT + "return {epoch, offset}\n")

# The users of a topic are one hash, KEYS[4]. Its fields:
#   ":<user>"  the connections in each process, as "<process> <count> ..."; empty if the `leave` is deferred
#   "by"       the processes that have users in the topic
#   "heal"     until when the hash is being restored
#
# Redis may lose the hash, as any key. That shows if "by" is missing although the meta has `people`, or if a count is
# missing that a process had written. Then the hash is being restored, until all processes have had the time to write
# their counts again. Meanwhile no `leave` is published: the user may have connections in a process that has not written
# yet.
#
# ARGV[4..10]: the history's size (0: none), ttl (ms) and bytes; '1' to keep it without subscribers; the process; '1' if
# it has users in the topic; how long (s) a lost hash is being restored. Then for each user: the name, the connections
# in the process, '1' if the process had written a count before, and the bodies of `join` and `leave`. Returns '1' if
# the hash named the process before, and the users whose `leave` is deferred, which must be written again.
COUNT = Script(
    _FENCE
    + _PUBLISH
    + """
local people, process, heal = KEYS[4], ARGV[8], ARGV[10]
local function tell(body)
  if ARGV[4] == '0' then
    redis.call('PUBLISH', channel, '- 0\\n' .. body)
  else
    publish(body, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
  end
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local about = redis.call('HMGET', people, 'by', 'heal')
local healing = tonumber(about[2]) or 0
local function lose()
  healing = now + heal
  redis.call('HSET', people, 'heal', healing)
end
if not about[1] and redis.call('HEXISTS', meta, 'people') == 1 then lose() end
remember()
local deferred = {}
for at = 11, #ARGV, 5 do
  local user, count, was = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
  local field, total, others, own = ':' .. user, count, '', false
  local counted = redis.call('HGET', people, field)
  for name, number in string.gmatch(counted or '', '(%S+) (%d+)') do
    if name == process then
      own = true
    else
      total, others = total + number, others .. name .. ' ' .. number .. ' '
    end
  end
  if was and not own and counted ~= '' then lose() end
  if total > 0 then
    redis.call('HSET', people, field, count > 0 and others .. process .. ' ' .. count or others)
    if not counted and not was then tell(ARGV[at + 3]) end
  elseif counted or was then
    if now < healing then
      redis.call('HSET', people, field, '')
      table.insert(deferred, user)
    else
      redis.call('HDEL', people, field)
      tell(ARGV[at + 4])
    end
  end
end
local by, was_there = ARGV[9] == '1' and process or '', 0
for name in string.gmatch(about[1] or '', '%S+') do
  if name == process then was_there = 1 else by = by .. ' ' .. name end
end
redis.call('HSET', people, 'by', by)
if now >= healing and redis.call('HLEN', people) <= redis.call('HEXISTS', people, 'heal') + 1 then
  redis.call('DEL', people)
  redis.call('HDEL', meta, 'people')
  if ARGV[4] == '0' then redis.call('DEL', meta) end
else
  redis.call('HSET', meta, 'people', 1)
  redis.call('PEXPIRE', people, keep)
end
return {was_there, deferred}
"""
)

# KEYS[1..2]: a topic's hash of users, and its meta. ARGV[2]: how long (ms) both are kept. Returns the processes that
# have users in the topic, or nothing if that is lost.
ALIVE = Script("""
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('HGET', KEYS[1], 'by')
""")

# KEYS[1..2]: sorted sets of processes: those with a lease, by its end, and those whose lease has expired. ARGV[2..6]:
# the name of a process; its lease in seconds; '1' if it is new; the most expired processes to return; how long (ms) the
# sets are kept.
#
# The score of the member "", less the constant `never`, is the time from which the first set is complete: a lost set is
# complete again when every process has had the time to renew its lease. Until then, a process whose lease is missing
# keeps its name. Returns '1' if the process has its lease, the expired processes, and the names of all processes if the
# set is complete.
RENEW = Script("""
local time = redis.call('TIME')
local now, never = time[1] + time[2] / 1e6, 1e12
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], process)
  redis.call('ZADD', KEYS[2], now, process)
end
local whole = redis.call('ZSCORE', KEYS[1], '')
if not whole then
  whole = never + now + ARGV[3]
  redis.call('ZADD', KEYS[1], whole, '')
end
local is_whole = whole - never <= now
local alive = ARGV[4] == '1' or redis.call('ZSCORE', KEYS[1], ARGV[2])
  or (not is_whole and not redis.call('ZSCORE', KEYS[2], ARGV[2]))
if alive then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
else
  redis.call('ZADD', KEYS[2], now, ARGV[2])
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end
local names = {}
if is_whole then
  for _, key in ipairs(KEYS) do
    for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do table.insert(names, name) end
  end
end
return {alive and 1 or 0, redis.call('ZRANGE', KEYS[2], 0, ARGV[5] - 1), names}
""")
