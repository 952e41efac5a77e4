"""Users: the connections of each, and what every process is told of them: disconnect, ask again, tell.

What is told travels as events of two topics of the layer, to which every process that serves is subscribed: one for
what must not be missed, one for pushes, of which there may be many. A process that was cut off reads what it has missed
from their history. Where that is gone:

- it cannot know who was disconnected meanwhile, so it closes every user's connection that was there before, 1012: who
  may come back does so, and is authenticated again;
- it cannot know what was pushed meanwhile, so it tells those connections ``$resync`` under the empty route, which is
  that of pushes.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wsaction._events.reauthorization import Connecting, Grant, Stream, withdraw
from wsaction._protocol.close_codes import FORBIDDEN
from wsaction._protocol.event_frames import encode_event, encode_notice
from wsaction._protocol.frames import current_frame
from wsaction._pubsub.hub import Hub
from wsaction._utils.backoff import Backoff
from wsaction._utils.tasks import Tasks
from wsaction.authentication._identity import is_somebody
from wsaction.exceptions import Cancelled, LayerUnavailable, PermissionDenied
from wsaction.layers.base import History, Position
from wsaction.transactions import COMMIT_ARRIVES

if TYPE_CHECKING:
    from wsaction._dispatch.session import Session

__all__ = ("CONTROL", "MAX_UNTOLD", "PUSHES", "Users", "recheck")

logger = logging.getLogger("wsaction")

CONTROL, PUSHES = "$control", "$push"  # the topics; those of routes have a "?"
HISTORY = History(1_000, 300.0)
MAX_UNTOLD = 10_000  # things that could not be told after a commit, and are tried again
CLOSED_AT_ONCE = 50  # connections, so that their clients do not come back all together
PAUSE = 0.05  # seconds until the next ones
PATIENCE = 1.0  # seconds that a handshake waits for what other processes tell, as a server starts
MISSED = "what this server was told of its users is lost; come back"


class Users:
    """The connections of one event loop by user, each as its `_dispatch.session.Session`; at most one entry for each
    connection.

    ``hub`` gives the loop's hub, ``user_id`` says who a user is. ``shared``: whether other processes are told too.
    It is a `_pubsub.subscription.Subscriber` itself, of the topic that processes tell each other of users by.
    """

    capacity = 1 << 20  # never reached: what is put is acted on at once
    is_closed = False

    def __init__(self, hub: Callable[[], Hub], user_id: Callable[[Any], Any], *, shared: bool) -> None:
        self._hub = hub
        self._user_id = user_id
        self._shared = shared
        self._sessions: dict[str, set[Any]] = {}
        self._keys: dict[Any, str] = {}
        self._noted: dict[Any, float] = {}  # since when, by the loop's clock, a connection is its user's
        self._arriving: dict[object, dict[str, str]] = {}  # who was disconnected since one asks whose it is, and why
        self._untold: dict[tuple[str, str], dict[str, str]] = {}
        self._retrying = False
        self._tasks = Tasks(copy_context())
        self._listening = False
        self.is_told = asyncio.Event()  # set once what other processes tell is heard here
        self._has_tried = asyncio.Event()  # set once that was tried

    # ------------------------------------------------------------------------------------------------ who is here
    @contextmanager
    def arrival(self, session: "Session") -> Iterator[None]:
        """Within the block it is found out whose a connection is, and at its end that is noted.

        Who is disconnected meanwhile may have been looked up before: the connection is closed as the others were.
        """
        since = asyncio.get_running_loop().time()
        disconnected = self._arriving[token := object()] = {}  # a client may have one connection asked about twice
        try:
            yield
        finally:
            del self._arriving[token]
        self._note(session, since)
        if (reason := disconnected.get(self._keys.get(session, ""))) is not None:
            session.connection.close(FORBIDDEN, reason)

    def _note(self, session: "Session", since: float) -> None:
        previous_key, noted = self._keys.get(session), self._noted.get(session, since)
        self.forget(session)
        user = session.scope.get("user")
        try:
            user_id = self._user_id(user) if is_somebody(user) else None
        except TypeError as exc:  # a user who has no id is a user all the same, but cannot be asked for
            logger.debug("a connection is of nobody who could be told from others: %s", exc)
            return
        if user_id is None:
            return
        key = self._keys[session] = str(user_id)
        self._noted[session] = noted if key == previous_key else since
        self._sessions.setdefault(key, set()).add(session)

    def forget(self, session: "Session") -> None:
        """The connection has ended, or is nobody's."""
        if (key := self._keys.pop(session, None)) is not None:
            del self._noted[session]
            self._sessions[key].discard(session)
            if not self._sessions[key]:
                del self._sessions[key]

    def key(self, session: "Session") -> str | None:
        """Whose a connection is; None: nobody's."""
        return self._keys.get(session)

    def sessions(self, key: str) -> Iterable[Any]:
        """A user's connections here."""
        return tuple(self._sessions.get(key, ()))

    async def stop(self) -> None:
        """Ends what runs; other processes are listened to no more until the next connection."""
        await self._tasks.stop()
        self._listening = self._retrying = False
        for command, user in self._untold:
            _log_undelivered(command, user, "the server ends before that could be done")
        self._untold.clear()
        self.is_told.clear()
        self._has_tried.clear()

    # ------------------------------------------------------------------------------------------------ what is told
    async def tell(self, command: str, user_id: Any, **details: Any) -> None:
        """Does something with a user's connections, in every process: ``disconnect``, ``revoke`` or ``push``.

        It is done here in any case. Raises `LayerUnavailable` where others may not know.
        """
        data = {"user": str(user_id), **details}
        self._apply(command, data)
        await self._tell_others(command, data)

    async def tell_surely(self, command: str, user_id: Any, **details: Any) -> None:
        """As `tell`, for what has happened already, so that nobody is there to try again: where others cannot be told
        now, they are told as soon as they can be. In the place of a push that may have been told, or would come late,
        the user's connections are told that they missed something."""
        try:
            await self.tell(command, user_id, **details)
        except LayerUnavailable as exc:
            logger.error(
                "other processes do not know yet what is done with a user (%s), and will be told: %r", command, exc
            )
            self._retry_later("missed" if command == "push" else command, {"user": str(user_id), **details})

    async def tell_in_doubt(self, command: str, user_id: Any, **details: Any) -> None:
        """As `tell_surely`, where nobody knows whether the commit that it waited for was carried out: a right that may
        be lost is asked again, and instead of a push the user's connections are told that they may have missed one.

        It is done now, and once more when a commit that was still on its way to the database has surely arrived: who
        asks before that is told what was.
        """
        command = "missed" if command == "push" else command
        self._tasks.start(self._tell_again, command, user_id, details)
        await self.tell_surely(command, user_id, **details)

    async def _tell_again(self, command: str, user_id: Any, details: Mapping[str, Any]) -> None:
        current_frame.set(None)
        await asyncio.sleep(COMMIT_ARRIVES)
        await self.tell_surely(command, user_id, **details)

    async def _tell_others(self, command: str, data: dict[str, str]) -> None:
        if self._shared:
            text = encode_event(command, "", to_json({name: data[name] for name in _COMMANDS[command]}).decode())
            topic = PUSHES if command in ("push", "missed") else CONTROL
            await self._hub().publish(topic, text, HISTORY, exclude=self)

    def _retry_later(self, command: str, data: dict[str, str]) -> None:
        key = command, data["user"]
        if key not in self._untold and len(self._untold) >= MAX_UNTOLD:
            _log_undelivered(*key, f"{MAX_UNTOLD} things wait for that already")
            return
        self._untold[key] = data
        if not self._retrying:
            self._retrying = True
            self._tasks.start(self._retry)

    async def _retry(self) -> None:
        current_frame.set(None)
        backoff = Backoff()
        try:
            while self._untold:
                key, data = next(iter(self._untold.items()))
                try:
                    await self._tell_others(key[0], data)
                except LayerUnavailable:
                    await asyncio.sleep(backoff.seconds())
                else:
                    backoff.reset()
                    if self._untold.get(key) is data:
                        del self._untold[key]
        finally:
            self._retrying = False

    def _apply(self, command: str, data: Any) -> None:
        if command == "disconnect":
            for disconnected in self._arriving.values():
                disconnected[data["user"]] = data["reason"]
        for session in self.sessions(data["user"]):
            if command == "disconnect":
                session.connection.close(FORBIDDEN, data["reason"])
            elif command == "push":
                session.connection.put(data["text"])
            elif command == "missed":
                _send_resync(session)
            elif command == "revoke":
                recheck(session)

    # ------------------------------------------------------------------------------------------------ what is heard
    def listen(self) -> None:
        """Begins to hear what other processes tell, unless that is done: as an app starts; where nothing starts it,
        with the first connection."""
        if self._shared and not self._listening:
            self._listening = True
            self._tasks.start(self._listen)

    async def listening(self) -> None:
        """Waits until what other processes tell is heard, for a moment: whoever is looked up before may miss it, and is
        in doubt once it is."""
        if self._shared and not self._listening:
            self._has_tried.clear()
            self.listen()
        if self._shared and not self._has_tried.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._has_tried.wait()

    async def _listen(self) -> None:
        current_frame.set(None)
        backoff = Backoff()
        while True:
            try:
                for topic in (CONTROL, PUSHES):
                    await self._hub().join(self, topic, topic, reply=lambda *_: "{}", history=HISTORY)
            except LayerUnavailable as exc:
                self._has_tried.set()
                logger.warning("what other processes tell of users cannot be heard yet: %r", exc)
                await asyncio.sleep(backoff.seconds())
            except Cancelled:
                self._has_tried.set()
                return  # the hub has ended
            except Exception as exc:  # a layer that cannot be opened as it is configured
                logger.error("what other processes tell of users cannot be heard: %r", exc)
                self._listening = False  # it is tried again for the next connection
                self._has_tried.set()
                return
            else:
                self.is_told.set()
                self._has_tried.set()
                if self._noted:  # they were let in before
                    self._handle_gap(CONTROL)
                    self._handle_gap(PUSHES)
                return

    def put(self, text: str) -> None:
        """The hub's: something was told."""
        message = from_json(text)
        if message.get("event") == "$resync":
            self._handle_gap(message["route"])
        elif _is_valid(message):
            self._apply(message["event"], message["data"])
        elif message.get("event") not in (None, "$position"):
            logger.warning("ignoring what no process of ours tells of users: %.100r", text)

    def _handle_gap(self, topic: str) -> None:
        """Some of what was told before a topic was last heard anew is gone: whoever was here then may have missed it.

        For those who came later nothing is lost; their permissions are asked again all the same.
        """
        since = self._hub().heard_since(topic)
        stale = [session for session, noted in self._noted.items() if noted <= since]
        if topic == PUSHES:
            for session in stale:
                _send_resync(session)
            return
        logger.warning(
            "what other processes told of users may have been missed: %s connections are closed, 1012, and the "
            "permissions of the others are asked again",
            len(stale),
        )
        if stale:
            self._tasks.start(self._close_all, stale)
        for session in self._noted.keys() - set(stale):
            recheck(session)

    async def _close_all(self, sessions: list[Any]) -> None:
        random.shuffle(sessions)
        for start in range(0, len(sessions), CLOSED_AT_ONCE):
            for session in sessions[start : start + CLOSED_AT_ONCE]:
                session.connection.close(1012, MISSED)
            await asyncio.sleep(PAUSE)

    async def wait_for_space(self, size: int) -> None:
        """There always is."""

    def close(self, code: int, reason: str) -> None:
        """Who is told nothing that waits is never too slow."""


_COMMANDS = {"disconnect": ("user", "reason"), "revoke": ("user",), "push": ("user", "text"), "missed": ("user",)}


def _log_undelivered(command: str, user: str, why: str) -> None:
    logger.error("other processes are not told what is done with user %r (%s): %s", user, command, why)


def _send_resync(session: "Session") -> None:
    """Tells a connection that something of what comes under the empty route is lost."""
    if any(grant.route == "" for grant in session.grants.values()):
        session.runtime.here.resync(session.connection, ("",))  # it has a position there, which moves
    else:
        session.connection.put(encode_notice("$resync", "", Position("", 0)))


def _is_valid(message: Any) -> bool:
    """Whether it is what `Users.tell` tells; what comes over a layer may be anything."""
    command, data = message.get("event"), message.get("data")
    if not (isinstance(command, str) and isinstance(data, dict)):
        return False
    return command in _COMMANDS and all(isinstance(data.get(name), str) for name in _COMMANDS[command])


def recheck(session: "Session") -> asyncio.Task[None] | None:
    """Asks the permissions of all that a connection is subscribed to, and of its streams, again; what is lost ends, and
    it is told so. Where it hears broadcasts, for which nothing but the connection's own right is needed, that is asked,
    and without it the connection is closed, 4403.

    All at once, ``action_timeout`` seconds each: one that hangs keeps none of the others. From here on until it is
    known whether it may, it is told no event and no item. The task is what asks; None: there is nothing to ask.
    """
    session.revised = True
    hold = partial(session.runtime.here.hold, session.connection)
    asking = [partial(_ask_subscription, session, key, grant, hold(*key)) for key, grant in session.grants.items()]
    asking += [partial(_ask_stream, session, stream, stream.hold()) for stream in session.streams]
    if (group := session.group) is not None:
        asking.append(partial(_ask_connection, session, group, session.runtime.here.hold(group, *group.place)))
    if not asking:
        return None
    task: asyncio.Task[None] = session.connection.spawn(_run_all, asking)
    return task


async def _run_all(asking: Iterable[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(ask() for ask in asking))


async def _ask_stream(session: "Session", stream: Stream, resume: Callable[[], None]) -> None:
    try:
        if not await stream.still_holds() and stream in session.streams and not stream.frame.is_refused:
            session.connection.stop(stream.frame, PermissionDenied())
    finally:
        resume()


async def _ask_connection(session: "Session", group: Any, resume: Callable[[], None]) -> None:
    try:
        if await Connecting(session).still_holds():
            group.hears = True
        else:
            session.connection.close(FORBIDDEN, "permission denied")
    finally:
        resume()


async def _ask_subscription(session: "Session", key: tuple[str, str], grant: Grant, resume: Callable[[], None]) -> None:
    try:
        holds = await grant.still_holds()
        if session.grants.get(key) is grant:
            if holds:
                grant.count()
            else:
                withdraw(session, *key)
    finally:
        resume()
