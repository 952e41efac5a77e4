"""The Redis layer, for apps of several processes: Redis carries the events and keeps their history.

Each process has three connections: one receives events, one publishes and one reads, so that a long history never
delays a publication. redis-py opens them. Its pub/sub and its retries are not used; ``wsaction.layers._redis_pubsub``
and ``wsaction.layers._redis_pipeline`` say why. Bodies are JSON; nothing is unpickled.
"""

import asyncio
import logging
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from wsaction._protocol.event_frames import is_body
from wsaction._utils.tasks import Tasks
from wsaction._utils.threads import is_loop_closed
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._redis_pipeline import (
    CONNECT_TIMEOUT,
    Demoted,
    Pipeline,
    RedisConnection,
    Refused,
    encode_command,
    encoded,
    error_for_refusal,
)
from wsaction.layers._redis_presence import LEASE, RedisRoster, presence_key
from wsaction.layers._redis_pubsub import PING_INTERVAL, PubSub
from wsaction.layers._redis_scripts import ALIVE, COUNT, INVALIDATE, PUBLISH, READ, RENEW, TELL, Script
from wsaction.layers.base import (
    MAX_TOPIC_BYTES,
    META_TTL,
    UNUSED_TTL,
    History,
    Page,
    Position,
    Roster,
    Sink,
    check_bytes,
    new_epoch,
)
from wsaction.routing.exceptions import ImproperlyConfigured

try:
    from redis.asyncio.connection import Connection, ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        ClusterCrossSlotError,
        ClusterDownError,
        MasterDownError,
        MovedError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TryAgainError,
    )
except ImportError as exc:  # pragma: no cover
    raise ImportError('RedisLayer needs redis-py: pip install "wsaction[redis]"') from exc

__all__ = ("RedisLayer",)

logger = logging.getLogger("wsaction")

MAX_KNOWN_KEYS = 10_000  # topics whose keys are cached
MAX_ACKNOWLEDGED = 10_000  # topics whose last acknowledged position is remembered
ACKNOWLEDGED_FOR = 60.0  # seconds before a loss; what was acknowledged then may be lost too

VERIFIED_AT_ONCE = 128  # positions
WITHDRAW_TIMEOUT = 1.0  # seconds

_Keys = tuple[str, str, str]  # of a topic: meta, stream, channel
_Acknowledged = tuple[float, Position]  # the time and the position

OPTIONS = ("db", "username", "password", "client_name", "socket_keepalive", "ssl_*")  # the options of a url

# The error codes that redis-py strips from an error's text, because it has a class for them.
_CODES: dict[type[Exception], str] = {
    AuthenticationError: "WRONGPASS",
    ClusterCrossSlotError: "CROSSSLOT",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    MovedError: "MOVED",
    NoPermissionError: "NOPERM",
    NoScriptError: "NOSCRIPT",
    OutOfMemoryError: "OOM",
    TryAgainError: "TRYAGAIN",
}


def _to_refused(exc: ResponseError | AuthenticationError) -> Refused:
    """A `Refused` with the server's answer and its code."""
    text = str(exc)
    code = _CODES.get(type(exc)) or text.partition(" ")[0]
    return Refused(text if text.startswith(code) else f"{code} {text}", code)


class _RedisPyConnection:
    """A connection of redis-py, with its errors converted to those of `RedisConnection`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        if not self._connection.is_connected:  # redis-py would silently reconnect
            raise ConnectionError("the connection was closed")
        try:
            await self._connection.send_packed_command([data], check_health=False)
        except (RedisError, AttributeError) as exc:  # AttributeError: it was closed meanwhile
            raise ConnectionError(str(exc)) from exc

    async def receive(self) -> Any:
        try:
            return await self._connection.read_response()
        except ReadOnlyError as exc:  # no longer the master, which is found by reconnecting
            raise Demoted(str(exc)) from exc
        except (ResponseError, AuthenticationError) as exc:
            raise _to_refused(exc) from exc
        except (RedisError, AttributeError) as exc:
            raise ConnectionError(str(exc)) from exc

    async def close(self) -> None:
        with suppress(RedisError, OSError):  # the connection is dropped anyway
            await self._connection.disconnect(nowait=True)


class RedisLayer:
    """Carries events between processes through one Redis server (6.0 or newer), and keeps their history there.

    :param url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with ``user:password@`` if Redis needs it, and the
        options ``?client_name=``, ``socket_keepalive=`` or redis-py's ``ssl_...``.
    :param prefix: the beginning of all keys and channels, without braces. Channels also name the database, because
        Redis shares channels between databases.
    :param max_topic_bytes: bytes of a topic's history that are kept, the newest events. Redis' own ``maxmemory`` bounds
        the whole.
    :param ping_interval: seconds between two tests of the connections.
    :param lease: seconds that a process counts as alive, for presence, after its last sign of life.
    :raises ImproperlyConfigured: if one of them cannot be used.

    ``WSAction(..., layer=RedisLayer("redis://127.0.0.1:6379/0"))`` shares events between all workers.

    While Redis is unavailable, publishing and reading raise ``LayerUnavailable``; the layer keeps trying to connect.
    Anyone who can write to this Redis can send events to every client, so restrict access to it.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "wsaction:",
        *,
        max_topic_bytes: int = MAX_TOPIC_BYTES,
        ping_interval: float = PING_INTERVAL,
        lease: float = LEASE,
    ) -> None:
        if set("{}") & set(prefix):
            raise ImproperlyConfigured(
                f"a prefix has no braces, which Redis would take for the slot of a key; got {prefix!r}"
            )
        check_bytes("RedisLayer", max_topic_bytes=max_topic_bytes)
        self._pool = _make_pool(url)
        self._database: int = self._pool.connection_kwargs.get("db") or 0
        self._max_topic_bytes = max_topic_bytes
        self._prefix = prefix
        self._ping_interval = ping_interval
        self._lease = lease
        self._known_keys = lru_cache(MAX_KNOWN_KEYS)(self._make_keys)
        self._opened: _OpenLayer | None = None

    # ------------------------------------------------------------------------------------------------ open and close
    async def open(self, sink: Sink) -> None:
        """Starts to deliver to ``sink``. If Redis is unavailable, that is logged, and the layer keeps trying.

        Raises ``ImproperlyConfigured`` if Redis is too old, is a node of a cluster, or refuses the password or a
        command that the layer needs; the message holds Redis' answer. Raises ``RuntimeError`` if the layer is open
        already.
        """
        if self._opened is not None and not is_loop_closed(self._opened.loop):
            raise RuntimeError("this RedisLayer is open already; give each app and each event loop its own layer")
        layer = _OpenLayer(self._connect, self._check_rights, sink, self._ping_interval)
        shared = f"{self._prefix}{{}}"
        layer.roster = RedisRoster(layer.requests, self.keys, shared, self._lease, self._max_topic_bytes)
        await layer.start()
        self._opened = layer

    async def close(self) -> None:
        """Closes the connections and ends the tasks."""
        layer, self._opened = self._opened, None
        if layer is not None:
            await layer.stop()

    async def _connect(self) -> RedisConnection:
        redis_py: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = _RedisPyConnection(redis_py)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await redis_py.connect()  # type: ignore[no-untyped-call]
        except BaseException as exc:
            await connection.close()
            if isinstance(exc, AuthenticationError):
                raise ImproperlyConfigured(f"Redis refuses the user or password of RedisLayer's url: {exc}") from exc
            if isinstance(exc, ResponseError):  # to redis-py's first commands: SELECT, CLIENT SETNAME
                raise error_for_refusal(_to_refused(exc)) from exc
            if not isinstance(exc, RedisError | OSError):
                raise
            if isinstance(exc, ssl.SSLError) or isinstance(exc.__cause__ or exc.__context__, ssl.SSLError):
                raise ImproperlyConfigured(f"no TLS connection is possible with RedisLayer's url: {exc}") from exc
            raise ConnectionError(str(exc) or "no answer in time") from exc
        return connection

    @property
    def _open_layer(self) -> "_OpenLayer":
        if self._opened is None:
            raise LayerUnavailable() from RuntimeError("the layer is not open")
        return self._opened

    @property
    def roster(self) -> Roster:
        """The users in each topic. Raises ``LayerUnavailable`` while the layer is not open."""
        return self._open_layer.roster

    def keys(self, topic: str) -> _Keys:
        """The names of a topic's meta, stream and channel, all in one slot."""
        return self._known_keys(topic)

    def _make_keys(self, topic: str) -> _Keys:
        base = f"{self._prefix}{{{quote(topic, safe='/:?=&', errors='surrogatepass')}}}"
        return f"{base}:meta", f"{base}:stream", f"{base}:channel:{self._database}"

    async def _check_rights(self, connection: RedisConnection, run_id: bytes) -> None:
        """Runs every command that the layer needs once, on a topic of its own, to find a missing right at the start.

        Raises what `error_for_refusal` returns.
        """
        topic = f"$rehearsal:{secrets.token_urlsafe(9)}"
        meta, stream, channel = keys = self.keys(topic)
        people, shared = presence_key(meta), f"{self._prefix}{{}}:{topic}"

        def run(script: Script, keys: tuple[str, ...], *args: str | bytes | int) -> tuple[str | bytes | int, ...]:
            return "EVALSHA", script.sha, len(keys), *keys, run_id, *args

        epoch, second = new_epoch(), 1000
        count = epoch, second, 1, second, 1, 1, "process"
        commands: tuple[tuple[str | bytes | int, ...], ...] = (
            ("SUBSCRIBE", channel),
            ("UNSUBSCRIBE", channel),
            ("PING",),
            run(TELL, keys, b"{}"),
            run(READ, keys, epoch, second, "", 0, 0, 0, second),
            run(PUBLISH, keys, epoch, second, b"{}", 1, second, 1, 1),
            run(INVALIDATE, keys, epoch, second),
            run(COUNT, (*keys, people), *count, 1, "0.0", "user", 1, 0, b"{}", b"{}"),
            run(COUNT, (*keys, people), *count, 0, "0.0", "user", 0, 1, b"{}", b"{}"),
            run(ALIVE, (people, meta), second),
            run(RENEW, (f"{shared}:processes", f"{shared}:ended"), "process", "1", 1, 1, second),
            ("HGETALL", people),
            ("HSET", shared, "field", 1),
            ("HDEL", shared, "other"),
            ("PEXPIRE", shared, second),
            ("ZREM", f"{shared}:ended", "process"),
            ("DEL", shared, meta, stream, f"{shared}:processes"),
        )
        await connection.send(b"".join([encode_command(*map(encoded, command)) for command in commands]))
        for command in commands:
            try:
                await connection.receive()
            except Refused as exc:
                if exc.code == "OOM":
                    continue  # what stores nothing still works; other commands fail when they are needed
                raise error_for_refusal(Refused(f"{exc} (the command was {command[0]!s})", exc.code)) from exc

    # ------------------------------------------------------------------------------------------------ events
    def subscribe(self, topic: str) -> None:
        """Subscribes to a topic without waiting."""
        if self._opened is not None:
            self._opened.pubsub.subscribe(self.keys(topic)[2], topic)

    def unsubscribe(self, topic: str) -> None:
        """Ends the subscription to a topic without waiting."""
        if self._opened is not None:
            self._opened.pubsub.unsubscribe(self.keys(topic)[2])

    async def publish(self, topic: str, body: bytes, history: History | None) -> Position | None:
        """Delivers a body in all processes, and keeps it as ``history`` says. Returns its position."""
        layer, keys = self._open_layer, self.keys(topic)
        if history is None:
            await layer.requests.run(TELL, keys, body)
            return None
        limits = history.size, int(history.ttl * 1000), self._max_topic_bytes, int(history.always)
        answer = await layer.requests.run(PUBLISH, keys, new_epoch(), meta_ttl_ms(history), body, *limits)
        if answer is None:
            return None
        position = Position(answer[0].decode(), answer[1])
        layer.acknowledge(keys, position)
        return position

    async def read(self, topic: str, since: Position | None, limit: int, history: History, own: bool = False) -> Page:
        """The position of a topic, and all events after ``since`` if they are at most ``limit``."""
        if since is None or not since.is_sane:
            since = Position("", 0)
        unused = int(max(history.ttl, UNUSED_TTL) * 1000)
        args = since.epoch, since.offset, limit, int(own), unused
        epoch, offset, entries, shared = await self._open_layer.reads.run(
            READ, self.keys(topic), new_epoch(), meta_ttl_ms(history), *args
        )
        return Page(Position(epoch.decode(), offset), _to_events(entries, since.offset), shared)

    async def invalidate(self, topic: str, history: History | None) -> None:
        """Begins a new epoch without history, and tells all subscribers."""
        layer, keys = self._open_layer, self.keys(topic)
        if history is None:
            await layer.requests.run(TELL, keys, b"")
            return
        epoch, offset = await layer.requests.run(INVALIDATE, keys, new_epoch(), meta_ttl_ms(history))
        layer.acknowledge(keys, Position(epoch.decode(), offset))


class _OpenLayer:
    """The connections, tasks and state of an open layer."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[RedisConnection]],
        check_rights: Callable[[RedisConnection, bytes], Awaitable[None]],
        sink: Sink,
        ping_interval: float,
    ) -> None:
        self._ping_interval = ping_interval
        self.loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self.roster: RedisRoster
        scripts = TELL, PUBLISH, READ, INVALIDATE, COUNT, ALIVE, RENEW
        self.requests = Pipeline(connect, scripts, self._on_connected, check_rights, self._on_demoted)
        self.reads = Pipeline(connect, (READ,))
        self.pubsub = PubSub(connect, sink, is_body, self._on_pubsub_change, ping_interval)
        self._recent_positions: OrderedDict[_Keys, _Acknowledged] = OrderedDict()
        self._doubtful: dict[_Keys, Position] = {}

    async def start(self) -> None:
        try:
            await self.requests.ensure()
        except OSError as exc:
            logger.warning("Redis is unavailable: %s; trying to connect", exc)
        self._tasks.start(self.requests.run_forever)
        self._tasks.start(self.reads.run_forever)
        self._tasks.start(self.pubsub.run_forever)
        self._tasks.start(self.roster.run_forever)
        self._tasks.start(self._watch)

    async def stop(self) -> None:
        with suppress(LayerUnavailable, TimeoutError):  # other processes remove it when the lease expires
            async with asyncio.timeout(WITHDRAW_TIMEOUT):
                await self.roster.withdraw()
        await self._tasks.stop()
        await self.requests.disconnect()  # its task may have been cancelled before it began

    def _on_pubsub_change(self) -> None:
        """Redis was lost or came back: tests the other connections now, so that acknowledged positions are verified."""
        self.requests.recheck()
        self.reads.recheck()

    # ------------------------------------------------------------------------------------------------ failover
    async def _watch(self) -> None:
        """Checks, until cancelled, that Redis is still the master and that events come from the server published to.

        If they were different servers, published events would be lost without an error.
        """
        while True:
            await asyncio.sleep(self._ping_interval)
            self.requests.recheck_if_connected()
            self._compare_servers()

    def _on_demoted(self) -> None:
        self.pubsub.reconnect("Redis has become a replica")
        self.reads.recheck()

    def _compare_servers(self) -> None:
        subscribed, requested = self.pubsub.run_id, self.requests.run_id
        if subscribed is not None and requested is not None and subscribed != requested:
            self.pubsub.reconnect("events are published on another Redis than the one they are received from")

    # ------------------------------------------------------------------------------------------------ restart
    def acknowledge(self, keys: _Keys, position: Position) -> None:
        """Remembers a position that Redis has acknowledged, for ACKNOWLEDGED_FOR seconds."""
        now = self.loop.time()
        recent = self._recent_positions
        recent[keys] = now, position
        recent.move_to_end(keys)
        while recent and (len(recent) > MAX_ACKNOWLEDGED or next(iter(recent.values()))[0] < now - ACKNOWLEDGED_FOR):
            recent.popitem(last=False)

    def _on_connected(self, run_id: bytes, last_run_id: bytes | None) -> None:
        """After a restart of Redis, verifies the positions that it had acknowledged before.

        The new server process may have lost them. To read a position as ``own`` announces a loss to all subscribers. A
        position that cannot be read now is verified at the next connection.
        """
        self._compare_servers()
        if last_run_id not in (None, run_id):
            since = self.requests.working_until - ACKNOWLEDGED_FOR
            recent = {keys: position for keys, (time, position) in self._recent_positions.items() if time > since}
            self._doubtful.update(recent)
            for keys in list(self._doubtful)[:-MAX_ACKNOWLEDGED]:  # the oldest, of earlier restarts
                del self._doubtful[keys]
            self._recent_positions.clear()
            self.roster.rewrite()
        if self._doubtful:
            self._tasks.start(self._verify)

    async def _verify(self) -> None:
        doubtful = list(self._doubtful.items())
        with suppress(LayerUnavailable):  # the rest stays in _doubtful
            for start in range(0, len(doubtful), VERIFIED_AT_ONCE):
                batch = doubtful[start : start + VERIFIED_AT_ONCE]
                await asyncio.gather(*(self._verify_one(keys, position) for keys, position in batch))

    async def _verify_one(self, keys: _Keys, position: Position) -> None:
        since = position.epoch, position.offset
        ttl = meta_ttl_ms(None)
        await self.requests.run(READ, keys, new_epoch(), ttl, *since, 0, 1, ttl)
        if self._doubtful.get(keys) == position:
            del self._doubtful[keys]


def _to_events(entries: Any, since: int) -> list[tuple[int, bytes]] | None:
    """The entries of a stream as events; None if an entry is not wsaction's, or the offsets have a hole."""
    if entries is None:
        return None
    events = []
    for offset, (name, fields) in enumerate(entries, since + 1):
        if name != b"%d-0" % offset or len(fields) != 2 or not is_body(fields[1]):
            logger.warning("a history in Redis holds entries that are not wsaction's; it is not used")
            return None
        events.append((offset, fields[1]))
    return events


def meta_ttl_ms(history: History | None) -> int:
    """How long a topic is remembered after its last use, in milliseconds."""
    return int(max(META_TTL, history.ttl if history is not None else 0) * 1000)


def _make_pool(url: str) -> ConnectionPool:
    """The pool that makes connections. One is made here, but not connected, to find wrong options now."""
    options: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0), "health_check_interval": 0}
    try:
        _check_options(url)
        pool = ConnectionPool.from_url(url, socket_timeout=None, socket_connect_timeout=CONNECT_TIMEOUT, **options)
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        if hasattr(connection, "ssl_context"):
            connection.ssl_context.get()  # reads the files that it names
    except TypeError as exc:
        raise ImproperlyConfigured(f"RedisLayer's url has an option that its scheme does not take: {exc}") from exc
    except (RedisError, OSError) as exc:  # ssl.SSLError is one
        raise ImproperlyConfigured(f"RedisLayer's url has an ssl_ option that cannot be used: {exc}") from exc
    except (ValueError, AttributeError):  # their text may hold the password
        raise ImproperlyConfigured(
            "RedisLayer's url is redis://, rediss:// or unix://, as in redis://user:password@host:6379/0, "
            f"not {str(url).partition(':')[0]!r} with what followed it"
        ) from None
    return pool


def _check_options(url: str) -> None:
    """Refuses options that would change how the layer talks to Redis, or would have no effect."""
    if not isinstance(url, str):
        raise ValueError("a url is a string")
    parts = urlsplit(url)
    for name in parse_qs(parts.query):
        if name not in OPTIONS and not name.startswith("ssl_"):
            raise ImproperlyConfigured(
                f"RedisLayer's url takes the options {', '.join(OPTIONS)}, not {name!r}: the layer makes, tests and "
                "retries its connections itself; leave it out"
            )
    database = parts.path.strip("/")
    if parts.scheme in ("redis", "rediss") and database and not database.isdecimal():
        raise ValueError("the path is not the number of a database")  # it may be the rest of a password
