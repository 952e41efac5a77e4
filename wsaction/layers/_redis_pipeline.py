"""Connections to Redis for requests: pipelined, never retried, minded.

A request whose connection breaks before its answer has come may have been carried out or not; only who asked can know
what to do then. So nothing is sent twice: whoever waits is told ``uncertain``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from wsaction._utils.backoff import Backoff
from wsaction.exceptions import LayerUnavailable
from wsaction.layers._redis_scripts import Script
from wsaction.routing.converters import ImproperlyConfigured

__all__ = ("Connect", "Demoted", "Link", "Pipeline", "Refused", "encode_command", "encoded", "greet", "refusal")

logger = logging.getLogger("wsaction")

MAX_COMMANDS = 10_000  # that wait to be sent; past it they are refused
MAX_BATCH = 256  # commands that are sent in one write
ANSWER_TIMEOUT = 5.0  # seconds for the answers to a batch
CONNECT_TIMEOUT = 2.0  # seconds
FRESH = 1.0  # seconds that a connection is trusted for after it was used
OLDEST_REDIS = (6, 0)


class Refused(Exception):
    """The server answered with an error: it did not do what it was asked.

    ``code`` is the error's first word as Redis has it: ``NOSCRIPT``, ``NOPERM``, ``MOVED``, ``ERR``.
    """

    def __init__(self, msg: str, code: str = "") -> None:
        super().__init__(msg)
        self.code = code


class Demoted(ConnectionError):
    """The server is a replica. It refuses writes, and what is published on it is not heard elsewhere."""


class Link(Protocol):
    """One connection. What breaks it raises ``OSError``; it is closed then and not used again."""

    async def send(self, data: bytes) -> None:
        """Writes encoded commands."""

    async def receive(self) -> Any:
        """The next answer, text as bytes. Raises `Refused` where that is an error, `Demoted` for a replica's."""

    async def close(self) -> None:
        """Ends it. Raises nothing."""


Connect = Callable[[], Awaitable[Link]]
"""Makes a connection. Raises ``OSError`` where that cannot be had now, ``ImproperlyConfigured`` where never."""


class _Command:
    """A command on its way: ``args`` without the run id, which a script is given of the server that it runs on."""

    __slots__ = ("answer", "args", "keys", "repeated", "script")

    def __init__(self, script: Script | None, keys: int, args: list[bytes]) -> None:
        self.script, self.keys, self.args = script, keys, args
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.repeated = False

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
    """One connection for requests, made when it is needed: in order, all that wait in one write.

    ``rehearse(link, run_id)`` tries on each new connection whether all can be done that will be asked, and raises what
    `refusal` returns. ``on_connect(run_id, last_run_id)`` is told of every connection made, ``last_run_id`` None for
    the first one; ``on_demoted()`` of a server that is found to be a replica.
    """

    def __init__(
        self,
        connect: Connect,
        scripts: Sequence[Script],
        on_connect: Callable[[bytes, bytes | None], None] | None = None,
        rehearse: Callable[[Link, bytes], Awaitable[None]] | None = None,
        on_demoted: Callable[[], None] | None = None,
        *,
        max_batch: int = MAX_BATCH,
        max_commands: int = MAX_COMMANDS,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._max_batch, self._max_commands, self._answer_timeout = max_batch, max_commands, answer_timeout
        self._connect_link, self._scripts, self._on_connect = connect, scripts, on_connect
        self._rehearse, self._on_demoted = rehearse, on_demoted
        self._queue: deque[_Command] = deque()
        self._wake = asyncio.Event()
        self._link: Link | None = None
        self.run_id: bytes | None = None  # of the server that it was last connected to
        self._told = ""  # why Redis cannot be used, as was last logged
        self._backoff, self._not_before = Backoff(), 0.0
        self._used = 0.0
        self.good_until = 0.0  # when the last connection that broke was last known to work
        self.suspect = False  # whether the connection is to be tried before it is used

    # ------------------------------------------------------------------------------------------------ asking
    def run(self, script: Script, keys: Sequence[str], *args: str | bytes | int) -> asyncio.Future[Any]:
        """Runs a script; see `Script` for what it is given. Raises as `call` does."""
        return self._add(_Command(script, len(keys), [encoded(one) for one in (*keys, *args)]))

    def call(self, *args: str | bytes | int) -> asyncio.Future[Any]:
        """Sends a command, and gives what will be its answer. Raises ``LayerUnavailable``, now or then."""
        return self._add(_Command(None, 0, [encoded(one) for one in args]))

    def _add(self, command: _Command) -> asyncio.Future[Any]:
        if len(self._queue) >= self._max_commands:
            raise LayerUnavailable(ctx={"limit": "commands that wait for Redis", "value": self._max_commands})
        self._queue.append(command)
        self._wake.set()
        return command.answer

    # ------------------------------------------------------------------------------------------------ its life
    async def run_forever(self) -> None:
        """Serves what is asked, until it is cancelled; what waits then is refused."""
        try:
            while True:
                await self._wake.wait()
                try:
                    await self.serve()
                except Exception as exc:  # whatever it is, who asks later is to be answered
                    logger.exception("serving requests to Redis failed")
                    self._refuse_all(exc)
                    await self.drop()
        finally:
            self._refuse_all(ConnectionError("the layer was closed"))
            await self.drop()

    def look(self) -> None:
        """Has the connection tried soon, if there is one."""
        if self._link is not None:
            self.recheck()

    def recheck(self) -> None:
        """Has the connection tried soon, and made anew if need be."""
        self.suspect, self._not_before = True, 0.0
        self._wake.set()

    async def serve(self) -> None:
        """Sends all that waits and takes the answers; where there is no server, all is refused."""
        try:
            await self.ensure()
        except (OSError, ImproperlyConfigured) as exc:
            if isinstance(exc, ImproperlyConfigured) and str(exc) != self._told:
                self._told = str(exc)
                logger.error("Redis cannot be used, and is tried again: %s", exc)
            self._refuse_all(exc)
            return
        while self._queue and self._link is not None:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
            await self._exchange([command for command in batch if not command.answer.done()])
        if not self._queue:
            self._wake.clear()

    async def ensure(self) -> None:
        """Connects, or tries the connection if it was not used lately: a dead one that is found before anything is sent
        makes nobody uncertain. Raises ``OSError`` and ``ImproperlyConfigured``."""
        loop = asyncio.get_running_loop()
        if self._link is not None and (self.suspect or loop.time() - self._used > FRESH):
            try:
                await self._try(self._link)
            except (OSError, Refused, ImproperlyConfigured) as exc:
                await self._lose(exc)
        if self._link is None:
            if loop.time() < self._not_before:
                raise ConnectionError("Redis is away; it is tried again in a moment")
            try:
                await self._connect()
            except (OSError, ImproperlyConfigured) as exc:
                self._not_before = loop.time() + self._backoff.seconds()
                logger.debug("no connection to Redis: %r", exc)
                raise
            self._backoff.reset()
        self._used = loop.time()

    async def _try(self, link: Link) -> None:
        """Whether the connection still leads to the server that it was made to, and that is still a master."""
        if not self.suspect:
            await _ask(link, b"PING")
            return
        self.suspect = False
        if await greet(link) != self.run_id:
            raise ConnectionError("another server answers on this connection")

    async def _connect(self) -> None:
        link = await self._connect_link()
        try:
            run_id = await greet(link)
            for script in self._scripts:
                await _ask(link, b"SCRIPT", b"LOAD", script.text)
            if self._rehearse is not None:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await self._rehearse(link, run_id)
        except Refused as exc:
            await link.close()
            raise refusal(exc) from exc
        except BaseException:
            await link.close()
            raise
        self._link, last = link, self.run_id
        self.run_id, self.suspect, self._told = run_id, False, ""
        if self._on_connect is not None:
            self._on_connect(run_id, last)

    async def _lose(self, cause: BaseException) -> None:
        """The connection is of no use any more."""
        await self.drop()
        if isinstance(cause, Demoted) and self._on_demoted is not None:
            logger.warning("Redis has become a replica; looking for the master at the same address")
            self._on_demoted()

    async def drop(self) -> None:
        """Lets the connection go, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            self.good_until = self._used
            await link.close()

    # ------------------------------------------------------------------------------------------------ the exchange
    async def _exchange(self, batch: list[_Command]) -> None:
        if self._link is None or self.run_id is None:
            raise RuntimeError("a pipeline exchanges once it has connected")
        left, unknown = deque(batch), list[_Command]()
        if not batch:
            return
        try:
            async with asyncio.timeout(self._answer_timeout):
                await self._link.send(b"".join([command.encode(self.run_id) for command in batch]))
                while left:
                    if not await self._take_answer(self._link, left[0]):
                        unknown.append(left[0])
                    left.popleft()
        except OSError as exc:  # TimeoutError is one
            logger.warning("the connection to Redis broke: %r", exc)
            await self._lose(exc)
            _fail(left, exc, uncertain=True)
        except BaseException as exc:
            _fail(left, exc, uncertain=True)
            raise
        self._used = asyncio.get_running_loop().time()
        if unknown:  # somebody flushed the scripts: nothing was done, so these are asked again, once, in their order
            await self.drop()
            self._queue.extendleft(reversed(unknown))

    async def _take_answer(self, link: Link, command: _Command) -> bool:
        """Passes the next answer on; False where the server does not know the script any more."""
        try:
            answer = await link.receive()
        except Refused as exc:
            if exc.code == "NOSCRIPT" and not command.repeated:
                command.repeated = True
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
        _fail(waiting, cause, uncertain=False)


def _fail(commands: Sequence[_Command] | deque[_Command], cause: BaseException, *, uncertain: bool) -> None:
    for command in commands:
        command.fail(cause, uncertain=uncertain)


async def greet(link: Link) -> bytes:
    """Asks a server what it is, and returns its run id.

    Raises `Demoted` for a replica, ``ImproperlyConfigured`` for what a layer cannot work with, `Refused`, ``OSError``.
    """
    info = _fields(await _ask(link, b"INFO"))
    version, run_id, mode = info.get(b"redis_version", b"0"), info.get(b"run_id"), info.get(b"redis_mode")
    if tuple(int(part) for part in version.split(b".")[:2] if part.isdigit()) < OLDEST_REDIS or not run_id:
        wanted = ".".join(map(str, OLDEST_REDIS))
        raise ImproperlyConfigured(f"RedisLayer needs Redis {wanted} or newer, not {version.decode()}; upgrade it")
    if mode not in (None, b"standalone"):
        what = {b"cluster": "a node of a cluster", b"sentinel": "a Sentinel"}.get(mode, f"{mode.decode()!r}")
        raise ImproperlyConfigured(
            f"RedisLayer needs one Redis that keeps all topics, and its url leads to {what} "
            f"(redis_mode:{mode.decode()}); give it the address of a standalone Redis"
        )
    if info.get(b"role", b"master") != b"master":
        raise Demoted("it is a replica; RedisLayer needs the master")
    return run_id


async def _ask(link: Link, *args: bytes) -> Any:
    async with asyncio.timeout(CONNECT_TIMEOUT):
        await link.send(encode_command(*args))
        return await link.receive()


_PASSING = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    }
)  # codes of refusals that may end by themselves


def refusal(refused: Refused) -> Exception:
    """What is raised where Redis refuses what a layer always needs: ``ConnectionError`` where that may pass."""
    if refused.code in _PASSING:
        return ConnectionError(f"Redis refuses to work for now: {refused}")
    return ImproperlyConfigured(f"Redis does not let RedisLayer do what it has to: {refused}")


def encode_command(*args: bytes) -> bytes:
    """A command as Redis reads it: ``encode_command(b"PING")`` is ``b"*1\\r\\n$4\\r\\nPING\\r\\n"``."""
    return b"*%d\r\n%b" % (len(args), b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in args]))


def encoded(value: str | bytes | int) -> bytes:
    """An argument of a command as bytes."""
    return value if type(value) is bytes else str(value).encode(errors="surrogatepass")


def _fields(info: Any) -> dict[bytes, bytes]:
    """The lines of ``INFO``."""
    lines = bytes(info).splitlines()
    return {name: value for name, colon, value in (line.partition(b":") for line in lines) if colon}
