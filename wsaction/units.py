"""The unit of work: what an action changes is kept as a whole, before its reply is sent, or not at all.

Each frame has one of its own, made when a queryset first needs it. It is committed once the action has returned and its
reply is written, so that a commit that fails is what the client is told; an error, a cancellation or a timeout rolls it
back. The tasks of an action share its unit; one that outlives the action works outside of it. Of a stream, each step
between two yields is a unit, so that a paused stream holds no connection.

Outside of a frame (an HTTP endpoint, a job, a test) each operation of a queryset is a unit by itself, unless
`unit_of_work` says otherwise::

    async with unit_of_work() as unit:
        card = await cards.create({"title": "a"})
        await logs.create({"card_id": card.id})
        unit.on_commit(lambda: print("both are there"))
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from wsaction.frames import Frame, current_frame

__all__ = (
    "COMMITTING",
    "ENDED",
    "Resource",
    "UnitOfWork",
    "abandon",
    "complete",
    "current_unit",
    "join_unit",
    "unit_of_work",
)

logger = logging.getLogger("wsaction")

R = TypeVar("R", bound="Resource")


class Resource(Protocol):
    """What a unit commits or rolls back: a database session, the drafts of rows in memory."""

    instant: bool  # whether nothing of it ever waits; such are committed last

    async def prepare(self) -> None:
        """Raises what would keep it from committing, as far as that can be known before."""

    async def commit(self) -> None:
        """Keeps what was changed. Called once; afterwards it is not used any more."""

    async def rollback(self) -> None:
        """Drops what was changed, also after a ``prepare`` or ``commit`` that failed."""


class UnitOfWork:
    """Changes that are kept together or not at all.

    Two databases in one unit are committed one after the other: where the second commit fails, the first is kept.
    """

    __slots__ = ("_around", "_callbacks", "_resources", "closed", "depth", "failed")

    def __init__(self) -> None:
        self._resources: dict[Any, Resource] = {}
        self._around: list[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = []
        self._callbacks: list[Callable[[], Any]] = []
        self.closed = False  # once it begins to end: what asks for a unit now is outside
        self.depth = 0  # of `unit_of_work` blocks
        self.failed = False  # in a block within, whose error was caught; or its action has, for who is around it

    def resource(self, key: Any, make: Callable[[], R]) -> R:
        """What the unit holds under a key, made at first use."""
        if key not in self._resources:
            self._resources[key] = make()
        return cast(R, self._resources[key])

    def held(self, key: Any) -> Resource | None:
        """What the unit holds under a key already."""
        return self._resources.get(key)

    def on_commit(self, callback: Callable[[], Any]) -> None:
        """Has a function called, or awaited, after the unit is committed and before the reply; in the order given.

        It is outside of the unit. What it raises is logged and changes nothing. Never called where the unit is rolled
        back. Raises ``RuntimeError`` once the unit has ended.
        """
        if self.closed:
            raise RuntimeError("this unit of work has ended; on_commit() is called while it is under way")
        self._callbacks.append(callback)

    def around_commit(self, before: Callable[[], Awaitable[None]], after: Callable[[], Awaitable[None]]) -> None:
        """Has ``before`` awaited when all that may have to wait is prepared and nothing is committed yet, and ``after``
        right after the commit, before what `on_commit` calls. What ``before`` raises prevents the commit."""
        self._around.append((before, after))

    async def commit(self) -> None:
        """Keeps everything, or raises what prevents it and keeps nothing.

        Runs to its end even when it is cancelled, which is raised then.
        """
        if self.depth:
            await self.rollback()
            raise RuntimeError(
                "a unit of work is left open: `async with unit_of_work()` may neither outlive its action nor reach "
                "over a yield of a stream"
            )
        if self.closed:
            raise RuntimeError("this unit of work has ended before; nothing that was done in it since is kept")
        self.closed = True
        await self._run(self._commit)

    async def rollback(self) -> None:
        """Drops everything; what fails in this is logged. Runs to its end even when cancelled, which is raised then."""
        if not self.closed:
            self.closed = True
            await self._run(self._rollback)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        waits = bool(self._callbacks or self._around)
        for resource in self._resources.values():
            waits = waits or not resource.instant
        await (_finish(work()) if waits else work())

    async def _commit(self) -> None:
        slow = [one for one in self._resources.values() if not one.instant]
        instant = [one for one in self._resources.values() if one.instant]
        try:
            for resource in slow:
                await resource.prepare()
            for before, _ in self._around:
                await before()
            for resource in instant:
                await resource.prepare()
            for resource in (*slow, *instant):
                await resource.commit()
        except BaseException:
            await self._rollback()
            raise
        for callback in (*(after for _, after in self._around), *self._callbacks):
            await _call(callback)

    async def _rollback(self) -> None:
        for resource in self._resources.values():
            try:
                await resource.rollback()
            except Exception:
                logger.exception("a unit of work could not be rolled back; its connection is given up")


async def _call(callback: Callable[[], Any]) -> None:
    try:
        result = callback()
        if isinstance(result, Awaitable):
            await result
    except (Exception, asyncio.CancelledError):  # of what it awaited: this task itself is cancelled by nobody
        logger.exception("%r failed, which was to be called after a commit", callback)


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Awaits work to its end, whatever cancels us meanwhile; that is raised afterwards."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a unit of work failed to end as it was cancelled", exc_info=error)
        raise cancelled
    task.result()


ENDED = UnitOfWork()
"""What a frame has for a unit once it has failed: its tasks are on their own."""
COMMITTING = UnitOfWork()
"""What a frame has for a unit once it is too late to cancel it: its unit is being committed, or it had none."""
ENDED.closed = COMMITTING.closed = True


# ------------------------------------------------------------------------------------------------- which one
_outside: ContextVar[UnitOfWork | None] = ContextVar("wsaction.unit_of_work", default=None)


def _has_ended(frame: Frame) -> bool:
    return frame.unit is ENDED or frame.unit is COMMITTING


def current_unit() -> UnitOfWork | None:
    """The unit under way in this context; None where none has begun, or it has ended."""
    frame = current_frame.get()
    unit = frame.unit if frame is not None and not _has_ended(frame) else _outside.get()
    return None if unit is None or unit.closed else unit


def join_unit() -> UnitOfWork | None:
    """The unit under way, begun now where a frame has none yet; None outside of frame and `unit_of_work`."""
    frame = current_frame.get()
    if frame is None or _has_ended(frame):
        return current_unit()
    unit: UnitOfWork | None = frame.unit
    if unit is None or unit.closed:
        unit = frame.unit = UnitOfWork()
    return unit


def _is_over(frame: Frame) -> bool:
    """Whether only clean-up is left of a frame's action: it failed, was cancelled, or its connection has ended."""
    return frame.unit.failed or frame.error is not None or frame.consumer.connection.ended is True


@asynccontextmanager
async def unit_of_work() -> AsyncIterator[UnitOfWork]:
    """A unit of work, committed at the end of the block and rolled back on an error.

    Within another block it joins that one. Within an action it takes over what the action has changed so far, and
    another unit may follow; once the action is cancelled, what it had changed is rolled back first, so that a
    ``finally`` can keep something still; so can a dependency or middleware whose action failed. Raises
    ``RuntimeError`` where a block within failed and its error was caught: nothing is kept then.
    """
    frame, before = current_frame.get(), _outside.get()
    if frame is not None and _has_ended(frame):
        frame = None
    elif frame is not None and frame.unit is not None and not frame.unit.depth and _is_over(frame):
        await frame.unit.rollback()
    unit = join_unit() or UnitOfWork()
    if frame is None:
        _outside.set(unit)
    unit.depth += 1
    try:
        yield unit
    except BaseException:
        unit.failed = True
        raise
    finally:
        unit.depth -= 1
        if frame is None:
            _outside.set(before)
        if not unit.depth:
            if frame is not None and frame.unit is unit:
                frame.unit = None
            if unit.failed:
                await unit.rollback()
    if not unit.depth:
        if unit.failed:
            raise RuntimeError(
                "a unit of work within this one failed, so that nothing is kept; let its error pass, or catch it "
                "outside of both"
            )
        await unit.commit()


# ------------------------------------------------------------------------------------------------- of frames
async def complete(frame: Frame) -> None:
    """Commits what a step of a frame's stream has changed, if anything."""
    unit, frame.unit = frame.unit, None
    if unit is not None:
        await unit.commit()


async def abandon(frame: Frame) -> None:
    """Ends the unit of a frame that failed: nothing is kept. Raises nothing."""
    unit, frame.unit = frame.unit, ENDED
    if unit is not None:
        with suppress(asyncio.CancelledError):  # the frame fails in any case
            await unit.rollback()
