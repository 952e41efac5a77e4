"""`RedisThrottleStore`: rate limits that all worker processes share through Redis."""

import asyncio
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from wsaction._utils.lifespan import close_at_end
from wsaction.exceptions import LayerUnavailable
from wsaction.routing.exceptions import ImproperlyConfigured

try:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.exceptions import RedisError
except ImportError as exc:  # pragma: no cover
    raise ImportError('RedisThrottleStore needs redis-py: pip install "wsaction[redis]"') from exc

__all__ = ("MAX_CONNECTIONS", "RedisThrottleStore")

TIMEOUT = 1.0  # seconds that Redis has to answer
MAX_CONNECTIONS = 8  # of one event loop; while all are busy, requests wait

# A bucket is one number: the time, by Redis' clock, when it will be full again.
_TAKE = """
local t = redis.call('TIME')
local now, period, burst = t[1] + t[2] / 1000000, tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + period / burst
local wait = full - now - period
if wait > 0.000001 then return string.format('%.6f', wait) end
redis.call('SET', KEYS[1], string.format('%.6f', full), 'PX', math.ceil((full - now) * 1000))
return '0'
"""


class _Rate(Protocol):
    @property
    def burst(self) -> int: ...

    @property
    def period(self) -> float: ...


class RedisThrottleStore:
    """A `wsaction.throttling.ThrottleStore` that keeps its token buckets in Redis, so that rates hold across workers.

    ``url`` is as for ``RedisLayer``; keys begin with ``prefix``. While Redis is unavailable, throttled actions are
    refused with `LayerUnavailable`, 503. If the app's lifespan runs, the connections close with the last app of their
    event loop; otherwise call `close` yourself. Raises `ImproperlyConfigured` for a URL that cannot be used.

    >>> class Everybody(UserRateThrottle):
    ...     store = RedisThrottleStore("redis://127.0.0.1:6379/0")
    """

    def __init__(self, url: str, prefix: str = "wsaction:throttle:") -> None:
        self._url = url
        self._prefix = prefix
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        try:
            self._client()
        except (ValueError, AttributeError, TypeError):  # their text may hold the password
            raise ImproperlyConfigured(
                "RedisThrottleStore's url is redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0, "
                f"not {str(url).partition(':')[0]!r} with what followed it"
            ) from None

    async def take(self, key: str, rate: _Rate) -> float:
        """Takes a token and returns 0, or returns the seconds until there is one. Raises `LayerUnavailable`."""
        loop = asyncio.get_running_loop()
        if (script := self._clients.get(loop)) is None:
            script = self._clients[loop] = self._client().register_script(_TAKE)
            close_at_end(self.close)
        try:
            async with asyncio.timeout(TIMEOUT):
                return float(await script(keys=[self._prefix + key], args=[rate.period, rate.burst]))
        except (RedisError, OSError) as exc:  # TimeoutError is one
            raise LayerUnavailable("The store of the rate limits is unavailable; try again later.") from exc

    async def close(self) -> None:
        """Closes the connections of the running event loop. The next `take` opens new ones."""
        if (script := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await script.registered_client.aclose()

    def _client(self) -> Any:
        options: dict[str, Any] = {"max_connections": MAX_CONNECTIONS, "socket_connect_timeout": TIMEOUT}
        return Redis.from_pool(BlockingConnectionPool.from_url(self._url, timeout=TIMEOUT, **options))
