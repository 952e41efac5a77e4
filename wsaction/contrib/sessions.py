"""The SQLAlchemy session of a unit of work: one for all that a unit does in a database, never used by two tasks at
once.

SQLite lets one connection write at a time, and one that waits polls. Units that write to a SQLite engine therefore
queue within the process before they do; a ``:memory:`` engine, which has one connection for all, has one unit at a
time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

from wsaction.contrib.violations import api_error
from wsaction.exceptions import Busy, Conflict, NotFound
from wsaction.units import UnitOfWork, join_unit, unit_of_work

__all__ = ("UnitSession", "flush", "session_under_way")

T = TypeVar("T")

QUEUE_TIMEOUT = 30.0  # seconds that a unit waits for its turn to write, before the client is told to try again


class UnitSession:
    """A session with its place in a unit of work: a `units.Resource`.

    ``wrote`` is whether the unit may have changed something.
    """

    instant = False

    def __init__(self, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> None:
        self.session: AsyncSession = sessionmaker(expire_on_commit=False)
        self.wrote = False
        self.is_first = False  # whether nothing was to be written before the block under way
        self.mapper = mapper
        self.lock = asyncio.Lock()
        self.user: asyncio.Task[Any] | None = None  # who holds the lock
        self._engine = self.session.sync_session.get_bind(mapper).engine
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self.is_alone = self.is_sqlite and isinstance(self._engine.pool, StaticPool)  # one connection for all
        self._is_connected = False
        self._turn: asyncio.Lock | None = None  # to write, while this unit has it

    def use(self, *, writing: bool) -> "_Use":
        """The session to oneself; within its block once more where the same task asks.

        Raises for what the database refuses what clients are told of it.
        """
        return _Use(self, writing)

    async def is_transaction_open(self) -> bool:
        """Whether something may have been written already, so that a savepoint is needed to take back one write."""
        if self.is_first or not self.is_sqlite:
            return not self.is_first
        # sqlite3 begins a transaction with the first write; a savepoint before would be one that ends with it
        raw: Any = await (await self.session.connection()).get_raw_connection()
        return bool(raw.driver_connection.in_transaction)

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        """What a function of the session answers that reads rows; from then on the unit holds a connection."""
        found = await self.session.run_sync(query, *args)
        self._is_connected = True
        return found

    def is_dirty(self) -> bool:
        """Whether it holds changes that are not written yet."""
        session = self.session.sync_session
        return bool(session.new or session.dirty or session.deleted)

    async def take_turn(self) -> None:
        """Waits until no other unit writes to the same SQLite database, and keeps others waiting until this one ends.

        Raises `Busy`.
        """
        if not self.is_sqlite or self._turn is not None:
            return
        if not self._is_connected:  # first: whoever has the turn must not wait for those who wait for it
            await self.session.connection()
        turn = _turn(self._engine)
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                await turn.acquire()
        except TimeoutError:
            raise Busy("The database is busy with other changes; nothing was done.") from None
        self._turn = turn

    # ---------------------------------------------------------------------------------------------- its unit
    async def prepare(self) -> None:
        if self.lock.locked() or self.is_dirty():
            async with self.use(writing=False):
                await self.session.flush()

    async def commit(self) -> None:
        if not self.wrote:
            await self._close()
            return
        async with self.use(writing=False):
            await self.session.run_sync(self._commit)
        self._pass_turn()

    def _commit(self, session: Session) -> None:
        connection = session.connection() if self.is_sqlite else None
        try:
            session.commit()
        except BaseException:
            if connection is not None:  # a COMMIT that SQLite refuses leaves the transaction open
                connection.connection.rollback()
            raise
        session.close()

    async def rollback(self) -> None:
        async with self.lock:
            await self._close()

    async def _close(self) -> None:
        try:
            await self.session.close()
        finally:
            self._pass_turn()

    def _pass_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()
            self._turn = None


class _Use:
    """The block of `UnitSession.use`."""

    __slots__ = ("_entered", "_held", "_writing")

    def __init__(self, held: UnitSession, writing: bool) -> None:
        self._held, self._writing = held, writing

    async def __aenter__(self) -> None:
        held, task = self._held, asyncio.current_task()
        self._entered = held.user is task
        if not self._entered:
            await held.lock.acquire()
            held.user = task
        try:
            if (dirty := held.is_dirty()) or self._writing or held.is_alone:
                await held.take_turn()
                held.is_first, held.wrote = not (held.wrote or dirty), True
        except BaseException as exc:
            self._leave(exc)
            raise

    async def __aexit__(self, kind: Any, exc: BaseException | None, _: object) -> None:
        self._leave(exc)

    def _leave(self, exc: BaseException | None) -> None:
        held = self._held
        if not self._entered:
            held.user = None
            held.lock.release()
        if isinstance(exc, DBAPIError) and (error := api_error(exc, held.mapper)) is not None:
            raise error from exc
        if isinstance(exc, PoolTimeout):
            raise Busy("No connection to the database was free; nothing was done.") from exc


_turns: WeakKeyDictionary[Engine, WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


def _turn(engine: Engine) -> asyncio.Lock:
    """The turn to write to an engine, on this event loop."""
    loops = _turns.setdefault(engine, WeakKeyDictionary())
    return loops.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def session_under_way(
    sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any], *, writing: bool, block: bool = False
) -> "_UnderWay":
    """The session of the unit of work under way, to oneself; where there is none, of one for this block.

    ``block`` says that it is lent to the application, within whose block the unit must not end.
    """
    return _UnderWay(sessionmaker, mapper, writing, block)


class _UnderWay:
    """The block of `session_under_way`: no generator, which costs several times as much."""

    __slots__ = ("_alone", "_asked", "_block", "_unit", "_use")
    _unit: UnitOfWork
    _use: _Use

    def __init__(self, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any], writing: bool, block: bool) -> None:
        self._asked, self._block = (sessionmaker, mapper, writing), block
        self._alone: AbstractAsyncContextManager[UnitSession] | None = None  # where no unit is under way

    async def __aenter__(self) -> UnitSession:
        sessionmaker, mapper, writing = self._asked
        while (unit := join_unit()) is not None:
            held = _of(unit, sessionmaker, mapper)
            self._use = held.use(writing=writing)
            await self._use.__aenter__()
            if not unit.closed:
                self._unit = unit
                unit.depth += self._block
                return held
            await self._use.__aexit__(None, None, None)  # it has ended while this waited for the session
        self._alone = _alone(*self._asked)
        return await self._alone.__aenter__()

    async def __aexit__(self, kind: Any, exc: BaseException | None, trace: Any) -> bool | None:
        if self._alone is not None:
            return await self._alone.__aexit__(kind, exc, trace)
        self._unit.depth -= self._block
        await self._use.__aexit__(kind, exc, trace)
        return None


@asynccontextmanager
async def _alone(
    sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any], writing: bool
) -> AsyncIterator[UnitSession]:
    async with unit_of_work() as unit:
        held = _of(unit, sessionmaker, mapper)
        async with held.use(writing=writing):
            yield held


def _of(unit: UnitOfWork, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> UnitSession:
    """The unit's session, which all querysets of an engine share: one unit is one transaction."""
    bind = sessionmaker.kw.get("bind")
    return unit.resource(sessionmaker if bind is None else bind, lambda: UnitSession(sessionmaker, mapper))


async def flush(held: UnitSession, change: Callable[[], Awaitable[None]], mapper: Mapper[Any]) -> None:
    """Makes one change and writes it. Where the database refuses it, it is taken back alone: the unit may go on, and
    what was loaded stays readable.

    Raises ``DBAPIError``, `NotFound` where a row is gone, and `Conflict` where it may be another version by now.
    """
    session = held.session
    clean = [(one, dict(inspect(one).dict)) for one in session.identity_map.values() if not inspect(one).modified]
    nested = await held.is_transaction_open()
    try:
        async with session.begin_nested() if nested else nullcontext():
            await change()
            await session.flush()
    except (DBAPIError, StaleDataError) as exc:
        if not nested:  # nothing else was written
            session.expunge_all()
            await session.rollback()
        _restore(session, clean)
        if isinstance(exc, StaleDataError):
            told = f"This {mapper.class_.__name__} was changed meanwhile; load it again."
            raise (NotFound() if mapper.version_id_col is None else Conflict(told)) from exc
        raise


def _restore(session: AsyncSession, loaded: list[tuple[Any, dict[str, Any]]]) -> None:
    """Gives objects, which rolling back has expired, back to the session as they were."""
    for one, values in loaded:
        for name in inspect(one).attrs.keys() & values.keys():
            set_committed_value(one, name, values[name])
        session.add(one)
