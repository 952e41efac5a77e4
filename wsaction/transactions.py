"""Transactions: one unit of work for each action, committed before its reply is sent, or rolled back.

Each frame has its own unit, which begins when a queryset first needs it. It is committed after the action has returned
and the reply is encoded, and before the reply is sent. So if the commit fails, the client gets its error. An error, a
cancellation or a timeout rolls the unit back. In a stream, each step between two yields is a unit, so that a paused
stream holds no database connection.

A unit belongs to the task that began it. Other tasks (``create_task``, ``gather``, a ``TaskGroup``) are outside of it,
even if its task awaits them: their changes are committed and published on their own. `UnitOfWork.include` brings work
in another task into the unit. What a sync action calls through ``anyio.from_thread`` is part of the action's unit;
tasks that are started there are not.

A commit succeeds, fails, or has an unknown outcome because its answer was lost. If it fails, nothing is changed. If the
outcome is unknown, the caller gets `OutcomeUnknown`, and ``if_unknown`` callbacks run.

Outside of a frame (an HTTP endpoint, a job, a test), each operation of a queryset is a unit by itself. `unit_of_work`
joins several::

    async with unit_of_work() as unit:
        card = await cards.create({"title": "a"})
        await logs.create({"card_id": card.id})
        unit.on_commit(lambda: print("both are committed"))

The module is one thing: a unit, and the rules by which a task finds its own.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from wsaction._protocol.awaited import awaited
from wsaction._protocol.frames import Frame, current_frame
from wsaction._utils.tasks import is_closed_with
from wsaction._utils.threads import is_awaited_by_thread
from wsaction.exceptions import OutcomeUnknown

__all__ = (
    "COMMITTING",
    "ENDED",
    "Resource",
    "UnitOfWork",
    "complete",
    "current_unit",
    "finish",
    "join_unit",
    "own_unit",
    "release_reads",
    "roll_back",
    "roll_back_failed",
    "run_as_unit",
    "unit_of_work",
    "unit_to_wait_for",
)

logger = logging.getLogger("wsaction")

R = TypeVar("R", bound="Resource")
T = TypeVar("T")
Callback = Callable[[], Any]

LOST_COMMIT_DELAY = 5.0  # seconds after which a COMMIT whose connection was lost has run, or never will

_UNIT_ENDED = (
    "this unit of work has ended: it was committed or rolled back before the work given to include() was done; await "
    "that work before the unit ends"
)

_INNER_FAILED = (
    "a unit of work within this one failed, so nothing is committed; let its error pass, or catch it where nothing was "
    "changed before"
)

_INCONCLUSIVE = (OutcomeUnknown, OSError, asyncio.CancelledError)  # after these a commit may have succeeded


class Resource(Protocol):
    """What a unit of work commits or rolls back: a database session, or changed rows in memory."""

    instant: bool  # whether its methods never wait; such resources are committed last

    async def prepare(self) -> None:
        """Raises any error that can be found before the commit."""

    async def commit(self) -> bool | None:
        """Commits the changes; returns False if there were none. Called at most once.

        Raises `OutcomeUnknown` if the changes may be committed all the same. An ``OSError`` (a lost connection, a
        timeout) and a cancellation mean the same; any other error means that nothing is committed. If this or another
        resource fails, `rollback` is called then.
        """

    async def rollback(self) -> None:
        """Drops the changes, also after a ``prepare`` or ``commit`` that failed."""


class UnitOfWork:
    """Changes that are committed together or not at all.

    Resources are committed one after the other, those in memory last. If one fails, those that are not committed yet
    are rolled back. If some are committed, the outcome of the unit is unknown, as if an answer was lost.
    """

    __slots__ = (
        "_before_commit",
        "_callback_unit",
        "_callbacks",
        "_is_in_doubt",
        "_resources",
        "closed",
        "depth",
        "ends_in_block",
        "failed",
    )

    def __init__(self) -> None:
        self._resources: dict[Any, Resource] = {}
        self._before_commit: list[Callable[[], Awaitable[None]]] = []
        self._callbacks: list[tuple[Callback, Callback | None]] = []  # of `around_commit` first
        self._callback_unit: UnitOfWork | None = None  # that of the callback that is being called
        self._is_in_doubt = False  # whether the outcome of the commit is unknown
        self.closed = False  # since it begins to end: work that asks for a unit is outside of it from then on
        self.depth = 0  # of nested `unit_of_work` blocks
        self.ends_in_block = False  # whether such a block ends it, and not the end of its action
        self.failed = False  # an inner block or the action raised: nothing is committed even if the error is caught

    def resource(self, key: Any, make: Callable[[], R]) -> R:
        """The resource with this key, made at its first use."""
        if key not in self._resources:
            self._resources[key] = make()
        return cast(R, self._resources[key])

    def held(self, key: Any) -> Resource | None:
        """The resource with this key; None if it has not been used yet."""
        return self._resources.get(key)

    @property
    def has_only_read(self) -> bool:
        """Whether there is nothing to commit and no callback waits for the commit."""
        resources = self._resources.values()
        return not self._callbacks and not any(getattr(resource, "wrote", True) for resource in resources)

    def on_commit(self, callback: Callable[[], Any], *, if_unknown: Callable[[], Any] | None = None) -> None:
        """Calls ``callback`` after the commit and before the reply. Callbacks run in the order of registration.

        The callback may be sync or async. It is outside of the unit: its changes are committed on their own, and its
        events are published after it has returned and before the next callback. An exception in it is logged and
        changes nothing.

        If the unit is rolled back, or the savepoint in which the callback was registered, it is not called. If the
        outcome of the commit is unknown, ``if_unknown`` is called instead. A callback may register others: the one of
        the two that fits the outcome is called right after it. Raises ``RuntimeError`` once the unit has ended.
        """
        if self._callback_unit is not None:  # called by another callback
            if (chosen := if_unknown if self._is_in_doubt else callback) is not None:
                self._callback_unit.on_commit(chosen)
            return
        if self.closed:
            raise RuntimeError("this unit of work has ended; on_commit() is called while it is under way")
        self._callbacks.append((callback, if_unknown))

    def around_commit(
        self,
        before: Callable[[], Awaitable[None]],
        after: Callable[[], Awaitable[None]],
        if_unknown: Callable[[], Any],
    ) -> None:
        """Awaits ``before`` right before the commit, and ``after`` right after it, before the callbacks of `on_commit`.

        When ``before`` runs, all resources that may have to wait are prepared, and nothing is committed. An error that
        it raises prevents the commit. If the outcome is unknown, ``if_unknown`` is called instead of ``after``.
        """
        self._before_commit.append(before)
        self._callbacks.insert(len(self._before_commit) - 1, (after, if_unknown))

    def mark(self) -> Callable[[], None]:
        """Marks the start of a savepoint. Returns a function that drops the callbacks registered since then."""
        waiting = len(self._callbacks) - len(self._before_commit)
        marks = {key: resource.mark() for key, resource in self._resources.items() if hasattr(resource, "mark")}

        def back() -> None:
            del self._callbacks[len(self._before_commit) + waiting :]
            for key, resource in self._resources.items():
                if hasattr(resource, "mark"):  # only resources that collect events have it
                    resource.back_to(marks.get(key))  # type: ignore[attr-defined]

        return back

    @awaited
    async def include(self, work: Awaitable[T]) -> T:
        """Awaits ``work`` as a part of this unit, in whichever task it runs. The unit's owner must wait for it.

        Once the unit has ended, ``RuntimeError`` is raised, here and by each later read or change in ``work``.

        >>> await asyncio.gather(*(unit.include(cards.create({"title": title})) for title in titles))
        """
        if self.closed:
            if isinstance(work, Coroutine):
                work.close()
            raise RuntimeError(_UNIT_ENDED)
        token = _block_unit.set((self, asyncio.current_task()))
        try:
            return await work
        finally:
            _block_unit.reset(token)

    async def commit(self) -> None:
        """Commits all changes, or rolls them back and raises the error; `OutcomeUnknown` if the outcome is unknown.

        Runs to its end even if it is cancelled, and raises the cancellation then.
        """
        if self.depth:
            await self.rollback()
            raise RuntimeError(
                "a unit of work is left open: an `async with unit_of_work()` block must end before its action returns "
                "and before its stream yields"
            )
        if self.closed:
            raise RuntimeError("this unit of work has ended before; changes since then are not committed")
        if self.failed:
            await self.rollback()
            raise RuntimeError(_INNER_FAILED)
        self.closed = True
        await self._run(self._commit)

    async def rollback(self) -> None:
        """Drops all changes; logs errors. Runs to its end even if it is cancelled, and raises the cancellation then."""
        if not self.closed:
            self.closed = True
            await self._run(self._rollback)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        waits = bool(self._callbacks)
        for resource in self._resources.values():
            waits = waits or not resource.instant
        await (finish(work()) if waits else work())

    async def _commit(self) -> None:
        slow = [resource for resource in self._resources.values() if not resource.instant]
        instant = [resource for resource in self._resources.values() if resource.instant]
        committing, kept = False, False
        try:
            for resource in slow:
                await resource.prepare()
            for before in self._before_commit:
                await before()
            for resource in instant:
                await resource.prepare()
            committing = True
            for resource in (*slow, *instant):
                kept = await resource.commit() is not False or kept
        except BaseException as exc:
            await self._rollback()
            if committing and (kept or isinstance(exc, _INCONCLUSIVE)):
                await self._outcome_unknown(exc)
            raise
        await self._call_all([callback for callback, _ in self._callbacks])

    async def _call_all(self, callbacks: list[Callback]) -> None:
        """Calls callbacks. Those that a callback adds run right after it, because the next one may take long.

        What a callback publishes is among them, whatever became of this unit: it waits for the callback's own unit.
        """
        pending = deque(callbacks)
        while pending:
            self._callback_unit = unit = UnitOfWork()
            token = _calling_unit.set((unit, asyncio.current_task()))
            try:
                await _call(pending.popleft())
            finally:
                _calling_unit.reset(token)
                self._callback_unit = None
                unit.closed = True
            pending.extendleft(callback for callback, _ in reversed(unit._callbacks))

    async def _outcome_unknown(self, exc: BaseException) -> None:
        """Calls the ``if_unknown`` callbacks and raises `OutcomeUnknown` for an error of a commit."""
        self._is_in_doubt = True
        logger.error("the outcome of a unit of work is unknown: it may be committed, or a part of it", exc_info=exc)
        await self._call_all([callback for _, callback in self._callbacks if callback is not None])
        if isinstance(exc, Exception | asyncio.CancelledError):
            raise OutcomeUnknown from exc

    async def _rollback(self) -> None:
        for resource in self._resources.values():
            try:
                await resource.rollback()
            except Exception:
                logger.exception("a unit of work could not be rolled back")


async def _call(callback: Callback) -> None:
    task = asyncio.current_task()
    try:
        result = callback()
        if isinstance(result, Awaitable):
            await result
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # a CancelledError comes from what it awaited: nothing cancels this task itself
        if is_closed_with(exc, task):
            raise
        logger.exception("%r failed, which was called after a commit", callback)


async def finish(work: Awaitable[None]) -> None:
    """Awaits work to its end even if it is cancelled, and raises the cancellation afterwards."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a unit of work was cancelled, and failed as it ended", exc_info=error)
        raise cancelled
    task.result()


ENDED = UnitOfWork()
"""The unit of a frame that failed: tasks that it started are outside of any unit."""
COMMITTING = UnitOfWork()
"""The unit of a frame that it is too late to cancel: its own unit is being committed, or it had none."""
ENDED.closed = COMMITTING.closed = True


# ------------------------------------------------------------------------------------------------- which one
_NO_UNIT = (None, None)
_block_unit: ContextVar[tuple[UnitOfWork | None, Any]] = ContextVar("wsaction.unit_of_work", default=_NO_UNIT)
"""The unit of a block outside of a frame, or of `UnitOfWork.include`, and its task. A task that is started there
inherits this variable but is outside of the unit, so the task is compared."""
_calling_unit: ContextVar[tuple[UnitOfWork | None, Any]] = ContextVar("wsaction.calling_unit", default=_NO_UNIT)
"""The unit of the callback that is being called, and the task that calls it."""


def _runs_in(owner: Any) -> bool:
    """Whether the caller runs in this task, or in a thread that it waits for; not in a task that either started."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in a thread
        task = None
    return owner is not None and (task is owner or is_awaited_by_thread(task, owner))


def _own_frame() -> Frame | None:
    """The frame whose action calls this; None in other tasks, and once the frame has failed or commits."""
    frame = current_frame.get()
    if frame is None or frame.unit is ENDED or frame.unit is COMMITTING:
        return None
    # As long as the frame has no task, the reading task of its connection runs the action.
    return frame if _runs_in(frame.task or frame.consumer.connection.leader) else None


def _bound_unit() -> UnitOfWork | None:
    unit, owner = _block_unit.get()
    if unit is None or not _runs_in(owner):
        return None
    if unit.closed:
        raise RuntimeError(_UNIT_ENDED)
    return unit


def current_unit() -> UnitOfWork | None:
    """The open unit of this task; None if none has begun or it has ended."""
    if (unit := _bound_unit()) is not None:
        return unit
    frame = _own_frame()
    unit = None if frame is None else frame.unit
    return None if unit is None or unit.closed else unit


def own_unit() -> UnitOfWork | None:
    """The open unit of this very task, and not of a task that waits for the calling thread."""
    task = asyncio.current_task()
    unit, owner = _block_unit.get()
    if owner is not task:
        frame = _own_frame()
        if frame is None or (frame.task or frame.consumer.connection.leader) is not task:
            return None
        unit = frame.unit
    return None if unit is None or unit.closed else unit


def unit_to_wait_for() -> UnitOfWork | None:
    """The unit that an event published now waits for: the open one, or that of the callback that is running. Once
    the callback has ended, no caller is left who could publish the event again."""
    if (unit := current_unit()) is not None:
        return unit
    unit, owner = _calling_unit.get()
    return unit if _runs_in(owner) else None


def join_unit() -> UnitOfWork | None:
    """The open unit; if a frame has none yet, begins one. None outside of frames and `unit_of_work` blocks."""
    if (unit := _bound_unit()) is not None:
        return unit
    if (frame := _own_frame()) is None:
        return None
    unit = frame.unit
    if unit is None or unit.closed:
        unit = frame.unit = UnitOfWork()
    return unit


def _is_over(frame: Frame) -> bool:
    """Whether a frame was cancelled or its connection has ended, so that its action only cleans up."""
    return frame.is_refused or frame.consumer.connection.is_closed is True


@asynccontextmanager
async def unit_of_work() -> AsyncIterator[UnitOfWork]:
    """A unit of work as an async context manager: committed at the end of the block, rolled back on an error.

    Inside another block, or in `UnitOfWork.include`, it joins that unit. In an action, it takes over the changes that
    the action made before the block; changes after the block are another unit.

    If the action was cancelled or its connection has ended, its changes are rolled back before the block begins. So a
    ``finally`` can still commit something in a block. A dependency or middleware can do the same after its action
    failed.

    Raises ``RuntimeError`` if an inner block failed and its error was caught: nothing is committed then. An action also
    fails if it made changes, a block after them failed, and it caught the error.
    """
    is_inner = _bound_unit() is not None
    frame = None if is_inner else _own_frame()
    if frame is not None and frame.unit is not None and not frame.unit.depth and _is_over(frame):
        await frame.unit.rollback()
    unit = join_unit() or UnitOfWork()
    takes_over = frame is not None and not unit.has_only_read
    previous = _block_unit.get()
    if frame is None:
        _block_unit.set((unit, asyncio.current_task()))
    unit.ends_in_block = unit.ends_in_block or not is_inner
    unit.depth += 1
    try:
        yield unit
    except BaseException:
        unit.failed = True
        raise
    finally:
        unit.depth -= 1
        if frame is None:
            _block_unit.set(previous)
        if not unit.depth and unit.failed and takes_over:  # the action ends it, and fails
            unit.ends_in_block = False
        if not unit.depth and unit.ends_in_block:
            if frame is not None and frame.unit is unit:
                frame.unit = None
            if unit.failed:
                await unit.rollback()
    if not unit.depth:
        if unit.failed:
            raise RuntimeError(_INNER_FAILED)
        if unit.ends_in_block:
            await unit.commit()


class _InDoubt:
    """A `Resource` whose commit has an unknown outcome."""

    instant = True

    async def prepare(self) -> None:
        """Does nothing."""

    async def commit(self) -> bool:
        raise OutcomeUnknown

    async def rollback(self) -> None:
        """Does nothing."""


async def run_as_unit(work: Callable[[], Awaitable[None]], *, in_doubt: bool) -> None:
    """Runs a callback of a unit on another event loop, as if the unit had been on this one.

    ``in_doubt``: the outcome of that unit is unknown, so the new unit has an unknown outcome too.
    """
    with suppress(OutcomeUnknown):
        async with unit_of_work() as unit:
            await work()
            if in_doubt:
                unit.resource(_InDoubt, _InDoubt)


# ------------------------------------------------------------------------------------------------- of frames
async def complete(frame: Frame) -> None:
    """Commits the unit of a frame, or of one step of its stream."""
    unit, frame.unit = frame.unit, None
    if unit is not None:
        await unit.commit()


async def release_reads(frame: Frame) -> None:
    """Ends a unit that has only read, so that it holds no database connection while the frame waits for long."""
    unit = frame.unit
    if unit is not None and not unit.closed and not unit.depth and unit.has_only_read:
        await complete(frame)


async def roll_back_failed() -> None:
    """Rolls back the changes and the subscriptions of an action that failed.

    That happens before a dependency or middleware around it sees the error, since they may catch it and go on. If they
    have a `unit_of_work` block around the action, that block fails at its end.
    """
    if (current := current_frame.get()) is not None:
        current.finish_held(failed=True)
    frame = _own_frame()
    unit = None if frame is None else frame.unit
    if frame is None or unit is None:
        return
    unit.failed = True
    if not unit.depth:
        frame.unit = None
        await unit.rollback()


async def roll_back(frame: Frame) -> None:
    """Rolls back the unit of a frame that failed. Raises nothing."""
    unit, frame.unit = frame.unit, ENDED
    if unit is not None:
        with suppress(asyncio.CancelledError):  # the frame fails in any case
            await unit.rollback()
