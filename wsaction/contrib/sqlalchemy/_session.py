"""The SQLAlchemy session of a unit of work. A unit has one session for each engine; only one task uses it at a time.

SQLite lets one connection write at a time, and a connection that waits polls. Units that write to a SQLite engine
therefore queue in this process first, and hold no connection of the pool while they wait. A ``:memory:`` engine has a
single connection, so its units run one at a time.

A transaction lasts as long as its unit. The application cannot commit earlier what the unit has written. The unit fails
if the application rolls its changes back, or if PostgreSQL has aborted the transaction after an error that was caught.

While the database is unavailable, each request gets `DatabaseUnavailable`; the log has one line for each outage.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any
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
from wsaction.contrib.sqlalchemy._errors import api_error, is_aborted, is_refusal, is_unavailable
from wsaction.exceptions import Busy, Conflict, DatabaseUnavailable, NotFound, OutcomeUnknown
from wsaction.transactions import UnitOfWork, finish, join_unit, unit_of_work

logger = logging.getLogger("wsaction")

WARN_AFTER = 1.0  # seconds that a task waits for the write lock of the action that started it, before a warning
QUEUE_TIMEOUT = 30.0  # seconds that a unit waits for the write lock, before it fails with `Busy`
QUIET = 60.0  # seconds after a logged outage in which another outage of the same engine is not logged


class UnitSession:
    """The session of a unit of work; implements `transactions.Resource`.

    ``wrote`` is true once the unit may have changed something.
    """

    instant = False

    def __init__(self, unit: UnitOfWork, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> None:
        self.unit = unit
        self.session: AsyncSession = sessionmaker(expire_on_commit=False)
        self.wrote = False
        self.is_first = False  # whether the unit had written nothing, and had nothing to write, before this block
        self.mapper = mapper
        self.lock = asyncio.Lock()
        self.owner: asyncio.Task[Any] | None = None  # the task that holds the lock
        self.engine = self.session.sync_session.get_bind(mapper).engine
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.is_alone = self.is_sqlite and isinstance(self.engine.pool, StaticPool)  # one connection for all units
        self._has_one_database = sessionmaker.kw.get("bind") is not None and not sessionmaker.kw.get("binds")
        self._write_lock: _WriteLock | None = None  # while this unit holds it
        self._lent: int | None = None  # the number of open `lend` blocks; None before the first
        self._changed_as_lent = False  # whether the application changed something in these blocks
        # savepoint -> a function that drops the unit's callbacks added since
        self._savepoints: WeakKeyDictionary[SessionTransaction, Callable[[], None]] = WeakKeyDictionary()
        self.may_be_aborted = False  # whether a statement may have failed and its error was caught
        self._written_in: SessionTransaction | None = None  # the transaction with changes to commit
        self._is_lost = False  # whether such a transaction ended before the unit

    def use(self, *, writing: bool, lend: bool = False) -> "_SessionUse":
        """A block in which this task alone uses the session; the same task may nest blocks.

        ``lend`` says that the caller calls `lend` in it. Database errors are raised as the `APIError` for the client.
        """
        return _SessionUse(self, writing, lend)

    async def is_transaction_open(self) -> bool:
        """Whether the unit may have written before, so that undoing one write needs a savepoint."""
        if self.is_first or not self.is_sqlite:
            return not self.is_first
        # sqlite3 begins a transaction at the first write; an earlier savepoint would itself be the transaction
        raw: Any = await (await self.session.connection()).get_raw_connection()
        return bool(raw.driver_connection.in_transaction)

    @contextmanager
    def lend(self) -> Iterator[None]:
        """A block in which the application uses the session. It may not commit what the unit wrote before."""
        if self._lent is None:
            self._lent = 0
            session = self.session.sync_session
            event.listen(session, "before_commit", self._refuse_commit)
            event.listen(session, "after_transaction_create", self._note_savepoint)
            event.listen(session, "after_soft_rollback", self._undo_savepoint)
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
            else:  # the application has only read: a later rollback() of this transaction loses nothing
                self._note_lost()

    def _note_change(self) -> None:
        self._changed_as_lent = True

    def _note_savepoint(self, _: Session, transaction: SessionTransaction) -> None:
        if transaction.nested and not self.unit.closed:
            self._savepoints[transaction] = self.unit.mark()

    def _undo_savepoint(self, _: Session, transaction: SessionTransaction) -> None:
        if (undo := self._savepoints.pop(transaction, None)) is not None:
            undo()

    def _refuse_commit(self, session: Session) -> None:
        if self._lent and self._written_in is not None and not session.in_nested_transaction():
            raise RuntimeError(
                "session.commit() would keep what this unit of work has changed even if the unit fails; remove the "
                "call, the unit commits"
            )

    def note_written(self) -> None:
        """Notes that something was written, so that the current transaction must last until the unit ends."""
        self._written_in = self._note_lost()

    def _note_lost(self) -> SessionTransaction | None:
        """Notes whether the transaction with earlier changes has ended; returns the current transaction."""
        transaction = self.session.sync_session.get_transaction()
        self._is_lost = self._is_lost or self._written_in not in (None, transaction)
        return transaction

    def forget_written(self) -> None:
        """Notes that there is nothing to commit."""
        self._written_in = None

    def is_dirty(self) -> bool:
        """Whether the session holds changes that are not flushed."""
        session = self.session.sync_session
        return bool(session.new or session.dirty or session.deleted)

    async def acquire_write_lock(self) -> None:
        """Waits until no other unit writes to the same SQLite engine, and holds the lock until this unit ends.

        While it waits, the unit gives the connection that it read with back to the pool. Raises `Busy`.
        """
        if not self.is_sqlite or self._write_lock is not None:
            return
        write_lock = _write_lock_of(self.engine)
        pinned = write_lock.is_wanted and not await self._release_connection()
        await write_lock.acquire(self.unit, pinned)
        self._write_lock = write_lock

    async def _release_connection(self) -> bool:
        """Gives the connection back to the pool, keeps all loaded objects, and returns whether that was possible.

        By default SQLite begins a transaction with the first change. If an engine is set up to begin one with the first
        read, the connection stays: the unit's changes must be based on what that transaction has read.
        """
        session = self.session
        if session.in_transaction():
            if await self.is_transaction_open():
                return False
            await finish(session.run_sync(_end_transaction))  # a cancellation in the middle would lose the connection
        return True

    # ---------------------------------------------------------------------------------------------- commit and rollback
    async def prepare(self) -> None:
        if self.lock.locked() or self.is_dirty():
            async with self.use(writing=False):
                await self.session.flush()
        if self._written_in is not None:
            self.note_written()
        if self._is_lost:
            raise RuntimeError(
                "session.rollback() or close() has dropped earlier changes of this unit of work, so nothing is kept. "
                "Put code that may fail in `async with session.begin_nested()`"
            )
        # the application may have written without the session's events, through session.connection()
        may_have_written = self._written_in is not None or self._lent is not None
        if self.may_be_aborted and may_have_written and not self.is_sqlite:
            await self._check_aborted()

    async def _check_aborted(self) -> None:
        """Raises if PostgreSQL would answer COMMIT with ROLLBACK, because drivers do not report that."""
        try:
            async with self.use(writing=False):
                await self.session.execute(select(1), bind_arguments={"mapper": self.mapper})
        except DBAPIError as exc:
            if not is_aborted(exc):
                raise
            raise RuntimeError(
                "a statement of this unit of work failed and its error was caught; after that the database keeps "
                "nothing. Do not catch the error, or run the statement in `async with session.begin_nested()`"
            ) from exc

    async def commit(self) -> bool:
        if not self.wrote:
            await self._close()
            return False
        async with self.use(writing=False):
            await self.session.run_sync(self._commit)
        self._release_write_lock()
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
            if not is_unavailable(exc):
                raise
            _log_outage(self.engine, exc)
        finally:
            self._release_write_lock()

    def _release_write_lock(self) -> None:
        if self._write_lock is not None:
            self._write_lock.release()
            self._write_lock = None


def _end_transaction(session: Session) -> None:
    """Ends a transaction that has only read. ``session.commit()`` would flush pending changes."""
    if (transaction := session.get_transaction()) is not None:
        transaction.close()


class _SessionUse:
    """The block of `UnitSession.use`."""

    __slots__ = ("_is_nested", "_lend", "_unit_session", "_writing")

    def __init__(self, unit_session: UnitSession, writing: bool, lend: bool) -> None:
        self._unit_session = unit_session
        self._writing = writing
        self._lend = lend

    async def __aenter__(self) -> None:
        unit_session = self._unit_session
        task = asyncio.current_task()
        self._is_nested = unit_session.owner is task
        if not self._is_nested:
            await unit_session.lock.acquire()
            unit_session.owner = task
        try:
            is_dirty = unit_session.is_dirty()
            if is_dirty or self._writing or unit_session.is_alone:
                await unit_session.acquire_write_lock()
                unit_session.is_first = not (unit_session.wrote or is_dirty)
                unit_session.wrote = True
        except BaseException as exc:
            self._leave(exc)
            raise

    async def __aexit__(self, kind: Any, exc: BaseException | None, _: object) -> None:
        self._leave(exc)

    def _leave(self, exc: BaseException | None) -> None:
        unit_session = self._unit_session
        if exc is None and self._writing and not self._lend:  # `lend` notes it itself
            unit_session.note_written()
        if not self._is_nested:
            unit_session.owner = None
            unit_session.lock.release()
        if exc is None:
            if _outages and unit_session.session.in_transaction():
                _log_recovery(unit_session.engine)
            return
        unit_session.may_be_aborted = True
        if isinstance(exc, PoolTimeout):
            raise Busy("No connection to the database was free; nothing was done.") from exc
        if isinstance(exc, Exception) and is_unavailable(exc):
            _log_outage(unit_session.engine, exc)
            raise DatabaseUnavailable from exc
        if isinstance(exc, DBAPIError) and (error := api_error(exc, unit_session.mapper)) is not None:
            raise error from exc


# ------------------------------------------------------------------------------------------------- write lock
class _WriteLock:
    """The lock for writing to one SQLite engine; units get it in the order in which they ask."""

    def __init__(self, engine: Engine) -> None:
        self._lock = asyncio.Lock()
        self._wanted = 0
        self._pinned = 0
        self._holder: UnitOfWork | None = None
        size = getattr(engine.pool, "size", None)
        self._max_pinned = size() // 2 if callable(size) else None  # the other half is for the holder and for reads

    @property
    def is_wanted(self) -> bool:
        """Whether a unit holds the lock or waits for it."""
        return self._wanted > 0

    async def acquire(self, unit: UnitOfWork, pinned: bool) -> None:
        """Waits for the lock. ``pinned`` says that the unit holds a connection meanwhile.

        Raises `Busy` after `QUEUE_TIMEOUT`. Raises it at once if pinned units hold half of the pool, or if the holder
        waits, perhaps through others, for a lock that this unit holds.
        """
        if pinned and self._max_pinned is not None and self._pinned >= self._max_pinned:
            raise Busy(_BUSY)
        self._refuse_deadlock(unit)
        self._wanted += 1
        self._pinned += pinned
        _waiting_for[unit] = self
        frame = current_frame.get()
        warning = None
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
            _waiting_for.pop(unit, None)
            if warning is not None:
                warning.cancel()
        self._holder = unit

    def _refuse_deadlock(self, unit: UnitOfWork) -> None:
        holder = self._holder
        while holder is not None and holder in _waiting_for:
            holder = _waiting_for[holder]._holder
            if holder is unit:
                raise Busy(_BUSY)

    def release(self) -> None:
        """Releases the lock to the next unit."""
        self._wanted -= 1
        self._holder = None
        self._lock.release()


_OWN_TASK = (
    "a task that the action %r started waits to write to SQLite until the action's unit of work ends. If the action "
    "awaits the task, both are stuck; bring the task into the unit with await current_unit().include(...)"
)
_BUSY = "The database is busy with other changes; nothing was done."
_waiting_for: dict[UnitOfWork, _WriteLock] = {}  # each unit that waits for a lock
_write_locks: WeakKeyDictionary[Engine, WeakKeyDictionary[asyncio.AbstractEventLoop, _WriteLock]] = WeakKeyDictionary()


def _write_lock_of(engine: Engine) -> _WriteLock:
    """The write lock of an engine, on this event loop."""
    loops = _write_locks.setdefault(engine, WeakKeyDictionary())
    loop = asyncio.get_running_loop()
    if loop not in loops:
        loops[loop] = _WriteLock(engine)
    return loops[loop]


# ------------------------------------------------------------------------------------------------- outages
_outages: WeakKeyDictionary[Engine, tuple[float, bool]] = WeakKeyDictionary()  # its start, and whether it was logged
_last_logged: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()  # when an outage was last logged


def _log_outage(engine: Engine, exc: BaseException) -> None:
    """Logs that a database is unavailable, once for each outage."""
    if engine in _outages:
        return
    now = time.monotonic()
    is_logged = now - _last_logged.get(engine, float("-inf")) >= QUIET
    _outages[engine] = now, is_logged
    if is_logged:
        _last_logged[engine] = now
        url = engine.url.render_as_string()
        cause = exc.orig if isinstance(exc, DBAPIError) else exc  # without the SQL and its values
        logger.error("the database %s is away; requests that need it get 503 until it is back: %r", url, cause)


def _log_recovery(engine: Engine) -> None:
    if engine in _outages:
        since, is_logged = _outages.pop(engine)
        if is_logged:
            url, seconds = engine.url.render_as_string(), time.monotonic() - since
            logger.warning("the database %s is back after %.1f s", url, seconds)


# ------------------------------------------------------------------------------------------------- current session
class CurrentSession:
    """A block with the session of the current unit of work. Without a current unit, the block is a unit of its own.

    ``block`` says that the application gets the session, so that the unit must not end within the block. This is a
    class because `asynccontextmanager` costs several times as much.
    """

    __slots__ = ("_arguments", "_block", "_standalone", "_unit", "_use")
    _unit: UnitOfWork
    _use: _SessionUse

    def __init__(
        self, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any], *, writing: bool, block: bool = False
    ) -> None:
        self._arguments = sessionmaker, mapper, writing
        self._block = block
        self._standalone: AbstractAsyncContextManager[UnitSession] | None = None  # if there is no current unit

    async def __aenter__(self) -> UnitSession:
        sessionmaker, mapper, writing = self._arguments
        while (unit := join_unit()) is not None:
            unit_session = _session_of(unit, sessionmaker, mapper)
            self._use = unit_session.use(writing=writing, lend=self._block)
            await self._use.__aenter__()
            if not unit.closed:
                self._unit = unit
                unit.depth += self._block
                return unit_session
            await self._use.__aexit__(None, None, None)  # the unit ended while we waited for the session
        self._standalone = _standalone_unit(*self._arguments)
        return await self._standalone.__aenter__()

    async def __aexit__(self, kind: Any, exc: BaseException | None, trace: Any) -> bool | None:
        if self._standalone is not None:
            return await self._standalone.__aexit__(kind, exc, trace)
        self._unit.depth -= self._block
        await self._use.__aexit__(kind, exc, trace)
        return None


@asynccontextmanager
async def _standalone_unit(
    sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any], writing: bool
) -> AsyncIterator[UnitSession]:
    async with unit_of_work() as unit:
        unit_session = _session_of(unit, sessionmaker, mapper)
        async with unit_session.use(writing=writing):
            yield unit_session


def _session_of(unit: UnitOfWork, sessionmaker: async_sessionmaker[Any], mapper: Mapper[Any]) -> UnitSession:
    """The unit's session. All querysets of an engine share it, so that one unit is one transaction."""
    bind = sessionmaker.kw.get("bind")
    return unit.resource(sessionmaker if bind is None else bind, lambda: UnitSession(unit, sessionmaker, mapper))


async def flush(unit_session: UnitSession, change: Callable[[], Awaitable[None]], mapper: Mapper[Any]) -> None:
    """Makes one change and flushes it. If the database refuses it, only this change is undone: the unit may continue,
    and loaded objects stay readable.

    Raises ``DBAPIError``, `NotFound` if the row is gone, `Conflict` if a versioned row is gone or was changed.
    """
    session = unit_session.session
    loaded = [(obj, dict(inspect(obj).dict)) for obj in session.identity_map.values() if not inspect(obj).modified]
    nested = await unit_session.is_transaction_open()
    try:
        async with session.begin_nested() if nested else nullcontext():
            await change()
            await session.flush()
    except (DBAPIError, StaleDataError) as exc:
        if not nested:  # this was the first change of the unit
            session.expunge_all()
            await finish(session.rollback())
            unit_session.forget_written()
        for obj, values in loaded:  # the rollback has expired them
            for name in inspect(obj).attrs.keys() & values.keys():
                set_committed_value(obj, name, values[name])
            session.add(obj)
        if isinstance(exc, StaleDataError):
            if mapper.version_id_col is None:
                raise NotFound from exc
            raise Conflict(f"This {mapper.class_.__name__} was changed meanwhile; load it again.") from exc
        raise
