"""What Redis is asked to do in one go, in Lua.

Every topic has three keys, in one hash slot: a hash, its *meta*; a *stream* of its newest bodies, whose ids are their
offsets, so that a hole shows by counting; and a *channel*. The meta's fields: ``epoch``, ``offset``, ``run`` (the run
id of the server that wrote last), and, after a restart, ``old`` and ``end``: the epoch before and where it ended.

All scripts begin with the same fence. No meta: the topic is new, or was evicted or wiped; nothing is known of its past.
Another run id: the server was restarted and may have lost its last writes, so offsets above the one noted may have been
given out before. A new epoch tells those apart; offsets count on.
"""

import hashlib

__all__ = ("COUNT", "INVALIDATE", "PUBLISH", "READ", "RENEW", "Script")


class Script:
    """A Lua script, called by the hash of its text. It is given the keys meta, stream and channel, and as arguments the
    server's run id, a name for a new epoch, the meta's time to live in ms, and its own."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text).hexdigest().encode()  # noqa: S324  # Redis names scripts so


_FENCE = """
local meta, stream, channel = KEYS[1], KEYS[2], KEYS[3]
local run, fresh, keep = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', meta, 'epoch', 'offset', 'run', 'old', 'end')
local epoch, offset, old, old_end = known[1], tonumber(known[2]), known[4], tonumber(known[5])
if not epoch or not offset then
  epoch, offset, old = fresh, 0, false
  redis.call('DEL', meta, stream)
  redis.call('HSET', meta, 'epoch', epoch, 'offset', 0, 'run', run)
elseif known[3] ~= run then
  old, old_end, epoch = epoch, offset, fresh
  redis.call('HSET', meta, 'epoch', epoch, 'run', run, 'old', old, 'end', old_end)
end
redis.call('PEXPIRE', meta, keep)
"""

_CUT = """
  epoch = fresh .. '!'
  redis.call('HSET', meta, 'epoch', epoch)
  redis.call('HDEL', meta, 'old', 'end')
  redis.call('DEL', stream)
  redis.call('PUBLISH', channel, epoch .. ' ' .. offset .. '\\n')
"""

_PUBLISH = """
local function publish(body, size, ttl)
  offset = redis.call('HINCRBY', meta, 'offset', 1)
  local function add()
    return redis.pcall('XADD', stream, 'MAXLEN', '~', size, offset .. '-0', 'd', body)
  end
  local added = add()
  if type(added) == 'table' and added.err then  -- something else stands there: the past is lost, and shows as a hole
    redis.call('DEL', stream)
    add()
  end
  redis.call('PEXPIRE', stream, ttl)
  redis.call('PUBLISH', channel, epoch .. ' ' .. offset .. '\\n' .. body)
end
"""

# ARGV[4..6]: body, size and ttl (ms) of the history. Returns the position.
PUBLISH = Script(_FENCE + _PUBLISH + "publish(ARGV[4], ARGV[5], ARGV[6])\nreturn {epoch, offset}\n")

# ARGV[4..8]: epoch and offset of the position asked from, how many events at most, '1' where who asks had all up to
# there, and for how long (ms) a topic is remembered that never had an event, so that subscribing to one such route
# after another does not fill Redis for a day. Returns the position, the entries or false, and up to where the past is
# shared.
READ = Script(
    _FENCE
    + """
local since_epoch, since, limit = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
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

INVALIDATE = Script(_FENCE + _CUT + "return {epoch, offset}\n")

# KEYS[4..5]: the counts of all processes by user, and those of one. ARGV[4..5]: size (0: none) and ttl (ms) of the
# history; then for each user: how many connections the process has, and what is told when the first one comes anywhere
# and when the last one goes.
COUNT = Script(
    _FENCE
    + _PUBLISH
    + """
local all, own = KEYS[4], KEYS[5]
local function tell(body)
  if ARGV[4] == '0' then redis.call('PUBLISH', channel, '- 0\\n' .. body) else publish(body, ARGV[4], ARGV[5]) end
end
for at = 6, #ARGV, 4 do
  local user, count = ARGV[at], tonumber(ARGV[at + 1])
  local more = count - (tonumber(redis.call('HGET', own, user) or 0) or 0)
  if count == 0 then redis.call('HDEL', own, user) else redis.call('HSET', own, user, count) end
  if more ~= 0 then
    local total = redis.call('HINCRBY', all, user, more)
    if total <= 0 then
      redis.call('HDEL', all, user)
      tell(ARGV[at + 3])
    elseif total == more then
      tell(ARGV[at + 2])
    end
  end
end
"""
)

# KEYS: sorted sets of processes by the end of their lease, and of those whose lease has run out. ARGV[2..5]: the name
# of a process, its lease in seconds, '1' where it is new, and how many ended ones to return at most.
RENEW = Script("""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], process)
  redis.call('ZADD', KEYS[2], now, process)
end
local alive = ARGV[4] == '1' or redis.call('ZSCORE', KEYS[1], ARGV[2])
if alive then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
else
  redis.call('ZADD', KEYS[2], now, ARGV[2])
end
return {alive and 1 or 0, redis.call('ZRANGE', KEYS[2], 0, ARGV[5] - 1)}
""")
