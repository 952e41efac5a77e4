"""Users: the connections of each, and what every process is told of them: disconnect, ask again, tell.

What is told travels as events of one topic of the layer, which every process that serves is subscribed to. A process
that may have missed some of it asks the permissions of all its users again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from wsaction.backoff import Backoff
from wsaction.events import encode_event
from wsaction.exceptions import Cancelled, LayerUnavailable, PermissionDenied
from wsaction.frames import current_frame
from wsaction.grants import Grant, Stream, withdraw
from wsaction.hub import Hub
from wsaction.layers.base import History
from wsaction.tasks import Tasks

__all__ = ("CONTROL", "Users", "recheck")

logger = logging.getLogger("wsaction")

CONTROL = "$control"  # the topic; those of routes have a "?"
HISTORY = History(1_000, 300.0)


class Users:
    """The connections of one event loop by user, each as its `dispatch.Session`; at most one entry for each connection.

    ``hub`` gives the loop's hub, ``user_id`` says who a user is. ``shared``: whether other processes are told too.
    It is a `recipients.Subscriber` itself, of the topic that processes tell each other of users by.
    """

    capacity = 1 << 20  # never reached: what is put is acted on at once
    ended = False

    def __init__(self, hub: Callable[[], Hub], user_id: Callable[[Any], Any], *, shared: bool) -> None:
        self._hub, self._user_id, self._shared = hub, user_id, shared
        self._sessions: dict[str, set[Any]] = {}
        self._keys: dict[Any, str] = {}
        self._tasks = Tasks(copy_context())
        self._listening = False
        self.is_told = asyncio.Event()  # set once what other processes tell is heard here

    # ------------------------------------------------------------------------------------------------ who is here
    def note(self, session: Any) -> None:
        """Notes whose a connection is; to be called again when that may have changed."""
        self.forget(session)
        user = session.scope.get("user")
        try:
            found = None if user is None else self._user_id(user)
        except TypeError as exc:  # a user who has no id is a user all the same, but cannot be asked for
            logger.debug("a connection is of nobody who could be told from others: %s", exc)
            return
        if found is None:
            return
        key = self._keys[session] = str(found)
        self._sessions.setdefault(key, set()).add(session)
        self.listen()

    def forget(self, session: Any) -> None:
        """The connection has ended, or is nobody's."""
        if (key := self._keys.pop(session, None)) is not None:
            self._sessions[key].discard(session)
            if not self._sessions[key]:
                del self._sessions[key]

    def key(self, session: Any) -> str | None:
        """Whose a connection is; None: nobody's."""
        return self._keys.get(session)

    def sessions(self, key: str) -> Iterable[Any]:
        """A user's connections here."""
        return tuple(self._sessions.get(key, ()))

    async def stop(self) -> None:
        """Ends what runs; other processes are listened to no more until the next connection."""
        await self._tasks.stop()
        self._listening = False
        self.is_told.clear()

    # ------------------------------------------------------------------------------------------------ what is told
    async def tell(self, what: str, user_id: Any, **details: Any) -> None:
        """Does something with a user's connections, in every process: ``disconnect``, ``revoke`` or ``push``.

        It is done here in any case. Raises `LayerUnavailable` where others may not know.
        """
        data = {"user": str(user_id), **details}
        self._do(what, data)
        if self._shared:
            text = encode_event(what, "", to_json(data).decode())
            await self._hub().publish(CONTROL, text, HISTORY, exclude=self)

    def _do(self, what: str, data: Any) -> None:
        for session in self.sessions(data["user"]):
            if what == "disconnect":
                session.connection.close(4403, data["reason"])
            elif what == "push":
                session.connection.put(data["text"])
            elif what == "revoke":
                recheck(session)

    # ------------------------------------------------------------------------------------------------ what is heard
    def listen(self) -> None:
        """Begins to hear what other processes tell, unless that is done: as an app starts, so that its first user is
        not missed; where nothing starts it, with that user."""
        if self._shared and not self._listening:
            self._listening = True
            self._tasks.start(self._listen)

    async def _listen(self) -> None:
        current_frame.set(None)
        backoff, missed = Backoff(), False
        while True:
            try:
                await self._hub().join(self, CONTROL, "", reply=lambda *_: "{}", history=HISTORY)
            except LayerUnavailable as exc:
                missed = True
                logger.warning("what other processes tell of users cannot be heard yet: %r", exc)
                await asyncio.sleep(backoff.seconds())
            except Cancelled:
                return  # the hub has ended
            except Exception as exc:  # a layer that cannot be opened as it is configured
                logger.error("what other processes tell of users cannot be heard: %r", exc)
                self._listening = False  # it is tried again for the next connection
                return
            else:
                self.is_told.set()
                if missed:
                    self._ask_all()
                return

    def put(self, text: str) -> None:
        """The hub's: something was told."""
        message = from_json(text)
        if message.get("event") == "$resync":
            self._ask_all()
        elif _is_told(message):
            self._do(message["event"], message["data"])
        elif message.get("event") not in (None, "$position"):
            logger.warning("ignoring what no process of ours tells of users: %.100r", text)

    def _ask_all(self) -> None:
        logger.warning("what other processes told of users may have been missed: all permissions are asked again")
        for key in tuple(self._sessions):
            self._do("revoke", {"user": key})

    async def room(self, size: int) -> None:
        """There always is."""

    def close(self, code: int, reason: str) -> None:
        """Who is told nothing that waits is never too slow."""


_TOLD = {"disconnect": ("user", "reason"), "revoke": ("user",), "push": ("user", "text")}


def _is_told(message: Any) -> bool:
    """Whether it is what `Users.tell` tells; what comes over a layer may be anything."""
    what, data = message.get("event"), message.get("data")
    if not (isinstance(what, str) and isinstance(data, dict)):
        return False
    return what in _TOLD and all(isinstance(data.get(name), str) for name in _TOLD[what])


def recheck(session: Any) -> asyncio.Task[None] | None:
    """Asks the permissions of all that a connection is subscribed to, and of its streams, again; what is lost ends, and
    it is told so.

    All at once, ``action_timeout`` seconds each: one that hangs keeps none of the others. From here on until it is
    known whether it may, it is told no event and no item. The task is what asks; None: there is nothing to ask.
    """
    session.revised = True
    hold = partial(session.runtime.here.hold, session.connection)
    asking = [partial(_ask_subscription, session, key, grant, hold(*key)) for key, grant in session.grants.items()]
    asking += [partial(_ask_stream, session, stream, stream.hold()) for stream in session.streams]
    if not asking:
        return None
    task: asyncio.Task[None] = session.connection.spawn(_all_of, asking)
    return task


async def _all_of(asking: Iterable[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(ask() for ask in asking))


async def _ask_stream(session: Any, stream: Stream, go_on: Callable[[], None]) -> None:
    try:
        if not await stream.still_holds() and stream in session.streams and stream.frame.error is None:
            session.connection.stop(stream.frame, PermissionDenied())
    finally:
        go_on()


async def _ask_subscription(session: Any, key: tuple[str, str], grant: Grant, go_on: Callable[[], None]) -> None:
    try:
        holds = await grant.still_holds()
        if session.grants.get(key) is grant:
            if holds:
                grant.count()
            else:
                withdraw(session, *key)
    finally:
        go_on()
