"""A connection for requests to Redis: pipelined, monitored, without retries.

If the connection breaks before an answer comes, the request may or may not have been carried out, and only its caller
can know what to do then. So no request is sent twice: the caller gets ``LayerUnavailable`` with ``uncertain``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._redis_scripts import Script
from wsaction.routing.exceptions import ImproperlyConfigured

logger = logging.getLogger("wsaction")

MAX_COMMANDS = 10_000  # commands that wait to be sent; more are refused
MAX_BATCH = 256  # commands in one write
ANSWER_TIMEOUT = 5.0  # seconds for the answers to a batch
CONNECT_TIMEOUT = 2.0  # seconds
FRESH = 1.0  # seconds after its last use in which a connection is used without a test
OLDEST_REDIS = (6, 0)


class Refused(Exception):
    """Redis answered a command with an error, and did not carry it out.

    ``code`` is the first word of the error, such as ``NOSCRIPT``, ``NOPERM``, ``MOVED`` or ``ERR``.
    """

    def __init__(self, msg: str, code: str = "") -> None:
        super().__init__(msg)
        self.code = code


class Demoted(ConnectionError):
    """The server is a replica: it refuses writes, and what is published on it does not reach the master."""


class RedisConnection(Protocol):
    """One connection to Redis. If it breaks, a method raises ``OSError``; it is then closed and not used again."""

    async def send(self, data: bytes) -> None:
        """Sends encoded commands."""

    async def receive(self) -> Any:
        """The next answer, text as bytes. Raises `Refused` for an error, `Demoted` for the refusal of a replica."""

    async def close(self) -> None:
        """Closes the connection. Raises nothing."""


Connect = Callable[[], Awaitable[RedisConnection]]
"""Connects to Redis. Raises ``OSError`` if that fails now, ``ImproperlyConfigured`` if it can never succeed."""


class _Command:
    """A command and its future answer. ``args`` lack the run id; a script gets it when it is sent."""

    __slots__ = ("answer", "args", "is_retried", "keys", "script")

    def __init__(self, script: Script | None, keys: int, args: list[bytes]) -> None:
        self.script = script
        self.keys = keys
        self.args = args
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_retried = False

    def encode(self, run_id: bytes) -> bytes:
        if self.script is None:
            return encode_command(*self.args)
        keys, args = self.args[: self.keys], self.args[self.keys :]
        return encode_command(b"EVALSHA", self.script.sha, b"%d" % self.keys, *keys, run_id, *args)

    def fail(self, cause: BaseException, *, uncertain: bool) -> None:
        if not self.answer.done():
            error = LayerUnavailable(uncertain=uncertain)
            error.__cause__ = cause
            self.answer.set_exception(error)


class Pipeline:
    """Sends requests over one connection, in order, with all waiting requests in one write. It connects when needed.

    ``check_rights(connection, run_id)`` runs on each new connection. It checks that Redis allows all commands, and
    raises what `error_for_refusal` returns. ``on_connect(run_id, last_run_id)`` is called after each connection;
    ``last_run_id`` is None the first time. ``on_demoted()`` is called when the server turns out to be a replica.
    """

    def __init__(
        self,
        connect: Connect,
        scripts: Sequence[Script],
        on_connect: Callable[[bytes, bytes | None], None] | None = None,
        check_rights: Callable[[RedisConnection, bytes], Awaitable[None]] | None = None,
        on_demoted: Callable[[], None] | None = None,
        *,
        max_batch: int = MAX_BATCH,
        max_commands: int = MAX_COMMANDS,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._make_connection = connect
        self._scripts = scripts
        self._on_connect = on_connect
        self._check_rights = check_rights
        self._on_demoted = on_demoted
        self._max_batch = max_batch
        self._max_commands = max_commands
        self._answer_timeout = answer_timeout
        self._queue: deque[_Command] = deque()
        self._wake = asyncio.Event()
        self._connection: RedisConnection | None = None
        self.run_id: bytes | None = None  # of the last server that it was connected to
        self._logged_error = ""  # the last one, to log it once
        self._backoff = Backoff()
        self._not_before = 0.0
        self._last_used = 0.0
        self.working_until = 0.0  # when the last broken connection was last known to work
        self.suspect = False  # whether to test the connection before its next use

    # ------------------------------------------------------------------------------------------------ requests
    def run(self, script: Script, keys: Sequence[str], *args: str | bytes | int) -> asyncio.Future[Any]:
        """Runs a script; `Script` says which arguments it gets. Raises as `call` does."""
        return self._add(_Command(script, len(keys), [encoded(value) for value in (*keys, *args)]))

    def call(self, *args: str | bytes | int) -> asyncio.Future[Any]:
        """Sends a command and returns the future of its answer. Both may raise ``LayerUnavailable``."""
        return self._add(_Command(None, 0, [encoded(value) for value in args]))

    def _add(self, command: _Command) -> asyncio.Future[Any]:
        if len(self._queue) >= self._max_commands:
            raise LayerUnavailable(ctx={"limit": "commands that wait for Redis", "value": self._max_commands})
        self._queue.append(command)
        self._wake.set()
        return command.answer

    # ------------------------------------------------------------------------------------------------ the connection
    async def run_forever(self) -> None:
        """Serves requests until it is cancelled; requests that wait then are refused."""
        try:
            while True:
                await self._wake.wait()
                try:
                    await self.serve()
                except Exception as exc:  # a bug must not stop later requests
                    logger.exception("serving requests to Redis failed")
                    self._refuse_all(exc)
                    await self.disconnect()
        finally:
            self._refuse_all(ConnectionError("the layer was closed"))
            await self.disconnect()

    def recheck_if_connected(self) -> None:
        """Tests the connection soon, if there is one."""
        if self._connection is not None:
            self.recheck()

    def recheck(self) -> None:
        """Tests the connection soon, and reconnects if necessary."""
        self.suspect = True
        self._not_before = 0.0
        self._wake.set()

    async def serve(self) -> None:
        """Sends all waiting requests and takes the answers. If there is no server, it refuses them."""
        try:
            await self.ensure()
        except (OSError, ImproperlyConfigured) as exc:
            if isinstance(exc, ImproperlyConfigured) and str(exc) != self._logged_error:
                self._logged_error = str(exc)
                logger.error("Redis cannot be used, and is tried again: %s", exc)
            self._refuse_all(exc)
            return
        while self._queue and self._connection is not None:
            popped = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
            if batch := [command for command in popped if not command.answer.done()]:
                await self._exchange(batch)
        if not self._queue:
            self._wake.clear()

    async def ensure(self) -> None:
        """Connects, or tests a connection that was not used lately. Raises ``OSError`` and ``ImproperlyConfigured``.

        If a dead connection is found before a request is sent, the request's outcome is not uncertain.
        """
        loop = asyncio.get_running_loop()
        if self._connection is not None and (self.suspect or loop.time() - self._last_used > FRESH):
            try:
                await self._probe(self._connection)
            except (OSError, Refused, ImproperlyConfigured) as exc:
                await self._lose(exc)
        if self._connection is None:
            if loop.time() < self._not_before:
                raise ConnectionError("Redis is unavailable; the next try is in a moment")
            try:
                await self._connect()
            except (OSError, ImproperlyConfigured) as exc:
                self._not_before = loop.time() + self._backoff.seconds()
                logger.debug("no connection to Redis: %r", exc)
                raise
            self._backoff.reset()
        self._last_used = loop.time()

    async def _probe(self, connection: RedisConnection) -> None:
        """Tests a connection; if it is suspect, also that the server is still the same one and a master."""
        if not self.suspect:
            await _request(connection, b"PING")
            return
        self.suspect = False
        if await check_server(connection) != self.run_id:
            raise ConnectionError("another server answers on this connection")

    async def _connect(self) -> None:
        connection = await self._make_connection()
        try:
            run_id = await check_server(connection)
            for script in self._scripts:
                await _request(connection, b"SCRIPT", b"LOAD", script.text)
            if self._check_rights is not None:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._check_rights(connection, run_id)
        except Refused as exc:
            await connection.close()
            raise error_for_refusal(exc) from exc
        except BaseException:
            await connection.close()
            raise
        last_run_id = self.run_id
        self._connection = connection
        self.run_id = run_id
        self.suspect = False
        self._logged_error = ""
        if self._on_connect is not None:
            self._on_connect(run_id, last_run_id)

    async def _lose(self, cause: BaseException) -> None:
        """Drops a broken connection."""
        await self.disconnect()
        if isinstance(cause, Demoted) and self._on_demoted is not None:
            logger.warning("Redis has become a replica; trying to reach the master at the same address")
            self._on_demoted()

    async def disconnect(self) -> None:
        """Closes the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.working_until = self._last_used
            await connection.close()

    # ------------------------------------------------------------------------------------------------ exchange
    async def _exchange(self, batch: list[_Command]) -> None:
        if self._connection is None or self.run_id is None:
            raise RuntimeError("a pipeline must connect before it sends")
        unanswered = deque(batch)
        not_loaded: list[_Command] = []
        try:
            async with asyncio.timeout(self._answer_timeout):
                await self._connection.send(b"".join([command.encode(self.run_id) for command in batch]))
                while unanswered:
                    if not await self._take_answer(self._connection, unanswered[0]):
                        not_loaded.append(unanswered[0])
                    unanswered.popleft()
        except OSError as exc:  # TimeoutError is one
            logger.warning("the connection to Redis broke: %r", exc)
            await self._lose(exc)
            _fail_all(unanswered, exc, uncertain=True)
        except BaseException as exc:
            _fail_all(unanswered, exc, uncertain=True)
            raise
        self._last_used = asyncio.get_running_loop().time()
        if not_loaded:  # scripts were flushed, nothing was done: send these again, once, in order
            await self.disconnect()
            self._queue.extendleft(reversed(not_loaded))

    async def _take_answer(self, connection: RedisConnection, command: _Command) -> bool:
        """Takes the next answer for a command. Returns False if the server no longer knows the script."""
        try:
            answer = await connection.receive()
        except Refused as exc:
            if exc.code == "NOSCRIPT" and not command.is_retried:
                command.is_retried = True
                return False
            logger.error("Redis refused a command: %s", exc)
            command.fail(exc, uncertain=False)
        else:
            if not command.answer.done():
                command.answer.set_result(answer)
        return True

    def _refuse_all(self, cause: BaseException) -> None:
        waiting, self._queue = self._queue, deque()
        self._wake.clear()
        _fail_all(waiting, cause, uncertain=False)


def _fail_all(commands: Sequence[_Command] | deque[_Command], cause: BaseException, *, uncertain: bool) -> None:
    for command in commands:
        command.fail(cause, uncertain=uncertain)


async def check_server(connection: RedisConnection) -> bytes:
    """Checks a server's version, mode and role by ``INFO``, and returns its run id.

    Raises `Demoted` for a replica, ``ImproperlyConfigured`` for a server that a layer cannot use, `Refused` and
    ``OSError``.
    """
    info = _parse_info(await _request(connection, b"INFO"))
    version, run_id, mode = info.get(b"redis_version", b"0"), info.get(b"run_id"), info.get(b"redis_mode")
    if tuple(int(part) for part in version.split(b".")[:2] if part.isdigit()) < OLDEST_REDIS or not run_id:
        oldest = ".".join(map(str, OLDEST_REDIS))
        raise ImproperlyConfigured(f"RedisLayer needs Redis {oldest} or newer, not {version.decode()}; upgrade it")
    if mode not in (None, b"standalone"):
        server_kind = {b"cluster": "a node of a cluster", b"sentinel": "a Sentinel"}.get(mode, f"{mode.decode()!r}")
        raise ImproperlyConfigured(
            f"RedisLayer needs one Redis that keeps all topics, but its url leads to {server_kind} "
            f"(redis_mode:{mode.decode()}); give it the address of a standalone Redis"
        )
    if info.get(b"role", b"master") != b"master":
        raise Demoted("it is a replica; RedisLayer needs the master")
    return run_id


async def _request(connection: RedisConnection, *args: bytes) -> Any:
    async with asyncio.timeout(CONNECT_TIMEOUT):
        await connection.send(encode_command(*args))
        return await connection.receive()


# Error codes of refusals that may end without a change of the configuration.
_TRANSIENT_CODES = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"}
)


def error_for_refusal(refused: Refused) -> Exception:
    """The exception for a refused command that a layer always needs: ``ConnectionError`` if that may be temporary."""
    if refused.code in _TRANSIENT_CODES:
        return ConnectionError(f"Redis refuses commands for now: {refused}")
    return ImproperlyConfigured(f"Redis refuses a command that RedisLayer needs: {refused}")


def encode_command(*args: bytes) -> bytes:
    """A command in Redis' protocol: ``encode_command(b"PING")`` is ``b"*1\\r\\n$4\\r\\nPING\\r\\n"``."""
    return b"*%d\r\n%b" % (len(args), b"".join([b"$%d\r\n%b\r\n" % (len(value), value) for value in args]))


def encoded(value: str | bytes | int) -> bytes:
    """An argument of a command as bytes."""
    return value if type(value) is bytes else str(value).encode(errors="surrogatepass")


def _parse_info(info: Any) -> dict[bytes, bytes]:
    """The fields of ``INFO``, by name."""
    lines = bytes(info).splitlines()
    return {name: value for name, colon, value in (line.partition(b":") for line in lines) if colon}
