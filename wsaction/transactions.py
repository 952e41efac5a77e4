"""The unit of work: what an action changes is kept as a whole, before its reply is sent, or not at all.

Each frame has one of its own, made when a queryset first needs it. It is committed once the action has returned and its
reply is written, so that a commit that fails is what the client is told; an error, a cancellation or a timeout rolls it
back. Of a stream, each step between two yields is a unit, so that a paused stream holds no connection.

A unit belongs to the task that began it. Other tasks (``create_task``, ``gather``, a ``TaskGroup``) are outside of it,
whoever began or awaits them: what they write is kept and told by itself, as with a database session of their own.
`UnitOfWork.include` brings work in another task into the unit. What a sync action calls through `anyio.from_thread`
is part of the action's unit; the tasks that it begins there are not.

A commit may end in three ways. It is kept; it is refused, and nothing is kept; or nobody knows, since its answer was
lost. Where nobody knows, the caller gets `OutcomeUnknown` and whatever waited for the commit is told so.

Outside of a frame (an HTTP endpoint, a job, a test) each operation of a queryset is a unit by itself, unless
`unit_of_work` says otherwise::

    async with unit_of_work() as unit:
        card = await cards.create({"title": "a"})
        await logs.create({"card_id": card.id})
        unit.on_commit(lambda: print("both are there"))
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar, cast

from wsaction._protocol.frames import Frame, current_frame
from wsaction._utils.tasks import is_closed_with
from wsaction._utils.threads import is_awaited_by_thread
from wsaction.exceptions import OutcomeUnknown

__all__ = (
    "COMMITTING",
    "ENDED",
    "Resource",
    "UnitOfWork",
    "abandon",
    "complete",
    "current_unit",
    "drop_failed",
    "finish",
    "join_unit",
    "own_unit",
    "release_reads",
    "tell_elsewhere",
    "unit_of_work",
    "unit_to_wait_for",
)

logger = logging.getLogger("wsaction")

R = TypeVar("R", bound="Resource")
T = TypeVar("T")

COMMIT_ARRIVES = 5.0  # seconds after which a COMMIT whose connection was lost has been carried out, or never is

_TOO_LATE = (
    "this unit of work has ended: it was committed or rolled back before what include() brings into it had ended; its "
    "owner waits for that"
)

_FAILED_WITHIN = (
    "a unit of work within this one failed, so that nothing is kept; let its error pass, or catch it where nothing was "
    "changed before"
)

_SAY_NOTHING = (OutcomeUnknown, OSError, asyncio.CancelledError)  # about what was committed


class Resource(Protocol):
    """What a unit commits or rolls back: a database session, the drafts of rows in memory."""

    instant: bool  # whether nothing of it ever waits; such are committed last

    async def prepare(self) -> None:
        """Raises what would keep it from committing, as far as that can be known before."""

    async def commit(self) -> bool | None:
        """Keeps what was changed; False says that there was nothing to keep. Called once; afterwards it is not used any
        more.

        Raises `OutcomeUnknown` where it may be kept all the same. An ``OSError`` (a lost connection, a timeout) and a
        cancellation mean the same; any other error means that nothing is kept.
        """

    async def rollback(self) -> None:
        """Drops what was changed, also after a ``prepare`` or ``commit`` that failed."""


class UnitOfWork:
    """Changes that are kept together or not at all.

    Resources are committed one after the other, those in memory last; after one that fails, no other is. Where the
    second of two fails, the first is kept: the outcome of the unit is then as unknown as if an answer was lost.
    """

    __slots__ = (
        "_around", "_callbacks", "_calling", "_resources", "closed", "depth", "failed", "is_blocks",
    )  # fmt: skip

    def __init__(self) -> None:
        self._resources: dict[Any, Resource] = {}
        self._around: list[Callable[[], Awaitable[None]]] = []
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any] | None]] = []  # those of `_around` first
        self._calling: deque[Callable[[], Any]] | None = None  # what is yet to be called, once it is
        self.closed = False  # once it begins to end: what asks for a unit now is outside
        self.depth = 0  # of `unit_of_work` blocks
        self.is_blocks = False  # whether such a block of its owner's ends it, and not the action
        self.failed = False  # in a block within, or its action has: whoever catches the error, nothing is kept

    def resource(self, key: Any, make: Callable[[], R]) -> R:
        """What the unit holds under a key, made at first use."""
        if key not in self._resources:
            self._resources[key] = make()
        return cast(R, self._resources[key])

    def held(self, key: Any) -> Resource | None:
        """What the unit holds under a key already."""
        return self._resources.get(key)

    @property
    def has_only_read(self) -> bool:
        """Whether there is nothing to keep, and nobody waits for its end."""
        return not self._callbacks and not any(getattr(one, "wrote", True) for one in self._resources.values())

    def on_commit(self, callback: Callable[[], Any], *, if_unknown: Callable[[], Any] | None = None) -> None:
        """Has a function called, or awaited, after the unit is committed and before the reply; in the order given.

        It is outside of the unit: what it changes is kept by itself, and what it publishes is told once it has
        returned, before the next is called. What it raises is logged and changes nothing. Never called where the unit
        is rolled back, or a savepoint of it in which this was asked for. Where nobody knows whether it was committed,
        ``if_unknown`` is called in its place. Raises ``RuntimeError`` once the unit has ended.
        """
        if self._calling is not None:  # by one of those that are called
            self._calling.append(callback)
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
        """Has ``before`` awaited when all that may have to wait is prepared and nothing is committed yet, and ``after``
        right after the commit, before what `on_commit` calls; in its place ``if_unknown``, where nobody knows whether
        it was committed. What ``before`` raises prevents the commit."""
        self._around.append(before)
        self._callbacks.insert(len(self._around) - 1, (after, if_unknown))

    def mark(self) -> Callable[[], None]:
        """Begins a part of the unit that may be taken back alone. Returns what forgets all that waits for the commit
        since."""
        waiting = len(self._callbacks) - len(self._around)
        known = {key: one.mark() for key, one in self._resources.items() if hasattr(one, "mark")}

        def back() -> None:
            del self._callbacks[len(self._around) + waiting :]
            for key, one in self._resources.items():
                if hasattr(one, "mark"):  # it is of what is told
                    one.back_to(known.get(key))  # type: ignore[attr-defined]

        return back

    async def include(self, work: Awaitable[T]) -> T:
        """Awaits work as a part of this unit, in whichever task that is done; the unit's owner waits for it. Once the
        unit has ended, ``RuntimeError`` is raised, here and by what the work changes or reads then.

        >>> await asyncio.gather(*(unit.include(cards.create({"title": title})) for title in titles))
        """
        if self.closed:
            if isinstance(work, Coroutine):
                work.close()
            raise RuntimeError(_TOO_LATE)
        before = _bound.set((self, asyncio.current_task()))
        try:
            return await work
        finally:
            _bound.reset(before)

    async def commit(self) -> None:
        """Keeps everything, or raises what prevents it and keeps nothing; `OutcomeUnknown` where nobody knows.

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
        if self.failed:
            await self.rollback()
            raise RuntimeError(_FAILED_WITHIN)
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
        await (finish(work()) if waits else work())

    async def _commit(self) -> None:
        slow = [one for one in self._resources.values() if not one.instant]
        instant = [one for one in self._resources.values() if one.instant]
        committing, kept = False, False
        try:
            for resource in slow:
                await resource.prepare()
            for before in self._around:
                await before()
            for resource in instant:
                await resource.prepare()
            committing = True
            for resource in (*slow, *instant):
                kept = await resource.commit() is not False or kept
        except BaseException as exc:
            await self._rollback()
            if committing and (kept or isinstance(exc, _SAY_NOTHING)):
                await self._leave_unknown(exc)
            raise
        await self._call_all([callback for callback, _ in self._callbacks])

    async def _call_all(self, callbacks: list[Callable[[], Any]]) -> None:
        """Calls what waited for the end, and what each of them adds right after it: the next one may take long."""
        self._calling = deque(callbacks)
        before = _calling.set((self, asyncio.current_task()))
        try:
            while self._calling:
                callback, others = self._calling.popleft(), self._calling
                self._calling = deque()
                await _call(callback)
                self._calling.extend(others)
        finally:
            self._calling = None
            _calling.reset(before)

    async def _leave_unknown(self, exc: BaseException) -> None:
        """Nobody knows what is kept: raises `OutcomeUnknown` for an error of one of the commits."""
        logger.error("a unit of work may be kept, or a part of it; nobody knows", exc_info=exc)
        await self._call_all([one for _, one in self._callbacks if one is not None])
        if isinstance(exc, Exception | asyncio.CancelledError):
            raise OutcomeUnknown from exc

    async def _rollback(self) -> None:
        for resource in self._resources.values():
            try:
                await resource.rollback()
            except Exception:
                logger.exception("a unit of work could not be rolled back; its connection is given up")


async def _call(callback: Callable[[], Any]) -> None:
    task = asyncio.current_task()
    try:
        result = callback()
        if isinstance(result, Awaitable):
            await result
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # of what it awaited: this task itself is cancelled by nobody
        if is_closed_with(exc, task):
            raise
        logger.exception("%r failed, which was to be called after a commit", callback)


async def finish(work: Awaitable[None]) -> None:
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
_NOTHING = (None, None)
_bound: ContextVar[tuple[UnitOfWork | None, Any]] = ContextVar("wsaction.unit_of_work", default=_NOTHING)
"""The unit that was begun, or included, outside of a frame, and the task that it belongs to: tasks that are begun there
inherit the variable, but not the unit."""
_calling: ContextVar[tuple[UnitOfWork | None, Any]] = ContextVar("wsaction.calling_unit", default=_NOTHING)
"""The unit that calls what waited for its end, and the task that it does so in."""


def _is_ours(owner: Any) -> bool:
    """Whether we run in this task, or in a thread that it waits for; not in a task that either has begun."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in a thread
        task = None
    return owner is not None and (task is owner or is_awaited_by_thread(task, owner))


def _own_frame() -> Frame | None:
    """The frame whose action we are; None for other tasks, and where its unit has ended."""
    frame = current_frame.get()
    if frame is None or frame.unit is ENDED or frame.unit is COMMITTING:
        return None
    owner = frame.task
    if owner is None:  # its action has not suspended yet, or just now
        owner = frame.consumer.connection.leader
    return frame if _is_ours(owner) else None


def _bound_unit() -> UnitOfWork | None:
    unit, owner = _bound.get()
    if unit is None or not _is_ours(owner):
        return None
    if unit.closed:
        raise RuntimeError(_TOO_LATE)
    return unit


def current_unit() -> UnitOfWork | None:
    """The unit under way in this task; None where none has begun, or it has ended."""
    if (unit := _bound_unit()) is not None:
        return unit
    frame = _own_frame()
    unit = None if frame is None else frame.unit
    return None if unit is None or unit.closed else unit


def own_unit() -> UnitOfWork | None:
    """The unit under way that belongs to this very task, and not to one that waits for our thread."""
    task = asyncio.current_task()
    unit, owner = _bound.get()
    if owner is not task:
        frame = _own_frame()
        if frame is None or (frame.task or frame.consumer.connection.leader) is not task:
            return None
        unit = frame.unit
    return None if unit is None or unit.closed else unit


def unit_to_wait_for() -> UnitOfWork | None:
    """The unit that what is told now waits for: the one under way, or the one whose ``on_commit`` calls us. In either
    case nobody is there any more who could try again."""
    if (unit := current_unit()) is not None:
        return unit
    unit, owner = _calling.get()
    return unit if _is_ours(owner) else None


def join_unit() -> UnitOfWork | None:
    """The unit under way, begun now where a frame has none yet; None outside of frame and `unit_of_work`."""
    if (unit := _bound_unit()) is not None:
        return unit
    if (frame := _own_frame()) is None:
        return None
    unit = frame.unit
    if unit is None or unit.closed:
        unit = frame.unit = UnitOfWork()
    return unit


def _is_over(frame: Frame) -> bool:
    """Whether only clean-up is left of a frame's action: it was cancelled, or its connection has ended."""
    return frame.is_refused or frame.consumer.connection.is_closed is True


@asynccontextmanager
async def unit_of_work() -> AsyncIterator[UnitOfWork]:
    """A unit of work, committed at the end of the block and rolled back on an error.

    Within another block, or what `UnitOfWork.include` brings in, it joins that one. Within an action it takes over what
    the action has changed so far, and another unit may follow; once the action is cancelled, what it had changed is
    rolled back first, so that a ``finally`` can keep something still; so can a dependency or middleware whose action
    failed. Raises ``RuntimeError`` where a block within failed and its error was caught: nothing is kept then. An
    action fails alike whose block failed after it had changed something.
    """
    is_bound = _bound_unit() is not None
    frame = None if is_bound else _own_frame()
    if frame is not None and frame.unit is not None and not frame.unit.depth and _is_over(frame):
        await frame.unit.rollback()
    unit = join_unit() or UnitOfWork()
    takes_over = frame is not None and not unit.has_only_read
    before = _bound.get()
    if frame is None:
        _bound.set((unit, asyncio.current_task()))
    unit.is_blocks = unit.is_blocks or not is_bound
    unit.depth += 1
    try:
        yield unit
    except BaseException:
        unit.failed = True
        raise
    finally:
        unit.depth -= 1
        if frame is None:
            _bound.set(before)
        if not unit.depth and unit.failed and takes_over:  # its action ends it, and fails
            unit.is_blocks = False
        if not unit.depth and unit.is_blocks:
            if frame is not None and frame.unit is unit:
                frame.unit = None
            if unit.failed:
                await unit.rollback()
    if not unit.depth:
        if unit.failed:
            raise RuntimeError(_FAILED_WITHIN)
        if unit.is_blocks:
            await unit.commit()


class _InDoubt:
    """A `Resource` of which nobody knows whether it is kept."""

    instant = True

    async def prepare(self) -> None:
        """Nothing is in its way."""

    async def commit(self) -> bool:
        raise OutcomeUnknown

    async def rollback(self) -> None:
        """There is nothing of it."""


async def tell_elsewhere(work: Callable[[], Awaitable[None]], *, in_doubt: bool) -> None:
    """Does what waited for the end of a unit on another event loop, as if that had been one of this loop."""
    with suppress(OutcomeUnknown):
        async with unit_of_work() as unit:
            await work()
            if in_doubt:
                unit.resource(_InDoubt, _InDoubt)


# ------------------------------------------------------------------------------------------------- of frames
async def complete(frame: Frame) -> None:
    """Commits what a step of a frame's stream has changed, if anything."""
    unit, frame.unit = frame.unit, None
    if unit is not None:
        await unit.commit()


async def release_reads(frame: Frame) -> None:
    """Ends the unit of a frame that has only read so far: it holds no connection while the frame waits for long."""
    unit = frame.unit
    if unit is not None and not unit.closed and not unit.depth and unit.has_only_read:
        await complete(frame)


async def drop_failed() -> None:
    """Drops what an action that fails has changed, and undoes what it subscribed to, before its error is seen by who is
    around it (a dependency, middleware), who may go on without that. Where they have a block of theirs around it, that
    block fails at its end."""
    if (subscribing := current_frame.get()) is not None:
        subscribing.let_go(failed=True)
    frame = _own_frame()
    unit = None if frame is None else frame.unit
    if frame is None or unit is None:
        return
    unit.failed = True
    if not unit.depth:
        frame.unit = None
        await unit.rollback()


async def abandon(frame: Frame) -> None:
    """Ends the unit of a frame that failed: nothing is kept. Raises nothing."""
    unit, frame.unit = frame.unit, ENDED
    if unit is not None:
        with suppress(asyncio.CancelledError):  # the frame fails in any case
            await unit.rollback()
