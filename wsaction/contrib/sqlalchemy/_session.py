"""The SQLAlchemy session of a unit of work: one for all that a unit does in a database, never used by two tasks at
once.

SQLite lets one connection write at a time, and one that waits polls. Units that write to a SQLite engine therefore
queue within the process before they do, and hold no connection of the pool meanwhile; a ``:memory:`` engine, which has
one connection for all, has one unit at a time.

A transaction ends with its unit and not before: what the application is lent commits nothing that the unit has written,
and where it was rolled back all the same, or PostgreSQL has aborted it after an error that was caught, the unit fails.

A database that is away is `DatabaseUnavailable` for each request and one line in the log for each outage.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapper, Session, SessionTransaction
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

from wsaction._protocol.frames import current_frame
from wsaction.contrib.sqlalchemy._errors import api_error, is_aborted, is_away, is_refusal
from wsaction.exceptions import Busy, Conflict, DatabaseUnavailable, NotFound, OutcomeUnknown
from wsaction.transactions import UnitOfWork, finish, join_unit, unit_of_work

__all__ = ("UnitSession", "flush", "session_under_way")

logger = logging.getLogger("wsaction")

T = TypeVar("T")

WARN_AFTER = 1.0  # seconds that a task waits for the turn of the very action that began it, before that is logged
QUEUE_TIMEOUT = 30.0  # seconds that a unit waits for its turn to write, before the client is told to try again
QUIET = 60.0  # seconds in which a database that comes and goes is logged once


class UnitSession:
    """A session with its place in a unit of work: a `transactions.Resource`.

    ``wrote`` is whether the unit may have changed something.
    """

    instant = False

    def __init__(self, unit: UnitOfWork, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> None:
        self.unit = unit
        self.session: AsyncSession = sessionmaker(expire_on_commit=False)
        self.wrote = False
        self.is_first = False  # whether nothing was to be written before the block under way
        self.mapper = mapper
        self.lock = asyncio.Lock()
        self.user: asyncio.Task[Any] | None = None  # who holds the lock
        self.engine = self.session.sync_session.get_bind(mapper).engine
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.is_alone = self.is_sqlite and isinstance(self.engine.pool, StaticPool)  # one connection for all
        self._has_one_database = sessionmaker.kw.get("bind") is not None and not sessionmaker.kw.get("binds")
        self._turn: _Turn | None = None  # to write, while this unit has it
        self._lent: int | None = None  # blocks in which the application has it; None: it never had
        self._changed_as_lent = False  # whether it has changed something in these
        self._savepoints: WeakKeyDictionary[SessionTransaction, Callable[[], None]] = WeakKeyDictionary()  # since then
        self.may_be_aborted = False  # whether a statement may have failed whose error was caught
        self._written_in: SessionTransaction | None = None  # where there is something to keep
        self._is_lost = False  # whether that has ended before its unit

    def use(self, *, writing: bool, lends: bool = False) -> "_Use":
        """The session to oneself; within its block once more where the same task asks. ``lends``: to `lend` it.

        Raises for what the database refuses what clients are told of it.
        """
        return _Use(self, writing, lends)

    async def is_transaction_open(self) -> bool:
        """Whether something may have been written already, so that a savepoint is needed to take back one write."""
        if self.is_first or not self.is_sqlite:
            return not self.is_first
        # sqlite3 begins a transaction with the first write; a savepoint before would be one that ends with it
        raw: Any = await (await self.session.connection()).get_raw_connection()
        return bool(raw.driver_connection.in_transaction)

    @contextmanager
    def lend(self) -> Iterator[None]:
        """What is done within may be anything, the application has the session; but for a commit of what was written
        before it."""
        if self._lent is None:
            self._lent = 0
            session = self.session.sync_session
            event.listen(session, "before_commit", self._refuse_commit)
            event.listen(session, "after_transaction_create", self._note_savepoint)
            event.listen(session, "after_soft_rollback", self._take_back)
            event.listen(session, "after_flush", lambda *_: self._note_change())
            event.listen(session, "do_orm_execute", lambda state: None if state.is_select else self._note_change())
        if not self._lent:
            self._changed_as_lent = False
        self.may_be_aborted = True
        self._lent += 1
        try:
            yield
        finally:
            self._lent -= 1
            if self._changed_as_lent or self.is_dirty():
                self.note_written()
            else:  # it has read only, and may be rolled back by the next who has it
                self._note_lost()

    def _note_change(self) -> None:
        self._changed_as_lent = True

    def _note_savepoint(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested and not self.unit.closed:
            self._savepoints[transaction] = self.unit.mark()

    def _take_back(self, _: Session, transaction: SessionTransaction) -> None:
        if (back := self._savepoints.pop(transaction, None)) is not None:
            back()

    def _refuse_commit(self, session: Session) -> None:
        if self._lent and self._written_in is not None and not session.in_nested_transaction():
            raise RuntimeError(
                "session.commit() would keep what this unit of work has changed whether or not it fails; leave it out, "
                "the unit commits"
            )

    def note_written(self) -> None:
        """Something was written: from here on the transaction has to last until the unit ends."""
        self._written_in = self._note_lost()

    def _note_lost(self) -> SessionTransaction | None:
        """Notes whether what was written before is lost; returns the transaction of now."""
        now = self.session.sync_session.get_transaction()
        self._is_lost = self._is_lost or self._written_in not in (None, now)
        return now

    def forget_written(self) -> None:
        """Nothing is written that would have to be kept."""
        self._written_in = None

    def is_dirty(self) -> bool:
        """Whether it holds changes that are not written yet."""
        session = self.session.sync_session
        return bool(session.new or session.dirty or session.deleted)

    async def take_turn(self) -> None:
        """Waits until no other unit writes to the same SQLite database, and keeps others waiting until this one ends.

        Meanwhile the unit holds no connection: the one that it has read with is given back. Raises `Busy`.
        """
        if not self.is_sqlite or self._turn is not None:
            return
        turn = _turn_of(self.engine)
        pinned = turn.is_wanted and not await self._give_back()
        await turn.take(self.unit, pinned)
        self._turn = turn

    async def _give_back(self) -> bool:
        """Gives the connection back to the pool, and keeps all objects; whether it could be.

        It cannot where reading has begun a transaction, as some engines are set up: what was read would not be what the
        changes are then based on. SQLAlchemy's own engines begin one with the first change.
        """
        session = self.session
        if session.in_transaction():
            if await self.is_transaction_open():
                return False
            await finish(session.run_sync(_end_transaction))  # half-way, the connection would be lost
        return True

    # ---------------------------------------------------------------------------------------------- its unit
    async def prepare(self) -> None:
        if self.lock.locked() or self.is_dirty():
            async with self.use(writing=False):
                await self.session.flush()
        if self._written_in is not None:
            self.note_written()
        if self._is_lost:
            raise RuntimeError(
                "session.rollback() or close() has dropped what this unit of work had changed before; nothing is kept. "
                "Try what may fail in `async with session.begin_nested()`"
            )
        may_have_written = self._written_in is not None or self._lent is not None  # it may have, by its connection
        if self.may_be_aborted and may_have_written and not self.is_sqlite:
            await self._check_aborted()

    async def _check_aborted(self) -> None:
        """Raises where PostgreSQL would answer COMMIT with ROLLBACK, which drivers pass over."""
        try:
            async with self.use(writing=False):
                await self.session.execute(select(1), bind_arguments={"mapper": self.mapper})
        except DBAPIError as exc:
            if not is_aborted(exc):
                raise
            raise RuntimeError(
                "a statement of this unit of work failed and its error was caught, after which the database keeps "
                "nothing; let it pass, or try in `async with session.begin_nested()`"
            ) from exc

    async def commit(self) -> bool:
        if not self.wrote:
            await self._close()
            return False
        async with self.use(writing=False):
            await self.session.run_sync(self._commit)
        self._pass_turn()
        return True

    def _commit(self, session: Session) -> None:
        connection = session.connection({"mapper": self.mapper}) if session.in_transaction() else None
        try:
            session.commit()
        except BaseException as exc:
            was_sent = connection is not None and not connection.in_transaction()
            if was_sent and not (self._has_one_database and is_refusal(exc)):
                raise OutcomeUnknown from exc
            if connection is not None and self.is_sqlite:  # a COMMIT that SQLite refuses leaves the transaction open
                connection.connection.rollback()
            raise
        session.close()

    async def rollback(self) -> None:
        async with self.lock:
            await self._close()

    async def _close(self) -> None:
        try:
            await self.session.close()
        except Exception as exc:
            if not is_away(exc):
                raise
            _note_away(self.engine, exc)
        finally:
            self._pass_turn()

    def _pass_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()
            self._turn = None


def _end_transaction(session: Session) -> None:
    """Ends what has only read, without a COMMIT that would write what is not written yet."""
    transaction = session.get_transaction()
    if transaction is not None:
        transaction.close()


class _Use:
    """The block of `UnitSession.use`."""

    __slots__ = ("_entered", "_held", "_lends", "_writing")

    def __init__(self, held: UnitSession, writing: bool, lends: bool) -> None:
        self._held, self._writing, self._lends = held, writing, lends

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
        if exc is None and self._writing and not self._lends:  # else `lend` has noted it
            held.note_written()
        if not self._entered:
            held.user = None
            held.lock.release()
        if exc is None:
            if _away and held.session.in_transaction():
                _note_back(held.engine)
            return
        held.may_be_aborted = True
        if isinstance(exc, PoolTimeout):
            raise Busy("No connection to the database was free; nothing was done.") from exc
        if isinstance(exc, Exception) and is_away(exc):
            _note_away(held.engine, exc)
            raise DatabaseUnavailable from exc
        if isinstance(exc, DBAPIError) and (error := api_error(exc, held.mapper)) is not None:
            raise error from exc


# ------------------------------------------------------------------------------------------------- turns to write
class _Turn:
    """The turn to write to one SQLite database: who comes first has it first."""

    def __init__(self, engine: Engine) -> None:
        self._lock, self._wanted, self._pinned = asyncio.Lock(), 0, 0
        self._holder: UnitOfWork | None = None
        size = getattr(engine.pool, "size", None)
        self._most_pinned = size() // 2 if callable(size) else None  # the others are for who has the turn

    @property
    def is_wanted(self) -> bool:
        """Whether somebody has it, or waits for it."""
        return self._wanted > 0

    async def take(self, unit: UnitOfWork, pinned: bool) -> None:
        """Waits for it. ``pinned``: the unit holds a connection while it waits, as only half of the pool may.

        Raises `Busy`, at once where those who would have to give it back wait for what this unit has.
        """
        if pinned and self._most_pinned is not None and self._pinned >= self._most_pinned:
            raise Busy(_BUSY)
        self._refuse_circle(unit)
        self._wanted += 1
        self._pinned += pinned
        _waiting[unit] = self
        frame, warning = current_frame.get(), None
        if frame is not None and frame.unit is not None and frame.unit is self._holder:
            warning = asyncio.get_running_loop().call_later(WARN_AFTER, logger.warning, _OWN_TASK, frame.action)
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                await self._lock.acquire()
        except BaseException as exc:
            self._wanted -= 1
            if isinstance(exc, TimeoutError):
                raise Busy(_BUSY) from None
            raise
        finally:
            self._pinned -= pinned
            _waiting.pop(unit, None)
            if warning is not None:
                warning.cancel()
        self._holder = unit

    def _refuse_circle(self, unit: UnitOfWork) -> None:
        holder = self._holder
        while holder is not None and holder in _waiting:
            holder = _waiting[holder]._holder
            if holder is unit:
                raise Busy(_BUSY)

    def release(self) -> None:
        """Passes it on."""
        self._wanted -= 1
        self._holder = None
        self._lock.release()


_OWN_TASK = (
    "a task that the action %r began waits to write to SQLite until the action's unit of work has ended; if the action "
    "awaits the task, neither goes on: bring it into the unit, await current_unit().include(...)"
)
_BUSY = "The database is busy with other changes; nothing was done."
_waiting: dict[UnitOfWork, _Turn] = {}  # each unit that waits for a turn
_turns: WeakKeyDictionary[Engine, WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn]] = WeakKeyDictionary()


def _turn_of(engine: Engine) -> _Turn:
    """The turn to write to an engine, on this event loop."""
    loops = _turns.setdefault(engine, WeakKeyDictionary())
    loop = asyncio.get_running_loop()
    if (turn := loops.get(loop)) is None:
        turn = loops[loop] = _Turn(engine)
    return turn


# ------------------------------------------------------------------------------------------------- outages
_away: WeakKeyDictionary[Engine, tuple[float, bool]] = WeakKeyDictionary()  # since when, and whether that was logged
_logged: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()  # when an engine was last said to be away


def _note_away(engine: Engine, exc: BaseException) -> None:
    """Logs that a database is away, once for each outage."""
    if engine in _away:
        return
    now = time.monotonic()
    is_told = now - _logged.get(engine, float("-inf")) >= QUIET
    _away[engine] = now, is_told
    if is_told:
        _logged[engine] = now
        url = engine.url.render_as_string()
        why = exc.orig if isinstance(exc, DBAPIError) else exc  # without the SQL and its values
        logger.error("the database %s is away, and who needs it gets 503 until it is back: %r", url, why)


def _note_back(engine: Engine) -> None:
    if engine in _away:
        since, is_told = _away.pop(engine)
        if is_told:
            logger.warning(
                "the database %s is back after %.1f s", engine.url.render_as_string(), time.monotonic() - since
            )


# ------------------------------------------------------------------------------------------------- which session


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
            self._use = held.use(writing=writing, lends=self._block)
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
    return unit.resource(sessionmaker if bind is None else bind, lambda: UnitSession(unit, sessionmaker, mapper))


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
            await finish(session.rollback())
            held.forget_written()
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
