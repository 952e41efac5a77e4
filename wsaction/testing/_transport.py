"""In-memory transport between a test and an app: the app's task, a bounded queue each way, bounded waits.

``connect`` and ``WebsocketCommunicator`` are both built on ``Transport``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from anyio import CancelScope

from wsaction.testing._asgi import ASGIApp, Message, Predicate, Protocol, Received
from wsaction.testing._scope import Scope
from wsaction.testing.errors import ClientDisconnected, ConnectionClosed

ABNORMAL = 1006  # the close code if a connection ends without a close frame
CAPACITY = 1024
_CANCEL_ATTEMPTS = 10
_CANCEL_PAUSE = 0.1  # seconds to wait after each attempt


class Transport:
    """One connection to an app, which runs in its own task, in a copy of the caller's context.

    The caller must end it with ``finish()`` or ``abandon()``. At most ``capacity`` messages wait in each direction. If
    that many wait for the test, the app's ``send()`` blocks, as on a full socket. If that many wait for the app, the
    test's ``feed()`` blocks. Messages keep their order. A wait that times out or is cancelled loses no message.

    ``closed`` is None until either side closes or the app ends; then it is ``(code, reason)`` of the first of these.
    ``error`` is the exception that the app raised, if any.
    """

    def __init__(self, app: ASGIApp, scope: Scope, capacity: int = CAPACITY) -> None:
        self.closed: tuple[int, str] | None = None
        self.error: BaseException | None = None
        self._scope = scope
        self._capacity = capacity
        self._protocol = Protocol(scope)
        self._inbox: deque[Message] = deque()
        self._unread: deque[Received] = deque()
        self._claims: list[Predicate] = []
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self._is_reading = True
        self._is_client_gone = False
        self._is_ended_by_error = False
        self._is_error_raised = False
        self._is_cancelling = False
        self._task = asyncio.create_task(self._run(app), name="wsaction.testing: the app")
        self._task.add_done_callback(self._on_task_done)

    async def feed(self, message: Message, seconds: float) -> None:
        """Queue a message for the app's ``receive()``.

        :raises TimeoutError: The queue stayed full for ``seconds``.
        :raises ConnectionClosed: The connection is closed. If an exception of the app closed it, that is raised.
        """
        description = f"the app to receive one of the {self._capacity} queued messages"
        await self._wait(lambda: self.closed is not None or len(self._inbox) < self._capacity, description, seconds)
        if self.closed is not None:
            self._raise_end()
        self._inbox.append(message)
        self._notify()

    async def take(self, predicate: Predicate, description: str, seconds: float, *, claim: bool = True) -> Received:
        """Remove and return the first message that matches ``predicate``; the others stay.

        With ``claim``, callers without a claim do not get a matching message while this call waits. ``description`` is
        for the error message.

        :raises TimeoutError: No match arrived within ``seconds``. The error shows the unread messages.
        :raises ConnectionClosed: The connection closed without a match. If an exception of the app closed it, that is
            raised.
        """
        picked: list[Received] = []

        def is_done() -> bool:
            picked.extend(self._pick(predicate, yield_to_claims=not claim))
            return bool(picked) or self.closed is not None

        if claim:
            self._claims.append(predicate)
        try:
            await self._wait(is_done, description, seconds)
        finally:
            if claim:
                self._claims.remove(predicate)
        if not picked:
            self._raise_end()
        return picked[0]

    async def peek(self, predicate: Predicate, seconds: float) -> Received | None:
        """Return the first message that matches ``predicate`` and leave it unread; None if none does in ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._wait_until(lambda: self.closed is not None or any(map(predicate, self._unread)))
        except TimeoutError:
            return None
        return next(filter(predicate, self._unread), None)

    async def wait_closed(self, seconds: float) -> tuple[int, str]:
        """Wait until either side closes or the app ends. Return code and reason. Unread messages stay."""
        await self._wait(lambda: self.closed is not None, "the end of the connection", seconds)
        return self.closed or (ABNORMAL, "")

    def pause(self) -> None:
        """Stop reading: the app's ``send()`` blocks from now on, also for a close, as on a full socket."""
        self._is_reading = False

    def resume(self) -> None:
        """Read again: blocked ``send()`` calls continue in their order."""
        self._is_reading = True
        self._notify()

    def disconnect(self, message: Message) -> None:
        """Disconnect the client: the app receives ``message`` after those queued before, and its ``send()`` fails."""
        if self.closed is None:
            self._close(message.get("code", 1005), message.get("reason") or "", message)
        self._is_client_gone = True
        self._notify()

    async def finish(self, seconds: float) -> None:
        """Wait for the app to return. Raise its exception, unless ``raise_error()`` has already raised it.

        :raises TimeoutError: The app did not return within ``seconds`` and was cancelled. The error says whether that
            ended it.
        """
        with CancelScope(shield=True):
            try:
                has_returned = await self._wait_for_return(seconds)
            except asyncio.CancelledError:  # a cancellation by asyncio, which anyio's shield does not stop
                await self.cancel()
                raise
            if not has_returned:
                outcome = "was cancelled" if await self.cancel() else "ignores being cancelled"
                raise TimeoutError(f"the app did not return within {seconds:g} s of the disconnect and {outcome}")
        if not self._is_error_raised:
            self.raise_error()

    async def abandon(self, error: BaseException, seconds: float) -> None:
        """End the connection after ``error`` in the test. An exception of the app becomes a note on ``error``."""
        self.disconnect({"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""})
        try:
            await self.finish(seconds)
        except Exception as app_error:
            error.add_note(f"and then the app failed: {app_error!r}")

    async def cancel(self) -> bool:
        """Cancel the app repeatedly for about a second. Return whether it ended."""
        self._is_cancelling = True
        for _ in range(_CANCEL_ATTEMPTS):
            self._task.cancel()
            if await self._wait_for_return(_CANCEL_PAUSE):
                return True
        return False

    def raise_error(self) -> None:
        """Raise the app's exception, if any. ``finish()`` does not raise it again."""
        if self.error is not None:
            self._is_error_raised = True
            raise self.error

    async def _run(self, app: ASGIApp) -> None:
        await app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self._wait_until(lambda: bool(self._inbox))
        message = self._inbox.popleft()
        self._notify()
        return message

    async def _send(self, message: Message) -> None:
        async with self._sending:  # the lock lets concurrent callers send in their order
            await self._wait_until(lambda: self._is_client_gone or self._can_send())
            if self._is_client_gone:
                await self._refuse()
                return
            self._protocol.advance(message)
            self._unread.append(Received(message))
            if self._protocol.phase == "closed":
                self._on_closed_by_app(message)
            self._notify()

    def _can_send(self) -> bool:
        return self._is_reading and len(self._unread) < self._capacity

    async def _refuse(self) -> None:
        await asyncio.sleep(0)  # an app that ignores the error and keeps sending must not block the loop
        version = str(self._scope.get("asgi", {}).get("spec_version", "2.0"))
        if [int(part) for part in version.split(".")] >= [2, 4]:  # servers of earlier versions drop the message
            raise ClientDisconnected("send() after the client has disconnected")

    def _on_closed_by_app(self, message: Message) -> None:
        code, reason = message.get("code", 1000), message.get("reason") or ""
        if message["type"] != "websocket.close":
            code = ABNORMAL
        self._close(code, reason, {"type": "websocket.disconnect", "code": code, "reason": reason})

    def _close(self, code: int, reason: str, disconnect: Message) -> None:
        self.closed = (code, reason)
        self._inbox.append(disconnect)  # even if the queue is full: it is the last message

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """Record the end of the app's task. Its callback and ``_wait_for_return`` both call this, in either order."""
        if task.cancelled():
            self.error = None if self._is_cancelling else RuntimeError("the app cancelled its own task")
        elif not isinstance(task.exception(), ClientDisconnected):  # servers treat it as a normal return
            self.error = task.exception()
        if self.closed is None:
            self.closed = (ABNORMAL, "")
            self._is_ended_by_error = self.error is not None
        self._is_client_gone = True  # tasks that the app left running cannot send any more
        self._notify()

    def _raise_end(self) -> NoReturn:
        if self._is_ended_by_error:
            self.raise_error()
        raise ConnectionClosed(*(self.closed or (ABNORMAL, "")))

    async def _wait_for_return(self, seconds: float) -> bool:
        await asyncio.wait({self._task}, timeout=seconds)
        if self._task.done():
            self._on_task_done(self._task)
        return self._task.done()

    def _pick(self, predicate: Predicate, *, yield_to_claims: bool) -> list[Received]:
        for index, received in enumerate(self._unread):
            if predicate(received) and not (yield_to_claims and any(claim(received) for claim in self._claims)):
                del self._unread[index]
                self._notify()
                return [received]
        return []

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    async def _wait(self, condition: Callable[[], bool], description: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wait_until(condition)
        except TimeoutError:
            raise TimeoutError(f"waited {seconds:g} s for {description}; {self._describe_unread()}") from None

    def _describe_unread(self) -> str:
        unread: list[dict[str, Any]] = [dict(received.message) for received in self._unread]
        if not unread:
            return "no message arrived"
        messages = "; ".join(str(message)[:300] for message in unread[:5])
        return f"{len(unread)} other messages arrived: {messages}" + ("; ..." if len(unread) > 5 else "")
